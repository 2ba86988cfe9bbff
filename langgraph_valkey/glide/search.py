"""Indexes over GLIDE: what is asked, in the words of its search commands.

The commands are the same for both of GLIDE's clients, of which one returns what the other
returns something to await for. What they return and raise is read here for both.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from glide_shared.commands.server_modules.ft_options.ft_create_options import (
    DataType,
    DistanceMetricType,
    Field,
    FtCreateOptions,
    TagField,
    VectorAlgorithm,
    VectorField,
    VectorFieldAttributesFlat,
    VectorFieldAttributesHnsw,
    VectorType,
)
from glide_shared.commands.server_modules.ft_options.ft_search_options import (
    FtSearchLimit,
    FtSearchOptions,
    ReturnField,
)
from glide_shared.exceptions import GlideError, RequestError
from glide_shared.routes import ByAddressRoute

from langgraph_valkey.glide.errors import translate
from langgraph_valkey.glide.scan import primaries
from langgraph_valkey.vectors.index import TAG, VECTOR, Index, IndexMissing, Nearest

_DISTANCE = "d"
_DIALECT = 2
_UNDER_WAY = {b"indexing", b"backfill_in_progress"}
"""By what servers tell that an index does not hold all of its hashes yet."""

_MISSING = ("unknown command", "no such index", "not found", "unknown index")
"""How servers say that there is no module or no index: of those seen, in lower case."""


def ask(ft: ModuleType, client: Any, query: Nearest) -> Any:
    """Send a query; returns what `found` reads, or something to await for it."""
    where = "*" if query.tag is None else f"(@{TAG}:{{{query.tag}}})"
    options = FtSearchOptions(
        params={"q": query.vector},
        return_fields=[ReturnField(_DISTANCE)],
        limit=FtSearchLimit(0, query.count),  # Ten otherwise, whatever K is.
        dialect=_DIALECT,
    )
    knn = f"{where}=>[KNN {query.count} @{VECTOR} $q AS {_DISTANCE}]"
    return ft.search(client, query.index, knn, options)


def found(reply: Any) -> list[tuple[bytes, float]]:
    """Keys and cosines of a reply, the best first: the server's order is that of keys."""
    rows = reply[1] if len(reply) > 1 else {}
    scores = [
        (key, 1.0 - float(fields[_DISTANCE.encode()]))
        for key, fields in rows.items()
        if _DISTANCE.encode() in fields
    ]
    return sorted(scores, key=lambda each: -each[1])


def create(ft: ModuleType, client: Any, index: Index) -> None:
    """Create an index over a blocking client, unless there is one of its name."""
    sizes = (index.dimension, DistanceMetricType.COSINE, VectorType.FLOAT32)
    fields: list[Field] = []
    if index.of_one_set:
        hnsw = VectorFieldAttributesHnsw(*sizes)
        fields.append(VectorField(VECTOR, VectorAlgorithm.HNSW, hnsw))
    else:
        fields.append(TagField(TAG))
        flat = VectorFieldAttributesFlat(*sizes)
        fields.append(VectorField(VECTOR, VectorAlgorithm.FLAT, flat))
    options = FtCreateOptions(DataType.HASH, [index.prefix])
    try:
        ft.create(client, index.name, fields, options)
    except RequestError as error:
        if "already exists" not in str(error).lower():
            raise


def names(ft: ModuleType, client: Any) -> frozenset[str] | None:
    """Names of all indexes, over a blocking client; None if there is no search module.

    The command is looked up first: GLIDE prints the error that an unknown one ends in.
    """
    if not any(client.custom_command(["COMMAND", "INFO", "FT._LIST"])):
        return None
    return frozenset(name.decode(errors="replace") for name in ft.list(client))


def is_built(client: Any, name: str, *, cluster_mode: bool) -> bool:
    """Whether an index holds all of its hashes, on every primary; over a blocking client."""
    command = ["FT.INFO", name]
    if not cluster_mode:
        return _says_built(client.custom_command(command))
    # One by one: GLIDE can't read the answers of several nodes to this command.
    return all(
        _says_built(client.custom_command(command, route=ByAddressRoute(host, port)))
        for host, port in primaries(client)
    )


def _says_built(info: Any) -> bool:
    pairs = info.items() if isinstance(info, dict) else zip(info[::2], info[1::2], strict=False)
    return all(not int(value) for key, value in pairs if _bytes(key) in _UNDER_WAY)


def _bytes(name: Any) -> bytes:
    return name if isinstance(name, bytes) else str(name).encode()


def failure_of(error: GlideError) -> Exception:
    """What to raise for a query that failed."""
    text = str(error).lower()
    if isinstance(error, RequestError) and any(words in text for words in _MISSING):
        return IndexMissing("the server has no such index")
    return translate(error, writes=False)
