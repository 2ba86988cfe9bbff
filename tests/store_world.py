"""Random stories of a store whose server loses writes, and a judge who knows what was told.

A few processes put, delete, read and search a few items; the server's log lags, fails over
without its newest writes, refuses, answers late, and lets a replaced primary go on for a
while. Time is virtual, and a seed gives the same story each time.

The judge notes what every process was told: an acknowledged operation with the stamp that the
server gave it. Whoever reads an item must get the acknowledged operation with the highest
stamp, or one that nobody was told of and that came later. Processes that died are excused for
what was not durable yet; whoever has read it is not.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

from langgraph.store.base import GetOp, Item, PutOp, SearchItem, SearchOp

from langgraph_valkey import (
    Hooks,
    OutcomeUnknown,
    RecoveryReport,
    Unreachable,
    WriteRejected,
    operations,
)
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.items import names
from langgraph_valkey.link import Call, Reply, Script, finish
from langgraph_valkey.loss_window.tending import tend
from langgraph_valkey.operations import Status
from langgraph_valkey.testing import memory_store
from langgraph_valkey.testing.memory_link import START_S as SERVER_START_S
from tests.loss_world import LAG_BOUND_S, SHORT_S, Cluster
from tests.store_truth import NAME, Broken, Told, Truth

NAMESPACES = (("a",), ("a", "b"), ("c",))
KEYS = ("k", "l")
ITEMS = [(namespace, key) for namespace in NAMESPACES for key in KEYS]
TTL_MIN = 0.5
FORMER_S = 0.8
START_S = 3.0
"""How long a process takes to start."""
WORK = {
    "put": 14, "delete": 5, "get": 8, "search": 4, "batch": 4, "advance": 6, "persist": 4,
    "tend": 6, "late": 2, "crash": 2, "die": 1,
}  # fmt: skip
"""What happens, and how often."""


class Process:
    """A store whose calls the world delivers.

    Attributes:
        astray: How many of its next calls reach the primary that was replaced; of those to a
            bucket of which it knows another one.
        heard: Which primary it has heard of at each bucket.
        acks: Of the current operation: what became of each item, as last answered.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.astray = 0
        self.heard: dict[bytes, bytes] = {}
        self.acks: dict[bytes, tuple[int, int, int, bool, bytes]] = {}
        self.reports: list[RecoveryReport] = []
        hooks = Hooks(on_rewind=self.reports.append)
        self.store = memory_store(
            self, durability="async", lag_bound_s=LAG_BOUND_S, hooks=hooks, store_buckets=2
        )
        self.store._serving._keeper._writer._name = name.encode().rjust(8, b"-")

    async def send(self, asked: Sequence[Call]) -> list[Reply]:
        replies, failures = [], []
        for call in asked:
            try:
                replies.append(self.world.deliver(self, call))
            except LanggraphValkeyError as failure:
                failures.append(failure)
        if failures:
            raise failures[0]
        return replies

    async def scan(self, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
        return await self.world.primary.scan(cursor, pattern)

    async def sleep(self, delay_s: float) -> None:
        self.world.wait(delay_s)

    def now(self) -> float:
        return self.world.primary.now()

    def tend(self) -> None:
        """One round of its monitor."""
        finish(tend(self.store._window, self))


class World:
    """A server, processes, and the truth about what they were told.

    Args:
        seed: From which everything is drawn.
        expires: Whether some items do.
        patch: What becomes of a script before it is sent.
        weights: What happens how often, where it differs from `WORK`.
    """

    def __init__(
        self,
        seed: int,
        *,
        expires: bool = False,
        patch: Callable[[Script], Script] = lambda script: script,
        **weights: int,
    ) -> None:
        self.random = random.Random(seed)
        self.expires = expires
        self.patch = patch
        self.weights = WORK | weights
        self.truth = Truth()
        self.primary = Cluster(seed=seed)
        self.former: Cluster | None = None
        self.former_until_s = 0.0
        self.processes = [Process(self, f"p{n}") for n in range(2 + seed % 2)]
        self.count = 0
        self.log: list[str] = []
        self._names = len(self.processes)
        self._waiting = False
        for process in self.processes:
            self.look(process)  # Who never heard of a primary can't know that it is another.

    # --- calls ----------------------------------------------------------------------

    def deliver(self, process: Process, call: Call) -> Reply:
        """Bring a call to a server, and its reply back."""
        call = replace(call, script=self.patch(call.script))
        server = self.primary
        place = call.keys[0]
        knows_better = process.heard.get(place) == self.primary.identity
        knows_better = knows_better and call.script.name != "chunks"  # See `_ask_the_others`.
        if self.former is not None and process.astray > 0 and knows_better:
            if self.primary.now() > self.former_until_s:
                self.former, process.astray = None, 0
            elif self.random.random() < 0.6:
                process.astray -= 1
                server = self.former
        reply = server._send(call)
        if server is self.primary:
            process.heard[place] = self.primary.identity
        if call.script.name == "turn" and operations.read(reply).status is Status.OK:
            for change, outcome in zip(call.args[2:], reply[5], strict=True):
                name = change[109 : 109 + int(change[103:109])]
                known = outcome if outcome[1:] else bytes(1) + b"0" * 64
                stamps = int(known[1:17]), int(known[33:49]), int(known[49:65])
                is_astray = server is not self.primary
                process.acks[name] = (*stamps, is_astray, call.args[0][:16])
        return reply

    # --- what happens ---------------------------------------------------------------

    def wall_s(self) -> float:
        """The processes' clock, which does not jump."""
        return SERVER_START_S + self.primary.now()

    def advance(self, delay_s: float) -> None:
        """Time passes."""
        self.primary.advance(delay_s)
        if self.former is not None:
            self.former.advance(delay_s)

    def wait(self, delay_s: float) -> None:
        """Time passes, and the processes' monitors look after them, as threads of their own."""
        if self._waiting or delay_s < SHORT_S:
            self.advance(delay_s)
            return
        self._waiting = True
        for _ in range(4):
            self.advance(delay_s / 4)
            for process in self.processes:
                process.tend()
        self._waiting = False

    def crash(self) -> None:
        """A failover. The old primary may go on for a while, without knowing."""
        lost = self.random.randint(0, len(self.primary.open))
        # One that nobody has heard of would pass for a new one.
        told = {identity for process in self.processes for identity in process.heard.values()}
        thaws = told == {self.primary.identity} and self.random.random() < 0.4
        self.former = self.primary.twin() if thaws else None
        self.former_until_s = self.primary.now() + FORMER_S
        self.primary.crash(lost, self.random.choice((0.0, 0.0, 0.5)))
        for process in self.processes:
            process.astray = self.random.choice((0, 1, 2, 4)) if thaws else 0

    def die(self, process: Process) -> None:
        """A process ends as if killed; another one takes its place."""
        self.processes.remove(process)
        held = process.store._window._journal.threads.values()
        not_durable = {number for of_bucket in held for number in of_bucket.entries}
        for acked in self.truth.acked.values():
            for told in acked:
                if told.by == process.name and told.number and told.number not in not_durable:
                    told.is_durable = True
                if process.name in told.known_to:
                    told.known_to.remove(process.name)
                    told.excused = not told.is_durable and not told.known_to
        self.wait(START_S)  # A new one can't know that there was another primary just now.
        self.processes.append(Process(self, f"p{self._names}"))
        self.look(self.processes[-1])
        self._names += 1

    # --- what processes do ------------------------------------------------------------

    def change(self, process: Process, puts: Sequence[PutOp], reads: Sequence[Any] = ()) -> None:
        """Put and delete items; note what it was told. What is read was there before."""
        process.acks = {}
        before = [self.truth.best((get.namespace, get.key)) for get in reads]
        try:
            found = process.store.batch([*reads, *puts])
        except (WriteRejected, Unreachable) as failure:
            self.log.append(f"  {type(failure).__name__}")
            self._doubt(process, puts)  # Others of its buckets may have been applied.
            return
        except OutcomeUnknown:
            self.log.append("  OutcomeUnknown")
            self._doubt(process, puts)
            return
        for get, item, best in zip(reads, found, before, strict=False):
            name = get.namespace, get.key
            self.truth.judge(name, item, self.primary.clock_ms, process.name)  # type: ignore
            assert best is self.truth.best(name)
            self._seen(process, name, item)
        for put in puts:
            name = put.namespace, put.key
            stamp, created, ends_ms, is_astray, number = process.acks[
                names.item_name(names.pack_namespace(put.namespace), put.key.encode())
            ]
            value = put.value
            if not stamp:  # It was overtaken by what another process was told.
                self._doubt(process, [put])
                continue
            told = Told(stamp, value, number, process.name, ends_ms, is_astray, created)
            told.order = self.count
            told.known_to.add(process.name)
            self.truth.acked.setdefault(name, []).append(told)

    def _doubt(self, process: Process, puts: Sequence[PutOp]) -> None:
        for put in puts:
            sent_ms = round(self.wall_s() * 1000)
            told = Told(0, put.value, b"", process.name, sent_ms if put.ttl else 0)
            told.order = self.count
            self.truth.doubted.setdefault((put.namespace, put.key), []).append(told)

    def _seen(self, process: Process, name: NAME, item: Any) -> None:
        """What somebody has seen must not go any more, also if nobody was told of it before."""
        if not isinstance(item, Item):
            return
        stamp, created = (round(at.timestamp() * 1e6) for at in (item.updated_at, item.created_at))
        acked = self.truth.acked.setdefault(name, [])
        found = [told for told in acked if told.stamp == stamp]
        if not found:
            [sent] = [t for t in self.truth.doubted[name] if t.value == item.value]
            last_ms = max(stamp // 1000, sent.ends_ms) + round(TTL_MIN * 60_000)
            ends_ms = sent.ends_ms and last_ms
            told = replace(sent, stamp=stamp, ends_ms=ends_ms, created=created, known_to=set())
            told.is_vague = bool(ends_ms)
            found = [told]
            acked += found
        for told in found:
            told.excused = False
            told.known_to.add(process.name)

    def look(self, process: Process) -> None:
        """Read all items, by each way to read them."""
        gets = [GetOp(*name, refresh_ttl=False) for name in ITEMS]
        search = SearchOp((), limit=99, refresh_ttl=False)
        found = process.store.batch([search, *gets])
        hits: list[SearchItem] = found[0]  # type: ignore[assignment]
        by_name = {(hit.namespace, hit.key): hit for hit in hits}
        for name, item in zip(ITEMS, found[1:], strict=True):
            clock_ms = self.primary.clock_ms
            for each in (item, by_name.get(name)):
                self.truth.judge(name, each, clock_ms, process.name)  # type: ignore[arg-type]
                self._seen(process, name, each)

    # --- a story ----------------------------------------------------------------------

    def step(self) -> None:
        """One thing happens."""
        what = self.random.choices(list(self.weights), list(self.weights.values()))[0]
        process = self.random.choice(self.processes)
        self.log.append(f"{self.primary.now():.3f} {process.name} {what}")
        if what in ("put", "delete", "batch"):
            self._write(process, what)
        elif what in ("get", "search"):
            self.look(process)
        elif what == "advance":
            self.wait(self.random.choice((0.2, 1.0, 4.0, 12.0)))
        elif what == "persist":
            self.primary.persist(self.random.randint(1, 6))
        elif what == "late":
            with suppress(WriteRejected):
                self.primary.land_late()
        elif what == "tend":
            process.tend()
        elif what == "crash":
            self.crash()
        else:
            self.die(process)

    def _write(self, process: Process, what: str) -> None:
        chance = self.random
        self.count += 1
        many = chance.randint(2, 4) if what == "batch" else 1
        puts = []
        for name in chance.sample(ITEMS, many):
            is_put = what == "put" or (what == "batch" and chance.random() < 0.7)
            ttl = TTL_MIN if is_put and self.expires and chance.random() < 0.5 else None
            puts.append(PutOp(*name, {"n": self.count} if is_put else None, ttl=ttl))
        others = [name for name in ITEMS if name not in [(p.namespace, p.key) for p in puts]]
        reads = [GetOp(*name, refresh_ttl=False) for name in others[: many - 1]]
        if chance.random() < 0.12:
            failure, applied = chance.choice(
                [(OutcomeUnknown, True), (OutcomeUnknown, False), (OutcomeUnknown, "later"),
                 (WriteRejected, False), (Unreachable, False)]
            )  # fmt: skip
            self.primary.fail_next(failure, applied=applied, script="turn")  # type: ignore
        self.log.append(f"  {[(p.namespace, p.key, p.value, p.ttl) for p in puts]}")
        self.change(process, puts, reads)
        self.primary._faults.clear()

    def tell(self, steps: int) -> None:
        """The story, and what holds at its end.

        Raises:
            Broken: Something that was promised does not hold.
        """
        logging.disable(logging.WARNING)
        clock = mock.patch(
            "langgraph_valkey.loss_window.entries.time", SimpleNamespace(time=self.wall_s)
        )
        clock.start()
        try:
            for _ in range(steps):
                self.step()
            self.log.append("the end")
            for _ in range(3):
                self.primary.persist(99)
                self.former = None
                self.wait(3.0)
            alive = {process.name for process in self.processes}
            for acked in self.truth.acked.values():
                for told in acked:
                    told.excused = told.excused and not told.known_to & alive
            for process in self.processes:
                self.look(process)
            listed = {tuple(process.store.list_namespaces()) for process in self.processes}
            hits = self.processes[0].store.search((), limit=99, refresh_ttl=False)
            there = {hit.namespace for hit in hits}
            self._require_listed(listed, there)
        except Exception as failure:
            failure.add_note("\n".join(self.log[-60:]))
            raise
        finally:
            clock.stop()
            logging.disable(logging.NOTSET)

    def _require_listed(self, listed: set[Any], there: set[Any]) -> None:
        if listed != {tuple(sorted(there))}:
            raise Broken(f"{listed} is listed, and {there} is there")
