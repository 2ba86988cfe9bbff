"""What no store on Valkey can go below: the same values, one round trip for each slot.

A store must serialize each value that it is given once and send it, and fetch and deserialize
each that it is asked for. This does just that, over the same client with the same settings as
ours: for each hash slot one MGET, one MSET and one UNLINK, all slots in one go. It keeps no
order, no namespaces, no times and no history, and sorts nothing: what goes to which slot was
found before. What a search or a listing would find is known to it, and just fetched.

Beside it stand a *pipeline*: the same round trip with one command for each operation, as
someone would write it who does without a store; and a *script* for each slot, which does what
the floor does and keeps the least by which a store can tell later what it has, and to whom:
the time, which primary it is, and an index of what is there, by that time.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, SearchOp

from benchmarks.contenders import FLOOR
from benchmarks.faces import Contender, FaceName, Role
from benchmarks.floor import SERDE
from benchmarks.servers import ValkeyStore
from benchmarks.store_faces import Namespace
from benchmarks.store_items import FILLED_AT_ONCE, FOUND, LISTED, key
from langgraph_valkey.glide.clients import batch_of, close_native, make_blocking, make_native
from langgraph_valkey.items.names import bucket_of, pack_namespace
from langgraph_valkey.settings import ConnectionSettings

PIPELINE = "one command an operation"
SCRIPTED = "one small script a slot"

_SCRIPT = b"""
local gets, puts, removed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local TIME = redis.call('TIME')
redis.call('INFO', 'replication')
local found, at = {}, 4
if gets > 0 then found = redis.call('MGET', unpack(ARGV, at, at + gets - 1)) end
at = at + gets
if puts > 0 then
  local scores, last = {}, at + 2 * puts - 1
  redis.call('MSET', unpack(ARGV, at, last))
  for n = at, last, 2 do
    scores[#scores + 1] = TIME[1]
    scores[#scores + 1] = ARGV[n]
  end
  redis.call('ZADD', KEYS[1], unpack(scores))
end
at = at + 2 * puts
if removed > 0 then
  redis.call('UNLINK', unpack(ARGV, at))
  redis.call('ZREM', KEYS[1], unpack(ARGV, at))
end
return found
"""
_SCRIPT_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest().encode()


@dataclass(slots=True)
class Slot:
    """What a batch has to do in one slot.

    Attributes:
        gets: Names of what is read.
        puts: Names and values of what is stored.
        removed: Names of what is deleted.
    """

    gets: list[bytes] = field(default_factory=list)
    puts: list[tuple[bytes, Any]] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)


class Floor:
    """One round trip over GLIDE's async client.

    Args:
        settings: Where the server is.
        client: Connected to it.
        prefix: Of its keys.
        buckets: How many hash tags there are: as many as ours has.
    """

    def __init__(
        self, settings: ConnectionSettings, client: Any, prefix: str, buckets: int
    ) -> None:
        self._settings = settings
        self._client = client
        self._prefix = prefix
        self._buckets = buckets

    def _tag(self, namespace: Namespace) -> str:
        return bucket_of(pack_namespace(namespace), self._buckets)

    def _name(self, tag: str, namespace: Namespace, name: str) -> bytes:
        return f"{self._prefix}:{{{tag}}}:{'/'.join(namespace)}:{name}".encode()

    def _listing(self) -> bytes:
        return self._name("listing", (), "")

    def prepared(self, ops: Sequence[Op]) -> list[Slot]:
        """What has to be done in each slot."""
        slots: dict[str, Slot] = {}

        def slot(tag: str) -> Slot:
            return slots.setdefault(tag, Slot())

        for op in ops:
            if isinstance(op, ListNamespacesOp):
                slot("listing").gets.append(self._listing())
            elif isinstance(op, SearchOp):
                space = op.namespace_prefix
                found = [self._name(self._tag(space), space, key(at)) for at in range(FOUND)]
                slot(self._tag(space)).gets.extend(found)
            elif isinstance(op, GetOp | PutOp):
                tag = self._tag(op.namespace)
                name = self._name(tag, op.namespace, op.key)
                if isinstance(op, GetOp):
                    slot(tag).gets.append(name)
                elif op.value is None:
                    slot(tag).removed.append(name)
                else:
                    slot(tag).puts.append((name, op.value))
        return list(slots.values())

    async def _exec(self, commands: list[list[bytes]]) -> list[Any]:
        found: list[Any] = await self._client.exec(batch_of(self._settings, commands), False)
        return found

    def _commands(self, slot: Slot) -> Iterator[list[bytes]]:
        """The commands of a slot, with the values serialized."""
        if slot.gets:
            yield [b"MGET", *slot.gets]
        if slot.puts:
            command = [b"MSET"]
            for name, value in slot.puts:
                command += (name, SERDE.dumps_typed(value)[1])
            yield command
        if slot.removed:
            yield [b"UNLINK", *slot.removed]

    def _read(self, replies: Sequence[Any]) -> Iterator[bytes]:
        """What was fetched."""
        for reply in replies:
            if isinstance(reply, list):
                yield from reply

    async def batch(self, slots: Sequence[Slot]) -> list[Any]:
        """Serialize, send, deserialize."""
        replies = await self._exec([each for slot in slots for each in self._commands(slot)])
        return [SERDE.loads_typed(("msgpack", value)) for value in self._read(replies)]

    async def fill(self, ops: Sequence[PutOp], spaces: Sequence[Namespace]) -> None:
        """Store items, and names of namespaces."""
        for at in range(0, len(ops), FILLED_AT_ONCE):
            await self.batch(self.prepared(ops[at : at + FILLED_AT_ONCE]))
        names = SERDE.dumps_typed([list(space) for space in spaces][:LISTED])[1]
        await self._exec([[b"SET", self._listing(), names]])


class Pipeline(Floor):
    """The same with one command for each operation."""

    def _commands(self, slot: Slot) -> Iterator[list[bytes]]:
        for name in slot.gets:
            yield [b"GET", name]
        for name, value in slot.puts:
            yield [b"SET", name, SERDE.dumps_typed(value)[1]]
        for name in slot.removed:
            yield [b"UNLINK", name]

    def _read(self, replies: Sequence[Any]) -> Iterator[bytes]:
        for reply in replies:
            if isinstance(reply, bytes):
                yield reply


class Scripted(Floor):
    """The same as one script for each slot, with an index of its keys."""

    def _commands(self, slot: Slot) -> Iterator[list[bytes]]:
        put = [each for name, value in slot.puts for each in (name, SERDE.dumps_typed(value)[1])]
        counts = (b"%d" % len(each) for each in (slot.gets, slot.puts, slot.removed))
        names = [*slot.gets, *put, *slot.removed]
        index = names[0][: names[0].index(b"}") + 1] + b":index"
        yield [b"EVALSHA", _SCRIPT_SHA, b"1", index, *counts, *names]

    async def fill(self, ops: Sequence[PutOp], spaces: Sequence[Namespace]) -> None:
        """The same, once the script is there."""
        await self._exec([[b"SCRIPT", b"LOAD", _SCRIPT]])
        await super().fill(ops, spaces)


class _Blocking:
    """In place of the async client's round trip, the blocking one's."""

    _settings: ConnectionSettings
    _client: Any

    async def _exec(self, commands: list[list[bytes]]) -> list[Any]:
        found: list[Any] = self._client.exec(batch_of(self._settings, commands), False)
        return found


class BlockingFloor(_Blocking, Floor):
    """The floor over GLIDE's blocking client."""


class BlockingPipeline(_Blocking, Pipeline):
    """The pipeline over it."""


class BlockingScripted(_Blocking, Scripted):
    """The scripts over it."""


@contextlib.asynccontextmanager
async def _async(make: type[Floor], url: str, prefix: str, buckets: int) -> AsyncIterator[Floor]:
    settings = ConnectionSettings.from_url(url)
    client = make_native(settings)
    try:
        yield make(settings, client, prefix, buckets)
    finally:
        close_native(client)


@contextlib.contextmanager
def _blocking(make: type[Floor], url: str, prefix: str, buckets: int) -> Iterator[Floor]:
    settings = ConnectionSettings.from_url(url)
    with contextlib.closing(make_blocking(settings)) as client:
        yield make(settings, client, prefix, buckets)


def rulers(face: FaceName, server: ValkeyStore, prefix: str, buckets: int) -> list[Contender]:
    """The floor, the pipeline and the scripts.

    Args:
        face: On which of GLIDE's clients.
        server: Ours.
        prefix: Of the keys.
        buckets: As many as ours has.
    """
    rows: tuple[tuple[str, Role, type[Floor], type[Floor]], ...] = (
        (FLOOR, "floor", Floor, BlockingFloor),
        (PIPELINE, "reference", Pipeline, BlockingPipeline),
        (SCRIPTED, "reference", Scripted, BlockingScripted),
    )
    found = []
    for name, role, looping, blocking in rows:
        about = server.url, f"{prefix}-{looping.__name__}", buckets
        opening = _async(looping, *about) if face == "async" else _blocking(blocking, *about)
        found.append(Contender(name, role, face, True, server, opening))
    return found
