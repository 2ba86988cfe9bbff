"""`SemanticCache`: one class, with a blocking and an async method for everything.

Three things keep it from lying. Entries are found by the meaning of the question alone, and
only among those whose scope is exactly the same. What is near enough must pass guards. And
what is served is checked by the server, in the same call, against the versions of the
documents it was made from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from langchain_core.embeddings import Embeddings

from langgraph_valkey.closing import Closing
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.keeper import Keeper
from langgraph_valkey.link import finish
from langgraph_valkey.primary.contract import PrimaryStore
from rag_cache.answers import Answers, Keeping
from rag_cache.computing import Computing
from rag_cache.connections import Connections, Parts
from rag_cache.embedding import Embedder
from rag_cache.explaining import explain
from rag_cache.freshness.standings import Standings
from rag_cache.freshness.tending import ROUND_S, tend
from rag_cache.guards import DEFAULT_GUARDS
from rag_cache.guards.guard import Guard
from rag_cache.guards.verifier import Verifier
from rag_cache.judging import Judge
from rag_cache.marks import changed
from rag_cache.metrics import Meter, Prices, Stats
from rag_cache.plain_face import PlainFace
from rag_cache.results import Explanation, Fence, Hit, Miss, Stored
from rag_cache.scope import Scope
from rag_cache.server_index import ServerIndex
from rag_cache.settings import CacheSettings
from rag_cache.storing import About

if TYPE_CHECKING:
    from rag_cache.calibration import Calibration

_NO_EVIDENCE: Mapping[str, str | None] = {}


def _check_reach(neighbours: int, guards: Sequence[Guard]) -> None:
    """Refuse guards that would refuse everything, since they never see enough.

    Raises:
        ConfigurationError: One wants more entries to agree than it is shown.
    """
    for guard in guards:
        wanted = getattr(guard, "agreeing", 0)
        if wanted > neighbours:
            raise ConfigurationError(
                f"{guard!r} wants {wanted} entries to agree and is shown {neighbours}, so it "
                f"would refuse all of them: set neighbours={wanted} or more, or agreeing lower"
            )


class SemanticCache(PlainFace, Closing):
    """A semantic cache on Valkey.

    It may be used from any number of threads and event loops, and in forked children.

    Args:
        server: URL of the cache cluster, or all settings.
        embedder: Embeds questions: any of LangChain's `Embeddings`.
        guards: What may speak against an entry, in turn; by default `DEFAULT_GUARDS`.
        verifier: Is asked about each entry that is not the very question's; what it does not
            clearly affirm is not served.
        calibration: Threshold and guards as `calibrate` chose them.
        primary_store: An open primary store, instead of the settings' URL; its owner closes it.
        prices: What tokens cost, for `stats`.
        **overrides: Fields of `CacheSettings`, stronger than what `server` says.

    Raises:
        ConfigurationError: The settings can't be used, or a package they take is missing.
    """

    def __init__(
        self,
        server: str | CacheSettings,
        *,
        embedder: Embeddings,
        guards: Sequence[Guard] | None = None,
        verifier: Verifier | None = None,
        calibration: Calibration | None = None,
        primary_store: PrimaryStore | None = None,
        prices: Prices | None = None,
        **overrides: Any,
    ) -> None:
        if isinstance(server, CacheSettings):
            settings = CacheSettings(**{**dict(server), **overrides}) if overrides else server
        else:
            settings = CacheSettings.from_url(server, **overrides)
        threshold = settings.threshold if calibration is None else calibration.threshold
        if guards is None:
            guards = DEFAULT_GUARDS if calibration is None else calibration.guards
        _check_reach(settings.neighbours, guards)
        self.settings = settings
        self.judge = Judge(threshold, guards)
        self.judge.warm_up()
        self._meter = Meter(prices)
        self._embedder = Embedder(embedder)
        self._standings = Standings(self._wake)
        index = ServerIndex(settings.key_prefix, self._embedder, is_wanted=settings.server_index)
        self._connections = Connections(
            settings,
            primary_store,
            Parts(self._embedder, self.judge, verifier, self._standings, index),
        )
        self._blocking, self._loops = self._connections.blocking, self._connections.loops
        self._answers = Answers(settings, self._embedder.id, self._standings, self._meter)
        self._computing = Computing(self._answers, self._meter, settings.flight_s)
        self._index = index
        self._keeper = Keeper(self, SemanticCache.tend, ROUND_S, "the cache's document versions")
        super().__init__(settings, self._blocking, self._loops)

    # --- looking up ----------------------------------------------------------------------

    def lookup(
        self, question: str, scope: Scope, *, documents: Sequence[str] | None = None
    ) -> Hit | Miss:
        """Look for an answer.

        Args:
            question: The question alone: what else matters belongs into the scope.
            scope: Within what an answer may be reused.
            documents: Ids of the documents that are best for the question now, the best
                first, if they are known: then the answer's must agree.

        Returns:
            A `Hit`, or a `Miss` with its reason, also where the server is slow, away or full:
            both know whether they are true.

        Raises:
            TypeError: Something is of a wrong type.
            ValueError: The question is empty.
        """
        return finish(self._answers.lookup(self._blocking, question, scope, documents))

    async def alookup(
        self, question: str, scope: Scope, *, documents: Sequence[str] | None = None
    ) -> Hit | Miss:
        """Look for an answer; see `lookup`."""
        return await self._answers.lookup(self._loops, question, scope, documents)

    def explain(
        self, question: str, scope: Scope, *, documents: Sequence[str] | None = None
    ) -> Explanation:
        """Why a question hits or misses; counts as no lookup. Takes what `lookup` takes."""
        asking = self._answers.asking(self._blocking, question, scope, documents)
        return finish(explain(self._answers, self._blocking, self.judge, asking))

    async def aexplain(
        self, question: str, scope: Scope, *, documents: Sequence[str] | None = None
    ) -> Explanation:
        """Why a question hits or misses; see `explain`."""
        asking = self._answers.asking(self._loops, question, scope, documents)
        return await explain(self._answers, self._loops, self.judge, asking)

    # --- storing -------------------------------------------------------------------------

    def store(
        self,
        question: str,
        scope: Scope,
        value: Any,
        *,
        evidence: Mapping[str, str | None] = _NO_EVIDENCE,
        tags: Sequence[str] = (),
        ttl_s: float | None = None,
        kind: str = "answer",
        fence: Fence | None = None,
        usage: Mapping[str, Any] | None = None,
        took_s: float | None = None,
    ) -> Stored:
        """Store a value, unless a document it was made from has changed meanwhile.

        Args:
            question: Under which question.
            scope: In which scope.
            value: Text, messages, documents, or whatever can be serialized.
            evidence: Ids of the documents it was made from, the best first, and the versions
                they had; None for a version that is not known.
            tags: Names by which it can be invalidated.
            ttl_s: How long it lives at most, in seconds; that of its kind if not given.
            kind: "answer", "retrieval", or a kind of `CacheSettings.ttl_s`.
            fence: That of the miss after which it was computed. Without one, a value is
                refused if any of its documents has ever been invalidated without telling the
                new version.
            usage: What the model used: LangChain's usage metadata.
            took_s: How long it took to compute.

        Returns:
            Whether it is in the cache now, and if not, why.

        Raises:
            TypeError, ValueError: Something is of a wrong type or size.
            ConfigurationError: The kind is not known.
        """
        about, keeping = About(evidence, tags, usage, took_s), Keeping(kind, ttl_s)
        return finish(
            self._answers.store(self._blocking, question, scope, value, about, keeping, fence)
        )

    async def astore(
        self,
        question: str,
        scope: Scope,
        value: Any,
        *,
        evidence: Mapping[str, str | None] = _NO_EVIDENCE,
        tags: Sequence[str] = (),
        ttl_s: float | None = None,
        kind: str = "answer",
        fence: Fence | None = None,
        usage: Mapping[str, Any] | None = None,
        took_s: float | None = None,
    ) -> Stored:
        """Store a value; see `store`."""
        about, keeping = About(evidence, tags, usage, took_s), Keeping(kind, ttl_s)
        return await self._answers.store(self._loops, question, scope, value, about, keeping, fence)

    def get_or_compute(
        self,
        question: str,
        scope: Scope,
        compute: Callable[[], Any],
        *,
        documents: Sequence[str] | None = None,
        kind: str = "answer",
        ttl_s: float | None = None,
    ) -> Hit:
        """Look for an answer, or compute and store it; of many at once one computes.

        Args:
            question: The question alone.
            scope: Within what an answer may be reused.
            compute: Returns the value, or a `Computed` that tells more of it. What it raises
                is raised; others who wait then compute themselves. A value that is too large
                to be stored, or has too many documents and tags, is returned all the same.
            documents: As of `lookup`.
            kind: As of `store`.
            ttl_s: As of `store`.

        Raises:
            TypeError, ValueError, ConfigurationError: As `lookup` and `store`.
        """

        async def run() -> Any:
            return compute()

        return finish(
            self._computing.compute(
                self._blocking, question, scope, run, documents, Keeping(kind, ttl_s)
            )
        )

    async def aget_or_compute(
        self,
        question: str,
        scope: Scope,
        compute: Callable[[], Awaitable[Any]],
        *,
        documents: Sequence[str] | None = None,
        kind: str = "answer",
        ttl_s: float | None = None,
    ) -> Hit:
        """Look for an answer, or await and store it; see `get_or_compute`."""
        return await self._computing.compute(
            self._loops, question, scope, compute, documents, Keeping(kind, ttl_s)
        )

    # --- invalidating --------------------------------------------------------------------

    def invalidate(
        self,
        document: str | Mapping[str, str | None] | None = None,
        *,
        version: str | None = None,
        tag: str | None = None,
        scope: Scope | None = None,
        tenant: str | None = None,
        corpus: str | None = None,
    ) -> None:
        """Make entries stale; when it has returned, none of them is served by any process.

        Call it after the change can be read: what is computed from then on is current.

        Args:
            document: Id of the document that changed, or several with their new versions.
            version: The document's new version: entries that have it stay. Without it all
                entries made from the document before now are stale.
            tag: All entries that have this tag.
            scope: All entries of this scope.
            tenant: All entries of this tenant.
            corpus: Of which corpus; that of the scope, or "default". Given alone: all of it.

        Raises:
            InvalidationPending: It is recorded, but some partition could not be told yet;
                lookups of the corpus miss until it is.
            LanggraphValkeyError: The primary store could not be asked; nothing was done.
            TypeError, ValueError: It is not said what changed, or of which type.
        """
        where, marks = changed(document, version, tag, scope, tenant, corpus)
        finish(self._answers.invalidate(self._blocking, where, marks))

    async def ainvalidate(
        self,
        document: str | Mapping[str, str | None] | None = None,
        *,
        version: str | None = None,
        tag: str | None = None,
        scope: Scope | None = None,
        tenant: str | None = None,
        corpus: str | None = None,
    ) -> None:
        """Make entries stale; see `invalidate`."""
        where, marks = changed(document, version, tag, scope, tenant, corpus)
        await self._answers.invalidate(self._loops, where, marks)

    def delete(self, question: str, scope: Scope) -> bool:
        """Delete the entry of exactly this question; whether it was there.

        A failover may bring it back; what must not be served again is invalidated.

        Raises:
            LanggraphValkeyError: The server could not be asked.
        """
        return finish(self._answers.delete(self._blocking, question, scope))

    async def adelete(self, question: str, scope: Scope) -> bool:
        """Delete the entry of exactly this question; see `delete`."""
        return await self._answers.delete(self._loops, question, scope)

    # --- upkeep --------------------------------------------------------------------------

    def stats(self) -> Stats:
        """What this process has counted since it made this cache."""
        return self._meter.snapshot()

    def setup(self) -> None:
        """Make the primary store's tables, if they are not there; the first use does so, too.

        Raises:
            LanggraphValkeyError: The primary store could not be asked, or refused.
        """
        finish(self._blocking.prepare())

    async def asetup(self) -> None:
        """Make the primary store's tables; see `setup`."""
        await self._loops.prepare()

    def tend(self) -> None:
        """Renew what this process may serve from; its keeper does so by itself."""
        face = self._blocking
        finish(face.prepare())
        finish(tend(face.primary, face.writes, self.settings.key_prefix, self._standings))
        finish(self._index.tend(self._connections.indexing))

    def _wake(self) -> None:
        self._keeper.start()
        self._keeper.wake()

    def close(self) -> None:
        """Close its connections. What it kept is in the cache."""
        self._keeper.stop()
        self._connections.close()

    async def aclose(self) -> None:
        """Close its connections, while other tasks run."""
        await anyio.to_thread.run_sync(self._keeper.stop)
        await self._connections.aclose()
