"""All there is to set: the connection, and how the cache keeps and finds things."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, SecretStr, field_validator

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.settings import ConnectionSettings

DAY_S = 24 * 3600.0

PRIMARY = "sqlite:///rag-cache.db"
"""Where versions of documents are kept if nothing else is said: a file in the working
directory, which processes of one machine share."""

TTL_S: Mapping[str, float] = {
    "answer": DAY_S,
    "retrieval": DAY_S / 4,
    "embedding": 30 * DAY_S,
    "node": DAY_S,
}
"""How long values live, by their kind: an embedding never becomes wrong, an answer may be
judged by what the world is like today, and a retrieval by what was indexed since."""

TTL_MOST_S = 30 * DAY_S
"""The longest a value may live: less than the copies of versions are kept for."""

LOOKUP_DEADLINE_MS = 50
"""How long a lookup may take, without the time that embedding takes: a hit takes less than
a millisecond, so whoever waits longer waits for a server in trouble."""

INVALIDATE_DEADLINE_S = 5.0
"""How long an invalidation is tried: by then a primary that fails over has been replaced,
and other processes have learned that a change is pending."""

STORE_TIMEOUT_MS = 1_000


class CacheSettings(ConnectionSettings):
    """All settings of a semantic cache.

    Attributes:
        key_prefix: What all keys begin with. Caches with different prefixes know nothing of
            each other, and may share a primary store; caches on different clusters that
            share one need different prefixes.
        primary: URL of the primary store of document versions: ``sqlite:///file``,
            ``postgresql://...`` or ``dynamodb://...``; all processes of a cache use the same.
            Never shown, since it may hold a password.
        primary_schema: The schema of its tables on PostgreSQL.
        threshold: The least cosine of two questions' embeddings for one's answer to serve
            the other. It depends on the embedder: see `calibrate`.
        neighbours: How many of the nearest entries guards look at.
        lookup_deadline_ms: How long a lookup may take, embedding apart.
        invalidate_deadline_s: How long an invalidation is tried before it is left pending.
        ttl_s: How long values live, by kind; missing kinds have their defaults.
        ttl_jitter: By which part a life is shortened at most, at random, so that what was
            stored together does not end together.
        entries_most: Entries one scope may have; the oldest make room.
        rows_most: Entries this process keeps at hand, of all scopes together.
        spread: Over how many slots a corpus is spread for each tenant. The same in all
            processes.
        flight_s: For how long a computation is left to the process that does it already.
        server_index: Whether to use the server's search module where there is one.
    """

    key_prefix: str = Field(default="rag", pattern=r"^[A-Za-z0-9_.:/-]+$")
    primary: SecretStr = SecretStr(PRIMARY)
    primary_schema: str | None = Field(default=None, min_length=1)
    threshold: float = Field(default=0.9, ge=-1, le=1)
    neighbours: int = Field(default=8, ge=1, le=100)
    lookup_deadline_ms: int = Field(default=LOOKUP_DEADLINE_MS, ge=1, le=60_000)
    invalidate_deadline_s: float = Field(default=INVALIDATE_DEADLINE_S, ge=0, le=600)
    ttl_s: Mapping[str, float] = Field(default_factory=dict)
    ttl_jitter: float = Field(default=0.1, ge=0, lt=1)
    entries_most: int = Field(default=50_000, ge=1)
    rows_most: int = Field(default=100_000, ge=1)
    spread: int = Field(default=1, ge=1, le=64)
    flight_s: float = Field(default=30.0, gt=0, le=3600)
    server_index: bool = True
    client_name: str = Field(default="rag-cache", pattern=r"^[!-~]*$")

    @classmethod
    def from_env(
        cls,
        prefix: str = "RAG_CACHE_",
        environ: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Self:
        """Read the environment; see `ConnectionSettings.from_env`. The prefix is the cache's."""
        return super().from_env(prefix, environ, **overrides)

    @classmethod
    def _in_queries(cls) -> tuple[str, ...]:
        """Not the primary store's URL, which may hold a password."""
        return tuple(name for name in super()._in_queries() if name != "primary")

    @field_validator("ttl_s", mode="before")
    @classmethod
    def _by_text(cls, given: Any) -> Any:
        """In URLs and in the environment it is JSON: ``{"answer": 3600}``."""
        if not isinstance(given, str):
            return given
        try:
            return json.loads(given)
        except ValueError:
            raise ValueError('ttl_s must be JSON here, as in {"answer": 3600}') from None

    @field_validator("ttl_s")
    @classmethod
    def _lives(cls, given: Mapping[str, float]) -> Mapping[str, float]:
        for kind, ttl_s in given.items():
            check_ttl(ttl_s, f"ttl_s[{kind!r}]")
        return given

    @property
    def may_evict(self) -> bool:
        """Whether the server is meant to evict: what is cached can be computed again."""
        return True

    def ttl_of(self, kind: str) -> float:
        """How long a value of a kind lives, in seconds."""
        found = self.ttl_s.get(kind, TTL_S.get(kind))
        if found is None:
            known = ", ".join(sorted({*TTL_S, *self.ttl_s}))
            raise ConfigurationError(
                f"no time to live is set for values of kind {kind!r}: use one of {known}, give "
                "ttl_s with the value, or set ttl_s for the kind"
            )
        return found

    def for_lookups(self) -> ConnectionSettings:
        """The connection of lookups: no request may take longer than one of them."""
        most_ms = min(self.lookup_deadline_ms, self.request_timeout_ms)
        return self.model_copy(update={"request_timeout_ms": most_ms})

    def for_writes(self) -> ConnectionSettings:
        """The connection of what writes; it keeps trying for as long as it makes sense."""
        update: dict[str, Any] = {
            "reject_deadline_s": 0.0,
            "read_deadline_s": 0.0,
            "unknown_retry_deadline_s": 0.0,
        }
        return self.model_copy(update=update)


def check_ttl(ttl_s: float, name: str = "ttl_s") -> float:
    """Refuse what is no time to live.

    Raises:
        ValueError: It is not between 0.001 and `TTL_MOST_S`.
    """
    if not 0.001 <= ttl_s <= TTL_MOST_S:
        raise ValueError(f"{name} must be from 0.001 to {TTL_MOST_S:.0f} seconds")
    return ttl_s
