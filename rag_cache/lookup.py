"""Finding an answer: the very question, or one of the same meaning, or none.

A lookup is one call of the server in most cases. If this process knows the scope, it has
compared the question with all entries before it asks, and names those that may answer; the
server serves the first one that is still right. What the reply tells of entries that are
new is compared as well, and asked for again if one of them fits.

Nothing here raises because a server is slow, away, or full of something unreadable: the
caller computes its answer then, as if there were no cache.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraph_valkey.link import NotSent
from langgraph_valkey.vectors.index import SearchLink
from rag_cache.asking import Asking, Bypass
from rag_cache.embedding import Embedder
from rag_cache.entries import Card, Corrupt, Record
from rag_cache.freshness.standings import Standings
from rag_cache.judging import Judge
from rag_cache.operations import calls
from rag_cache.partitions import Partition, partition_of
from rag_cache.results import Fence, Hit, HitTier, Miss, Refusal
from rag_cache.server_index import ServerIndex
from rag_cache.shelves import NOWHERE, Filed, Shelf, Shelves
from rag_cache.values import decode
from rag_cache.within import Within

if TYPE_CHECKING:
    from rag_cache.metrics import MissReason

NEWS_MOST = 32
"""New entries told by one reply: about 64 KiB of vectors."""

NEWS_WARMING = 512
"""The same while a process gets to know a scope."""

SLOW_EMBEDDING_S = 0.001
"""An embedding that takes longer than this is worth a call of the server, of 0.2 ms."""

NEWS_S = 1.0
"""After how long a partition is asked for news that has no part in a lookup."""

CANDIDATES_MOST = 3
"""Entries that the server may choose from: it serves the first one that is right."""

ROUNDS_MOST = 4
"""How often one lookup asks again: for what is new, and for what is next best."""

FIRST_PAUSE_S = 0.001
"""Pause between two looks whether a partition's first standing has come."""


class _Served(NamedTuple):
    """What the server served: which entry, and what it holds."""

    entry_id: str
    record: bytes
    card: bytes


class Reach(NamedTuple):
    """Where a finder looks, and how far.

    Attributes:
        prefix: What all keys begin with.
        spread: Over how many partitions a corpus is spread.
        neighbours: How many of the nearest entries guards see.
    """

    prefix: str
    spread: int
    neighbours: int


