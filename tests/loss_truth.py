"""What was told to whom, and what must therefore be there, or gone, after replay.

The truth is noted beside the saver, from the calls and their answers alone. A *fact*
is one write as the server took it. A process *holds* a fact if it was acknowledged to
it, or read by it. What each living process holds must be there in the end, unless it
was deleted, removed or has expired; what a living process deleted must be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from langgraph_valkey import operations
from langgraph_valkey.link import Call, Reply
from langgraph_valkey.operations import Status, taken_apart
from langgraph_valkey.stored import records

At = tuple[str, bytes, bytes]
"""Thread, namespace as it is stored, id."""


class Broken(AssertionError):
    """A promise is broken.

    Attributes:
        check: Which, in a word or two.
    """

    def __init__(self, check: str, detail: object) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check


def require(held: bool, check: str, detail: object) -> None:
    if not held:
        raise Broken(check, detail)


class Server(Protocol):
    """What the truth looks at."""

    def state(self, thread: str) -> dict[bytes, bytes]: ...

    def deadline_ms(self, thread: str) -> int: ...

    @property
    def clock_ms(self) -> int: ...


@dataclass
class Fact:
    """One write, as the server took it.

    Attributes:
        number: Writer and sequence number.
        kind: ``put`` or ``put_writes``.
        at: Of which checkpoint.
        stamp: The server's.
        gens: The creations of its thread that it was seen under, by anyone.
        held: By whom, and under which of those.
        expired: For whom it has expired: in the end it need not be there for those.
        told: The stamp at which it was last acknowledged or read: it is journaled by that.
        is_over: It has expired by all deadlines there were: it must not come back.
    """

    number: bytes
    kind: str
    at: At
    stamp: int
    gens: set[int] = field(default_factory=set)
    held: dict[str, set[int]] = field(default_factory=dict)
    expired: set[str] = field(default_factory=set)
    told: int = 0
    is_over: bool = False

    @property
    def field(self) -> bytes:
        """The field of the state that has it."""
        _, ns, checkpoint_id = self.at
        return b"w" + self.number if self.kind == "put_writes" else b"r%b\0%b" % (ns, checkpoint_id)

    def is_in(self, state: dict[bytes, bytes]) -> bool:
        """Whether it, or a later one of its writer, is there."""
        found = state.get(self.field)
        if found is None or self.kind == "put_writes":
            return found is not None
        entry = records.entry_of(found)
        return entry[:8] != self.number[:8] or entry >= self.number


@dataclass
class Gone:
    """A deletion, of a thread or (with `at`) of a checkpoint."""

    stamp: int
    by: str | None
    at: At | None = None


class Truth:
    """All of it."""

    def __init__(self, ttl_s: float | None) -> None:
        self.ttl_ms = round((ttl_s or 0) * 1000)
        self.facts: dict[bytes, Fact] = {}
        self.gone: dict[str, list[Gone]] = {}
        self.parents: dict[At, bytes] = {}
        self.seen: dict[str, set[At]] = {}
        self.deadlines: dict[tuple[str, str, int], int] = {}
        self.latest_ms: dict[str, int] = {}
        self.restored_heads: set[At] = set()
        self._before: tuple[bytes, dict[bytes, bytes]] = b"", {}
        self._kept: dict[bytes, bytes] = {}

    # --- what the server does ------------------------------------------------------------

    def watch(self, server: Server, talker: str | None, call: Call, reply: Reply | None) -> None:
        """A call is about to be run, or (with a reply) was."""
        name = call.script.name
        if name not in {"put", "put_writes", "delete", "remove", "replay"}:
            return
        thread = thread_of(call)
        if reply is None:
            if name == "replay":
                state = server.state(thread)
                self._before = _heads(state)
                self._kept = {name[1:]: at for name, at in state.items() if name[:1] == b"k"}
            return
        answer = operations.read(reply)
        if answer.status is not Status.OK:
            return
        if name == "replay":
            self._replayed(server, talker, thread, call)
            return
        if deadline_ms := server.deadline_ms(thread):
            self.may_last(thread, deadline_ms)
        if name == "delete":
            self.gone.setdefault(thread, []).append(Gone(int(answer.standing.stamp) - 1, None))
        elif name == "remove":
            gone = self.gone.setdefault(thread, [])
            stamp = int(answer.standing.stamp)
            gone += [Gone(stamp, None, (thread, call.args[2], each)) for each in call.args[3:]]
        else:
            self._took(thread, name, call, answer)

    def _took(self, thread: str, name: str, call: Call, answer: operations.Answer) -> None:
        taken = taken_apart(call.args[0])
        at = (thread, taken.namespace, taken.checkpoint_id)
        fact = self.facts.setdefault(taken.entry, Fact(taken.entry, name, at, 0))
        fact.stamp, fact.is_over = int(answer.standing.stamp), False
        fact.gens.add(int(answer.standing.gen))
        if name == "put":
            self.parents[at] = records.parent_id(taken.payload).encode()

    def _replayed(self, server: Server, talker: str | None, thread: str, call: Call) -> None:
        """A replay moved heads only as it may."""
        nonce, before = self._before
        after_nonce, after = _heads(server.state(thread))
        if nonce != after_nonce:
            before = {}
        for item in call.args[1:]:
            self._restored(thread, int(call.args[0][56:72]), item)
        removed = {item for item in call.args[1:] if item[:1] == b"R"}
        for ns, head in after.items():
            old = before.get(ns, b"")
            at = (thread, ns, old)
            if head == old:
                continue
            self.restored_heads.add((thread, ns, head))
            if any(item.endswith(ns + old) for item in removed) or self._has_ended(at):
                continue
            if old and head < old:
                raise Broken("head moved back", (at, head))
            if old and talker is not None:  # Else it came late: from whom is not known here.
                known = at in self.seen.get(talker, ()) or at in self.restored_heads
                # A branch that was kept is the head once any other replay moves it on.
                kin = old in self.line((thread, ns, head)) or self._kept.get(ns) == head
                require(known or kin, "head moved past one not seen", (talker, at, head))

    def _has_ended(self, at: At) -> bool:
        return all(self.ended(fact, fact.gens) for fact in self.facts.values() if fact.at == at)

    def _restored(self, thread: str, gen: int, item: bytes) -> None:
        """A write of unknown outcome may come in by a replay first."""
        if item[:1] not in (b"P", b"W"):
            return
        at = 17 if item[:1] == b"P" else 33
        middle = at + 12 + int(item[at : at + 6])
        end = middle + int(item[at + 6 : at + 12])
        where = (thread, item[at + 12 : middle], item[middle:end])
        kind = "put" if item[:1] == b"P" else "put_writes"
        number = records.entry_of(item[end:]) if kind == "put" else item[17:33]
        if number:
            fact = self.facts.setdefault(number, Fact(number, kind, where, int(item[1:17])))
            fact.gens |= {gen} - {0}
            if kind == "put" and number:
                self.parents.setdefault(where, records.parent_id(item[end:]).encode())

    def line(self, at: At) -> Iterator[bytes]:
        """The ids of a checkpoint's ancestors, by what was put."""
        thread, ns, checkpoint_id = at
        while checkpoint_id := self.parents.get((thread, ns, checkpoint_id), b""):
            yield checkpoint_id

    def passed(self, clock_ms: int) -> None:
        """Time has passed: what has expired need not come back."""
        if not self.ttl_ms:
            return
        for fact in self.facts.values():
            if clock_ms >= self.latest_ms.get(fact.at[0], 0):
                fact.is_over = True
            for holder, gens in fact.held.items():
                ends = max(self.deadlines.get((holder, fact.at[0], gen), 0) for gen in gens)
                if ends <= clock_ms:
                    fact.expired.add(holder)

    def may_last(self, thread: str, deadline_ms: int) -> None:
        """A write of unknown outcome may have put off the thread's end."""
        self.latest_ms[thread] = max(deadline_ms, self.latest_ms.get(thread, 0))

    # --- what processes are told --------------------------------------------------------

    def hold(self, who: str, number: bytes, answer: operations.Answer, deadline_ms: int) -> None:
        """A write was acknowledged to a process, or read by it."""
        fact = self.facts[number]
        gen = int(answer.standing.gen)
        fact.held.setdefault(who, set()).add(gen)
        fact.gens.add(gen)
        fact.told = max(fact.told, int(answer.standing.stamp))
        fact.expired.discard(who)
        key = (who, fact.at[0], gen)
        self.deadlines[key] = max(deadline_ms, self.deadlines.get(key, 0))
        if fact.kind == "put":
            self.saw(who, fact.at)

    def saw(self, who: str, at: At) -> None:
        self.seen.setdefault(who, set()).add(at)

    def deleted(self, who: str, thread: str, stamp: int, at: At | None = None) -> None:
        """A deletion was acknowledged to a process."""
        for gone in self.gone[thread]:
            if gone.stamp == stamp and gone.at == at:
                gone.by = who

    # --- what must be there ----------------------------------------------------------------

    def ended(self, fact: Fact, gens: Iterable[int], by: set[str] | None = None) -> bool:
        """Whether it was deleted or removed: by anyone, or by one of these."""
        for gone in self.gone.get(fact.at[0], ()):
            if by is not None and gone.by not in by:
                continue
            if gone.at is None and gens and all(gen <= gone.stamp for gen in gens):
                return True
            # A checkpoint that was removed takes with it what came upon it later.
            if gone.at == fact.at and (by is None or max(fact.stamp, fact.told) <= gone.stamp):
                return True
        return False

    def wanted(self, living: set[str]) -> list[Fact]:
        """What must be there: acknowledged to, or read by, one that lives."""
        found = []
        for fact in self.facts.values():
            for who in fact.held.keys() & living:
                if who not in fact.expired and not self.ended(fact, fact.held[who]):
                    found.append(fact)
                    break
        return found

    def unwanted(self, living: set[str]) -> list[Fact]:
        """What must be gone: deleted by one that lives."""
        return [fact for fact in self.facts.values() if self.ended(fact, fact.gens, living)]


def thread_of(call: Call) -> str:
    key = call.keys[0]
    return key[key.index(b"{") + 1 : key.rindex(b"}")].decode()


def _heads(state: dict[bytes, bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    """The thread's nonce, and its heads by namespace."""
    heads = {name[1:]: head[6:] for name, head in state.items() if name[:1] == b"H"}
    return state.get(b"m", b"")[:16], heads


def heads_of(state: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The heads by namespace."""
    return _heads(state)[1]
