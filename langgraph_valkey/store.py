"""The store: LangGraph's memory across threads, on both native faces.

There is no logic here. Batches are handed to the one implementation in `items`; what differs
is the link it runs over, and the face of the embedder: `batch` finishes the coroutine on the
spot, `abatch` awaits it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import anyio.to_thread
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import IndexConfig, Op, Result, TTLConfig

from langgraph_valkey.closing import Closing
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.items import names
from langgraph_valkey.items.buckets import Buckets
from langgraph_valkey.items.embedding import Indexing
from langgraph_valkey.items.indexed import Indexes
from langgraph_valkey.items.lasting import LastingPuts
from langgraph_valkey.items.replaying import BucketReplay
from langgraph_valkey.items.serving import Serving
from langgraph_valkey.items.tending import Tending
from langgraph_valkey.keeper import ROUND_S, Keeper
from langgraph_valkey.link import Link, finish
from langgraph_valkey.loss_window import recovering, tending
from langgraph_valkey.loss_window.report import Health, Hooks, RecoveryReport
from langgraph_valkey.primary.contract import Primary, PrimaryStore
from langgraph_valkey.primary.opening import open_store
from langgraph_valkey.session import Session
from langgraph_valkey.settings import Settings
from langgraph_valkey.stored.codec import Codec

_NAME = "store"
"""What keeps its keys and its spool apart from those of a saver with the same settings."""

_NO_NAMES = bytes(16)
"""In place of a key for the names of pieces, which an encrypting serializer needs: items are
stored whole."""


class ValkeyStore(LastingPuts, Closing):
    """A LangGraph store on Valkey: memory across threads.

    One object serves blocking and async callers, any number of threads and event loops, and
    forked children. It connects at first use. What it was told is kept as a `ValkeySaver`
    keeps its threads: journaled until it is durable, and replayed after a failover.

    Example:
        ```python
        with ValkeyStore("valkey://127.0.0.1:6379") as store:
            store.put(("users", "ada"), "likes", {"food": "figs"})
            graph = builder.compile(store=store)
        ```

    What must not be lost even with all of Valkey is put with ``durable=True``: it goes to the
    store of record first (`primary_store`), and to Valkey then. Whenever Valkey turns out to
    lack some of it, it is brought there again before the bucket of its namespace is read.

    All methods raise `Unreachable`, `WriteRejected` or `OutcomeUnknown` when the server can't
    be asked, and `CorruptState` for what can't be read back whole; None and empty lists mean
    that the server said so.

    Attributes:
        settings: Where the server is, and how items are kept.
        index_config: As given.
        ttl_config: As given.
    """

    supports_ttl = True

    def __init__(
        self,
        server: str | Settings | None = None,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        serde: SerializerProtocol | None = None,
        primary_store: str | PrimaryStore | None = None,
        hooks: Hooks | None = None,
        link: Link | None = None,
        **overrides: Any,
    ) -> None:
        """Make a store.

        Args:
            server: The URL of the server, as of `Settings.from_url`, or all settings; read
                from the environment (`Settings.from_env`) if not given.
            index: What is embedded for searches by a query, and by which embedder; see
                LangGraph's `IndexConfig`.
            ttl: How long items live, in minutes, and whether reading puts that off. The
                server expires them, so nothing sweeps.
            serde: The serializer of values; LangGraph's `JsonPlusSerializer` if not given.
            primary_store: Where items go that are put with ``durable=True``: a URL
                (``sqlite:///path``, ``postgresql://...`` or ``dynamodb://...``), or an open
                one, which its owner closes. All processes must give the same. There the
                store goes by its `key_prefix`, and buckets by `store_buckets`.
            hooks: Functions that are told of failovers and a full journal.
            link: A link of your own that never suspends, for both faces; for tests
                (`testing.MemoryLink`).
            **overrides: Fields of `Settings`, stronger than what `server` says.

        Raises:
            ConfigurationError: Something of it can't be used.
        """
        self.settings = settings = _settings(server, link, overrides)
        self.index_config = index
        self.ttl_config = _checked(ttl)
        self._indexing = Indexing(index) if index else None
        key = settings.digest_key
        codec = Codec(
            serde or JsonPlusSerializer(), key.get_secret_value() if key is not None else _NO_NAMES
        )
        self._session = session = Session(settings, hooks, link, name=_NAME, replays=BucketReplay)
        self._calls = session.calls
        self._window = session.window
        self._primary_store = _opened(primary_store)
        self._closes = self._primary_store if isinstance(primary_store, str) else None
        primary_of = None if self._primary_store is None else self._primary_of
        where = session.prefix, settings.store_buckets
        self._buckets = Buckets(codec, session.window, *where, primary_of=primary_of)
        has_keeper = self._primary_store is not None and link is None
        what = "the store's durable items"
        self._keeper = Keeper(self, ValkeyStore.tend, ROUND_S, what) if has_keeper else None
        self._tending = Tending(self._buckets)
        self._serving = Serving(
            self._buckets, self._indexing, slides=ttl is not None, indexes=self._indexes(codec)
        )

    def _indexes(self, codec: Codec) -> Indexes | None:
        """The server's index of what is embedded, if it is to be used."""
        if self._indexing is None or not self.settings.server_index or codec.encrypts:
            return None
        return Indexes(self._session.prefix, self._indexing.dimension)

    def _primary_of(self, link: Link) -> Primary:
        """The face of the primary store that goes with a link."""
        assert self._primary_store is not None
        session = self._session
        suspends = link is session.loops and link is not session.blocking
        return self._primary_store.loops if suspends else self._primary_store.blocking

    # --- the two faces -----------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """See `BaseStore.batch`. A `DurablePut` among them is a put with ``durable=True``."""
        self._look_after_it()
        face = self._indexing.blocking if self._indexing is not None else None
        with self._calls:
            return finish(self._serving.run(self._session.blocking, face, ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """See `BaseStore.abatch`, and `batch`."""
        self._look_after_it()
        face = self._indexing.looping if self._indexing is not None else None
        with self._calls:
            return await self._serving.run(self._session.loops, face, ops)

    def setup(self) -> None:
        """Connect now, rather than at first use, and make the primary store's tables."""
        with self._calls:
            finish(self._set_up(self._session.blocking))

    async def asetup(self) -> None:
        """See `setup`."""
        with self._calls:
            await self._set_up(self._session.loops)

    async def _set_up(self, link: Link) -> None:
        await self._buckets.lay_out(link, writes=False)
        if self._buckets.durables is not None:
            await self._buckets.durables.ready(link)

    def _look_after_it(self) -> None:
        if self._keeper is not None:
            with suppress(RuntimeError):  # The system has no thread for it now.
                self._keeper.start()

    # --- the loss window ---------------------------------------------------------------

    def tend(self) -> None:
        """Bring Valkey what it lacks of the durable items, if it is time to look.

        The store's keeper, a thread of its own, does so by itself; and reads bring what
        they need.
        """
        finish(self._tending.round(self._session.blocking))

    def health(self) -> Health:
        """What is not durable yet, how far behind shards are, and what failovers did."""
        return self._window.vitals.health(time.monotonic())

    def recover(self) -> RecoveryReport | None:
        """Replay all that is journaled now. Never needed; safe at any time.

        The monitor does it by itself after a failover.

        Returns:
            What came of it, over all shards; None if nothing is journaled.
        """
        link = self._session.blocking
        with self._calls:
            return finish(recovering.recover(self._window, link, everything=True))

    async def arecover(self) -> RecoveryReport | None:
        """See `recover`."""
        with self._calls:
            return await recovering.recover(self._window, self._session.loops, everything=True)

    def wait_durable(self, timeout_s: float, namespace: tuple[str, ...] | None = None) -> bool:
        """Wait until what this process wrote can't be lost any more.

        Args:
            timeout_s: For how long at most. With async durability it takes two lag bounds,
                about 22 s, by the three conditions of the watermark.
            namespace: Wait for what was written there, and in the namespaces that share its
                bucket; None for all.

        Returns:
            Whether it is durable; False after the timeout.
        """
        where = self._bucket(namespace)
        return finish(tending.wait_durable(self._window, self._session.blocking, where, timeout_s))

    async def await_durable(
        self, timeout_s: float, namespace: tuple[str, ...] | None = None
    ) -> bool:
        """See `wait_durable`."""
        where = self._bucket(namespace)
        return await tending.wait_durable(self._window, self._session.loops, where, timeout_s)

    def _bucket(self, namespace: tuple[str, ...] | None) -> str | None:
        if namespace is None:
            return None
        return self._buckets.of(names.pack_namespace(tuple(namespace)))

    def close(self, drain_s: float | None = None) -> None:
        """Close the connections, once what was written is durable. May be called again.

        Args:
            drain_s: How long to wait for calls under way in other threads, and for the
                server to make durable what was written; 2.4 lag bounds if not given.
                With a `spool_dir` give 0 to leave at once: the spool keeps it.
        """
        self._stop()
        self._session.close(drain_s)
        if self._closes is not None:
            self._closes.close()

    async def aclose(self, drain_s: float | None = None) -> None:
        """Close the connections; see `close`. Other tasks run meanwhile."""
        await anyio.to_thread.run_sync(self._stop)
        await self._session.aclose(drain_s)
        if self._closes is not None:
            await self._closes.aclose()

    def _stop(self) -> None:
        if self._buckets.durables is not None:
            self._buckets.durables.close()
        if self._keeper is not None:
            self._keeper.stop()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.settings.addresses}, prefix={self.settings.key_prefix!r})"
        )


def _opened(primary_store: str | PrimaryStore | None) -> PrimaryStore | None:
    return open_store(primary_store) if isinstance(primary_store, str) else primary_store


def _settings(
    server: str | Settings | None, link: Link | None, overrides: dict[str, Any]
) -> Settings:
    if isinstance(server, str):
        return Settings.from_url(server, **overrides)
    if server is not None:
        return Settings(**{**server.model_dump(), **overrides}) if overrides else server
    return Settings.from_env(**overrides) if link is None else Settings(**overrides)


def _checked(ttl: TTLConfig | None) -> TTLConfig | None:
    if ttl is None:
        return None
    default = ttl.get("default_ttl")
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    if default is not None and not (is_number and math.isfinite(default) and default > 0):
        raise ConfigurationError(
            "default_ttl must be a number of minutes above 0, or None: pass ttl={'default_ttl': 60}"
        )
    return ttl