class Finder:
    """Looks answers up.

    Args:
        reach: Where it looks, and how far.
        link: To the cache cluster, with the deadline of a lookup on each request.
        standings: Which primaries may be served from.
        shelves: What this process has at hand.
        judge: Decides which entries may answer.
        index: The server's own index.
        embedder: Whose embeddings are compared.
    """

    def __init__(
        self,
        reach: Reach,
        link: SearchLink,
        standings: Standings,
        shelves: Shelves,
        judge: Judge,
        index: ServerIndex,
        embedder: Embedder,
    ) -> None:
        self._prefix, self._spread, self._neighbours = reach
        self._link = link
        self._standings = standings
        self._shelves = shelves
        self._judge = judge
        self._index = index
        self._embedder = embedder

    async def find(self, asking: Asking) -> Hit | Miss:
        """Look it up.

        Raises:
            Bypass: Nothing can be served now.
            LanggraphValkeyError: The server could not be asked.
        """
        shelf = self._shelf(asking.within)
        # Nothing has to be embedded where the very question is there. To ask for it alone
        # pays if it is likely, or if embedding takes longer than asking.
        is_slow = self._embedder.took_s > SLOW_EMBEDDING_S
        if is_slow or shelf is None or asking.entry_id in shelf or not self._is_whole(shelf):
            hit = await self._serve(asking, shelf, {asking.entry_id: 1.0})
            if hit is not None:
                return hit
        await self._embed(asking)
        shelf = self._shelf(asking.within)
        assert shelf is not None
        hit = await self._by_meaning(asking, shelf)
        return hit if hit is not None else self._miss(asking)

    def _shelf(self, within: Within) -> Shelf | None:
        dimension = self._embedder.dimension
        return None if dimension is None else self._shelves.of(within.key, dimension)

    def _is_whole(self, shelf: Shelf) -> bool:
        return shelf.is_whole(range(self._spread))

    async def _embed(self, asking: Asking) -> None:
        """Embed the question. It takes what it takes: the deadline is put off by that."""
        if asking.vector is None:
            started_s = self._link.now()
            try:
                asking.vector = await asking.embed(asking.question)
            except Exception as failure:
                raise Bypass("embedder_failed") from failure
            asking.until_s += self._link.now() - started_s

    def _has_time(self, asking: Asking) -> bool:
        return self._link.now() < asking.until_s

    # --- by meaning ----------------------------------------------------------------------

    async def _by_meaning(self, asking: Asking, shelf: Shelf) -> Hit | None:
        """Ask for the entries that fit, found by whoever knows the whole scope.

        Part of a scope is not enough: the best entry may be missing, and guards that look
        at neighbours would see the wrong ones.
        """
        if not self._is_whole(shelf) and not self._index.is_ready:
            while not self._is_whole(shelf):
                if not self._has_time(asking):
                    raise Bypass("warming")
                await self._serve(asking, shelf, {})
        if self._is_whole(shelf):
            return await self._by_shelf(asking, shelf)
        return await self._by_index(asking, shelf)

    async def _by_shelf(self, asking: Asking, shelf: Shelf) -> Hit | None:
        """By this process' matrix; again for what the replies tell of new entries."""
        assert asking.vector is not None
        for _ in range(ROUNDS_MOST):
            found = shelf.search(asking.vector, self._neighbours)
            asking.judged = self._judge.judge(asking.question, found, asking.documents)
            wanted = self._wanted(asking)
            if asking.fence is None:  # The server was not asked for the very question yet.
                wanted = {asking.entry_id: 1.0, **wanted}
            if not wanted:
                return None
            if not self._has_time(asking):
                if asking.fence is None:  # Nobody has asked for the very question.
                    raise NotSent("the time was over before the server was asked")
                return None
            hit = await self._serve(asking, shelf, wanted, "process")
            if hit is not None:
                return hit
        return None

    async def _by_index(self, asking: Asking, shelf: Shelf) -> Hit | None:
        """By the server's index."""
        assert asking.vector is not None
        key = asking.within.key
        nearest = await self._index.search(self._link, key, asking.vector, self._neighbours)
        if nearest is None or not self._has_time(asking):
            raise Bypass("warming")
        found = await self._cards(asking, nearest)
        asking.judged = self._judge.judge(asking.question, found, asking.documents)
        for _ in range(ROUNDS_MOST):
            wanted = self._wanted(asking)
            if not wanted or not self._has_time(asking):
                return None
            hit = await self._serve(asking, shelf, wanted, "server")
            if hit is not None:
                return hit
        return None

    def _wanted(self, asking: Asking) -> dict[str, float]:
        """The best entries that the server has not refused yet, and their cosines."""
        left = {
            filed.entry_id: score
            for score, filed in asking.judged.admitted
            if filed.entry_id not in asking.verdicts
        }
        return dict(list(left.items())[:CANDIDATES_MOST])

    async def _cards(
        self, asking: Asking, nearest: Sequence[tuple[str, float]]
    ) -> list[tuple[float, Filed]]:
        """The cards of entries that the index named, the best first."""
        by_number: dict[int, list[str]] = {}
        for entry_id, _ in nearest:
            by_number.setdefault(self._number(entry_id), []).append(entry_id)
        key = asking.within.key
        replies = await self._link.send(
            [
                calls.cards(self._partition(asking, number), key, ids)
                for number, ids in by_number.items()
            ]
        )
        cards: dict[str, Card] = {}
        for ids, reply in zip(by_number.values(), replies, strict=True):
            cards.update(_readable(key, ids, reply))
        return [(score, Filed(name, cards[name])) for name, score in nearest if name in cards]

    # --- asking the server ---------------------------------------------------------------

    def _number(self, entry_id: str) -> int:
        return int(entry_id[:8], 16) % self._spread

    def _partition(self, asking: Asking, number: int) -> Partition:
        scope = asking.within.scope
        return partition_of(self._prefix, scope.corpus, scope.tenant, number)

    async def _serve(
        self,
        asking: Asking,
        shelf: Shelf | None,
        wanted: Mapping[str, float],
        tier: HitTier = "exact",
    ) -> Hit | None:
        """Have the server serve the best of these entries that it may."""
        by_number: dict[int, list[str]] = {asking.home.name.number: []}
        for entry_id in wanted:
            by_number.setdefault(self._number(entry_id), []).append(entry_id)
        if shelf is not None:
            for number in range(self._spread):
                if self._wants_news(shelf, number):
                    by_number.setdefault(number, [])
        served = await self._exchange(asking, shelf, by_number)
        for entry_id, score in wanted.items():
            if entry_id in served:
                exact = entry_id == asking.entry_id
                hit = await self._hit(
                    asking, served[entry_id], "exact" if exact else tier, 1.0 if exact else score
                )
                if hit is not None:
                    return hit
                if shelf is not None and asking.verdicts[entry_id] == "corrupt":
                    shelf.drop(entry_id)
        return None

    def _wants_news(self, shelf: Shelf, number: int) -> bool:
        """Whether to ask a partition that has no other part in this."""
        if not self._index.is_ready and not shelf.is_whole((number,)):
            return True
        return shelf.wants_news(number, self._link.now(), NEWS_S)

    def _news_most(self, shelf: Shelf, number: int) -> int:
        """How many new entries to be told of."""
        if shelf.is_whole((number,)):
            return NEWS_MOST
        if not self._index.is_ready:
            return NEWS_WARMING
        return NEWS_MOST if self._shelves.has_room(shelf) else 0

    async def _exchange(
        self, asking: Asking, shelf: Shelf | None, by_number: Mapping[int, list[str]]
    ) -> dict[str, _Served]:
        """Send the calls, one a partition, and take in what the replies tell."""
        requests, identities, mosts = [], [], []
        for number, ids in by_number.items():
            partition = self._partition(asking, number)
            identities.append(await self._standing(partition, asking))
            known, most = NOWHERE, 0
            if shelf is not None:
                known, most = shelf.known(number), self._news_most(shelf, number)
            mosts.append(most)
            within = asking.within
            requests.append(calls.serve(partition, within.key, within.marks, ids, known, most))
        replies = await self._link.send(requests)
        asking.was_answered = True
        served: dict[str, _Served] = {}
        for (number, ids), identity, most, reply in zip(
            by_number.items(), identities, mosts, replies, strict=True
        ):
            self._check(asking, number, identity, reply)
            _, _, nonce, counter, which, record, card, _, verdicts, news = reply
            if number == asking.home.name.number and asking.fence is None:
                asking.fence = Fence(asking.entry_id, nonce + counter.zfill(16))
            for entry_id, verdict in zip(ids, verdicts.decode(), strict=False):
                asking.verdicts[entry_id] = verdict
                if shelf is not None and verdict != "k":
                    shelf.drop(entry_id)
            if which:
                served[ids[which - 1]] = _Served(ids[which - 1], record, card)
            if shelf is not None and shelf.learn(number, nonce, news, most, self._link.now()):
                self._shelves.make_room()
        return served

    def _check(self, asking: Asking, number: int, identity: str, reply: Sequence[Any]) -> None:
        """Refuse what did not come from the verified primary, or comes too late."""
        name = self._partition(asking, number).name
        if reply[0] != b"ok" or reply[1].decode() != identity:
            self._standings.doubt(name)
            raise Bypass("unverified")
        # The answer may have been long on its way, and another primary serve by now.
        if self._standings.identity(name, self._link.now()) != identity:
            raise Bypass(self._standings.why(name))

    async def _standing(self, partition: Partition, asking: Asking) -> str:
        """The primary that may be served from; waits for the first word of a new partition."""
        while True:
            now_s = self._link.now()
            identity = self._standings.identity(partition.name, now_s)
            if identity is not None:
                return identity
            if now_s >= asking.until_s or not self._standings.is_new(partition.name, now_s):
                raise Bypass(self._standings.why(partition.name))
            await self._link.sleep(FIRST_PAUSE_S)

    # --- what is made of it --------------------------------------------------------------

    async def _hit(
        self, asking: Asking, served: _Served, tier: HitTier, score: float
    ) -> Hit | None:
        """The hit, if it can be read and the verifier has nothing against it."""
        try:
            card, record = Card.unpack(served.card), Record.unpack(served.record)
            value = decode(record.value)
        except ValueError:
            asking.verdicts[served.entry_id] = "corrupt"
            return None
        if record.tenant != asking.within.scope.tenant:
            asking.verdicts[served.entry_id] = "o"
            return None
        if tier != "exact" and asking.verify is not None:
            started_s = self._link.now()
            why = await asking.verify(asking.question, card.question, value)
            asking.until_s += self._link.now() - started_s
            if why is not None:
                asking.refusals.append(Refusal("verifier", why, card.question, score))
                asking.verdicts[served.entry_id] = "refused"
                return None
        age_s = max(0.0, time.time() - record.stored_s)
        return Hit(
            *(value, card.question, score, tier, served.entry_id, age_s),
            evidence=record.evidence,
            saved_s=record.took_s,
            usage=record.usage,
        )

    def _miss(self, asking: Asking) -> Miss:
        refusals = (*asking.judged.refusals, *asking.refusals)
        verdicts = set(asking.verdicts.values())
        reason: MissReason = "absent"
        if "corrupt" in verdicts:
            reason = "corrupt"
        elif "s" in verdicts:
            reason = "stale"
        elif refusals:
            reason = "refused"
        elif asking.judged.nearest:
            reason = "below_threshold"
        return Miss(reason, asking.given_fence(), refusals)


def _readable(scope: str, ids: Sequence[str], reply: Sequence[bytes]) -> dict[str, Card]:
    """Cards of a reply that are of a scope and can be read, by the ids of their entries."""
    found = {}
    for entry_id, told, card in zip(ids, reply[::2], reply[1::2], strict=True):
        if told == scope.encode():
            with suppress(Corrupt):
                found[entry_id] = Card.unpack(card)
    return found
