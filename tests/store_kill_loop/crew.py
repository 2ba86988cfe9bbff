"""Writers of items in a process of their own; see `tests.kill_loop.crew`, which starts it."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from langgraph.store.base import GetOp, Op, PutOp

from langgraph_valkey import Hooks, RecoveryReport, Settings, ValkeyStore
from langgraph_valkey.errors import OutcomeUnknown, Unreachable, WriteRejected
from tests.kill_loop.crew import CHECKED_S, Order, Tally, Told, told_of, unended
from tests.kill_loop.search import PATIENCE_S, Findings
from tests.kill_loop.watch import Promotion
from tests.store_kill_loop.history import Change, History

Name: TypeAlias = tuple[tuple[str, ...], str]

PAUSE_S = 0.3
"""The longest pause of a writer between two batches; two cores have to serve all."""

READ_PAUSE_S = 0.1
BATCH_MOST = 5
KEYS = 24
"""Of each namespace; so few that each is written again and again, and by several."""

ONCE = 0.15
"""The share of changes to items of their own, which nothing covers up if they are lost."""

TTL_S = (4.0, 12.0)
"""The shortest and the longest; both are reached within a run."""

ALL = 10**6
READ_MOST = 200
"""Items that a check asks for at once."""


def places_of(crew: int) -> list[tuple[str, ...]]:
    """Namespaces of a crew, in different buckets, and some of them beneath others."""
    root = f"crew {crew}"
    users = [(root, user) for user in ("ada", "bob", "x:{y}*", "[z]\n")]
    return [(root,), *users, *((*user, "notes") for user in users), (root, "ada", "notes", "deep")]


class Aboard:
    """A crew, from within; see the class of this name in `tests.kill_loop.crew`."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._lock = threading.Lock()
        self._histories: dict[Name, History] = {}
        self._values = 0
        self._acked = self._stale_reads = 0
        self._unavailable: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._known_wrong = Findings()
        # Without replay nobody brings it.
        self._patience_s = PATIENCE_S if order.reader.get("replay", True) else 0.0
        self._reports: dict[str, list[tuple[float, RecoveryReport]]] = {}
        self._stores = [self._store(**each) for each in order.settings]
        self._reader = self._store(**order.reader)
        self._direct = self._store(replay=False)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def _store(self, **settings: Any) -> ValkeyStore:
        at = Settings.from_url(self._order.url, **settings)
        return ValkeyStore(at, hooks=Hooks(on_rewind=self._told))

    def _told(self, report: RecoveryReport) -> None:
        self._reports.setdefault(report.shard, []).append((time.monotonic(), report))

    # --- writing and reading ---------------------------------------------------------

    def start(self) -> None:
        """Begin to write, and to read as another process would."""
        tasks = []
        for index in range(self._order.writers):
            chance = random.Random(f"{self._order.seed} {self._order.number} {index}")
            store = self._stores[index % len(self._stores)]
            if index % 2:
                tasks.append((store, chance))
            else:
                self._thread(self._write, store, chance)
        self._thread(self._write_awaiting, tasks)
        self._thread(self._read, random.Random(f"{self._order.seed} {self._order.number}"))

    def _thread(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _write(self, store: ValkeyStore, chance: random.Random) -> None:
        while not self._stop.wait(chance.uniform(0, PAUSE_S)):
            ops, changes = self._drawn(chance)
            try:
                store.batch(ops)
            except Exception as error:
                self._failed("writer", error)
            else:
                self._done(changes)

    def _write_awaiting(self, writers: Sequence[tuple[ValkeyStore, random.Random]]) -> None:
        async def write(store: ValkeyStore, chance: random.Random) -> None:
            while not self._stop.is_set():
                await asyncio.sleep(chance.uniform(0, PAUSE_S))
                ops, changes = self._drawn(chance)
                try:
                    await store.abatch(ops)
                except Exception as error:
                    self._failed("awaiting writer", error)
                else:
                    self._done(changes)

        async def together() -> None:
            await asyncio.gather(*(write(*each) for each in writers))

        asyncio.run(together())

    def _drawn(self, chance: random.Random) -> tuple[list[Op], list[tuple[History, Change]]]:
        """A batch of changes to different items, noted as begun; and some reads."""
        places = places_of(self._order.number)
        names = {
            (chance.choice(places), self._key(chance)) for _ in range(chance.randint(1, BATCH_MOST))
        }
        ops: list[Op] = [GetOp(chance.choice(places), "key 0", refresh_ttl=False)]
        changes: list[tuple[History, Change]] = []
        for name in sorted(names):
            kind = chance.choices(["put", "brief", "delete"], [6, 2, 3])[0]
            ttl_s = chance.uniform(*TTL_S) if kind == "brief" else None
            with self._lock:
                self._values += 1
                value = None if kind == "delete" else self._values
                history = self._histories.setdefault(name, History())
                change = Change(value, time.monotonic(), ttl_s)
                history.begin(change)
            stored = None if value is None else {"n": value, "text": "word " * (value % 40)}
            ops.append(PutOp(*name, stored, ttl=None if ttl_s is None else ttl_s / 60))
            changes.append((history, change))
        return ops, changes

    def _key(self, chance: random.Random) -> str:
        if chance.random() >= ONCE:
            return f"key {chance.randrange(KEYS)}"
        return f"once {chance.randrange(10**9)}"

    def _done(self, changes: Iterable[tuple[History, Change]]) -> None:
        now_s = time.monotonic()
        with self._lock:
            for history, change in changes:
                history.end(change, now_s)
                self._acked += 1

    def _failed(self, who: str, error: Exception) -> None:
        honest = isinstance(error, Unreachable | WriteRejected | OutcomeUnknown)
        with self._lock:
            counter = self._unavailable if honest else self._errors
            counter[f"{who}: {type(error).__name__}: {error}"[:300]] += 1

    def _read(self, chance: random.Random) -> None:
        """Read all the time; what is not the newest is counted: another one wrote it."""
        while not self._stop.wait(READ_PAUSE_S):
            with self._lock:
                names = list(self._histories)
            try:
                some = chance.sample(names, min(len(names), BATCH_MOST))
                self._stale_reads += len(self._look(self._reader, some))
                place = chance.choice(places_of(self._order.number))
                self._reader.search(place, limit=20, refresh_ttl=False)
            except Exception as error:
                self._failed("reader", error)

    # --- looking -----------------------------------------------------------------------

    def _look(self, store: ValkeyStore, names: Sequence[Name]) -> list[tuple[Name, str, str]]:
        """Which of these items are not as they must be: what is wrong, and what was read."""
        wrong: list[tuple[Name, str, str]] = []
        for at in range(0, len(names), READ_MOST):
            some = names[at : at + READ_MOST]
            began_s = time.monotonic()
            found: list[Any] = store.batch([GetOp(*name, refresh_ttl=False) for name in some])
            ended_s = time.monotonic()
            for name, item in zip(some, found, strict=True):
                seen = None if item is None else item.value["n"]
                with self._lock:
                    history = self._histories[name]
                    what = history.wrong(seen, began_s, ended_s)
                    told = history.changes[-6:] if what else ()
                if what:
                    wrong.append((name, what, f"{name}: {seen} at {began_s:.3f}, {told}"))
        return wrong

    def _found(self, store: ValkeyStore, names: Sequence[Name]) -> Findings:
        """The same for a while: a primary that thaws may acknowledge after the replay."""
        found = Findings(looked_at=len(names))
        until_s = time.monotonic() + self._patience_s
        suspects = self._look(store, names)
        while suspects and time.monotonic() < until_s:
            time.sleep(0.1)
            suspects = self._look(store, [name for name, _, _ in suspects])
        for _, what, words in suspects:
            getattr(found, what).add(words)
        return found

    def _new(self, found: Findings) -> Findings:
        """What was not told before."""
        known = self._known_wrong
        new = Findings(
            found.missing - known.missing,
            found.resurrected - known.resurrected,
            outlived=found.outlived - known.outlived,
            looked_at=found.looked_at,
        )
        known.add(found)
        return new

    # --- what it can be asked ---------------------------------------------------------

    def ready(self) -> bool:
        """Whether each writer has written."""
        return self._acked > 4 * self._order.writers

    def told(self, promotion: Promotion) -> Told:
        """What its stores told of a failover."""
        waiting = sum(not _is_past(store, promotion.former) for store in self._stores)
        return told_of(self._reports.get(promotion.identity, []), waiting)

    def check(self) -> Findings:
        """Look for what was written lately; what is wrong is told once."""
        since_s = time.monotonic() - CHECKED_S
        with self._lock:
            names = [n for n, each in self._histories.items() if each.touched_s >= since_s]
        found = self._new(self._found(self._direct, names))
        with self._lock:
            for name in names:
                self._histories[name].forget(since_s)
        return found

    def stop(self) -> Tally:
        """End writing; what came of it."""
        self._stop.set()
        late = unended(self._threads)
        if late:
            self._errors["writers that did not end"] += late
        return Tally(
            acked=self._acked,
            threads=len(self._histories),
            stale_reads=self._stale_reads,
            unavailable=dict(self._unavailable),
            errors=dict(self._errors),
        )

    def check_all(self) -> Findings:
        """Look for everything, with a fresh store, when those that wrote are closed."""
        for store in (*self._stores, self._reader):
            store.close()
        fresh = self._store(replay=False)
        try:
            found = self._new(self._found(fresh, list(self._histories)))
            found.add(self._listed(fresh))
            return found
        finally:
            fresh.close()
            self._direct.close()

    def _listed(self, store: ValkeyStore) -> Findings:
        """Whether searches and the list of namespaces tell the same as gets."""
        found = Findings()
        began_s = time.monotonic()
        root = (f"crew {self._order.number}",)
        found_there = store.search(root, limit=ALL, refresh_ttl=False)
        ended_s = time.monotonic()
        hits = {(hit.namespace, hit.key): hit.value["n"] for hit in found_there}
        for name, history in self._histories.items():
            what = history.wrong(hits.get(name), began_s, ended_s)
            if what:
                getattr(found, what).add(f"{name} by a search: {hits.get(name)}")
        listed = set(store.list_namespaces(prefix=root, limit=ALL))
        after = {hit.namespace for hit in store.search(root, limit=ALL, refresh_ttl=False)}
        for place in {namespace for namespace, _ in hits} & after - listed:
            found.missing.add(f"namespace {place}")
        for place in listed - {namespace for namespace, _ in hits}:
            found.resurrected.add(f"namespace {place}")
        return found


def _is_past(store: ValkeyStore, former: str) -> bool:
    """Whether it has replayed all that a primary which was replaced may have lost."""
    if former in {shard.identity for shard in store.health().shards}:
        return False
    return not store._window.is_recovering and not store._window.behind()
