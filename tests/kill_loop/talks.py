"""What writers do: conversations on one thread, each with the results it must have.

A *talk* is a generator of calls. Who runs it makes each call, blocking or awaited,
and sends back what came of it; so every talk is held on both faces. A result that is
not the expected one raises `WrongResult`: something of the thread's state was lost,
though every id may be there.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Generator, Sequence
from typing import Annotated, Any, NamedTuple

from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from tests.kill_loop.recorded import Recorded


class WrongResult(AssertionError):
    """A graph did not give what it gives without failovers."""


class Ask(NamedTuple):
    """A call of a method, or of its ``a`` twin."""

    target: Any
    method: str
    args: tuple[Any, ...]
    keywords: dict[str, Any]


Talk = Generator[Ask, Any, None]


def ask(target: Any, method: str, *args: Any, **keywords: Any) -> Ask:
    return Ask(target, method, args, keywords)


def expect(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise WrongResult(f"{found!r:.300} instead of {wanted!r:.300}")


def of(thread: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}}


# --- graphs -------------------------------------------------------------------


class Log(TypedDict):
    log: Annotated[list[Any], operator.add]


def extend(state: list[Any], batches: Sequence[list[Any]]) -> list[Any]:
    return [*state, *(one for batch in batches for one in batch)]


class Deltas(TypedDict):
    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=5)]


def _line(schema: Any, **nodes: Any) -> Any:
    """A graph whose nodes run one after the other."""
    builder = StateGraph(schema)
    last = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(last, name)
        last = name
    builder.add_edge(last, END)
    return builder


def _says(word: str) -> Any:
    return lambda state: {"log": [f"{word} {len(state['log'])}"]}


def _asks(state: Log) -> Any:
    return {"log": [f"told {interrupt(len(state['log']))}"]}


def steps(saver: Recorded) -> Any:
    return _line(Log, first=_says("first"), second=_says("second")).compile(checkpointer=saver)


def deltas(saver: Recorded) -> Any:
    return _line(Deltas, first=_says("first"), second=_says("second")).compile(checkpointer=saver)


def approval(saver: Recorded) -> Any:
    return _line(Log, draft=_says("draft"), asked=_asks, send=_says("sent")).compile(
        checkpointer=saver
    )


def nested(saver: Recorded) -> Any:
    inner = _line(Log, inside=lambda state: {"log": ["inside"]}, asked=_asks).compile()

    def wrap(state: Log) -> Any:
        return {"log": inner.invoke({"log": []})["log"]}

    return _line(Log, before=_says("before"), wrapped=wrap, after=_says("after")).compile(
        checkpointer=saver
    )


def fan_out(saver: Recorded) -> Any:
    builder = StateGraph(Log)
    builder.add_node("plan", lambda state: {"log": []})
    builder.add_node("work", lambda item: {"log": [f"work {item['n']}"]})
    builder.add_node("sum", lambda state: {"log": [f"sum {len(state['log'])}"]})
    builder.add_edge(START, "plan")
    builder.add_conditional_edges(
        "plan", lambda state: [Send("work", {"n": n}) for n in range(3)], ["work"]
    )
    builder.add_edge("work", "sum")
    builder.add_edge("sum", END)
    return builder.compile(checkpointer=saver)


def functional(saver: Recorded) -> Any:
    @task
    def double(number: int) -> int:
        return 2 * number

    @entrypoint(checkpointer=saver)
    def total(number: int, *, previous: Any = None) -> Any:
        parts = [double(number), double(number + 1)]
        sums = [*(previous or []), sum(part.result() for part in parts)]
        return entrypoint.final(value=sums, save=sums)

    return total


GRAPHS = {each.__name__: each for each in (steps, deltas, approval, nested, fan_out, functional)}


class Graphs:
    """One of each, compiled with a saver."""

    def __init__(self, saver: Recorded) -> None:
        self.saver = saver
        self.of = {name: build(saver) for name, build in GRAPHS.items()}


# --- talks --------------------------------------------------------------------

TURNS = (2, 6)
"""How many turns a talk has, at least and at most."""


def _turns(chance: random.Random) -> range:
    return range(chance.randint(*TURNS))


def _durability(chance: random.Random) -> str:
    return chance.choice(["sync", "async"])


def logging_turns(name: str, added: Sequence[str]) -> Any:
    """Talks with a graph that adds the same to its log at each turn, and where."""

    def talk(all_graphs: Sequence[Graphs], thread: str, chance: random.Random) -> Talk:
        graph, durability = all_graphs[0].of[name], _durability(chance)
        wanted: list[str] = []
        for turn in _turns(chance):
            wanted.append(f"turn {turn}")
            for word in added:
                wanted.append(word.format(len(wanted)))
            found = yield ask(
                graph, "invoke", {"log": [f"turn {turn}"]}, of(thread), durability=durability
            )
            expect(found["log"], wanted)
        state = yield ask(graph, "get_state", of(thread))
        expect(state.values["log"], wanted)

    return talk


def fanning(all_graphs: Sequence[Graphs], thread: str, chance: random.Random) -> Talk:
    graph, durability = all_graphs[0].of["fan_out"], _durability(chance)
    wanted: list[str] = []
    for turn in _turns(chance):
        wanted += [f"turn {turn}", "work 0", "work 1", "work 2"]
        wanted.append(f"sum {len(wanted)}")
        found = yield ask(
            graph, "invoke", {"log": [f"turn {turn}"]}, of(thread), durability=durability
        )
        expect(found["log"], wanted)


def approving(name: str, before: Sequence[str], after: str) -> Any:
    """Talks that are interrupted at each turn, and resumed."""

    def talk(all_graphs: Sequence[Graphs], thread: str, chance: random.Random) -> Talk:
        graph, durability = all_graphs[0].of[name], _durability(chance)
        wanted: list[str] = []
        for turn in _turns(chance):
            wanted.append(f"turn {turn}")
            first = [word.format(len(wanted)) for word in before]
            found = yield ask(
                graph, "invoke", {"log": [f"turn {turn}"]}, of(thread), durability=durability
            )
            expect(len(found["__interrupt__"]), 1)
            found = yield ask(
                graph, "invoke", Command(resume=f"yes {turn}"), of(thread), durability=durability
            )
            wanted += [*first, f"told yes {turn}"]
            wanted.append(after.format(len(wanted)))
            expect(found["log"], wanted)

    return talk


def adding(all_graphs: Sequence[Graphs], thread: str, chance: random.Random) -> Talk:
    graph, durability = all_graphs[0].of["functional"], _durability(chance)
    wanted: list[int] = []
    for _ in _turns(chance):
        number = chance.randrange(100)
        wanted.append(4 * number + 2)
        found = yield ask(graph, "invoke", number, of(thread), durability=durability)
        expect(found, wanted)


def handing_over(all_graphs: Sequence[Graphs], thread: str, chance: random.Random) -> Talk:
    """Two processes run one thread in turn, each building upon what the other stored."""
    ttl_s = all_graphs[0].saver.settings.ttl_s
    alike = [each for each in all_graphs if each.saver.settings.ttl_s == ttl_s]
    for turn in _turns(chance):
        graph = alike[turn % len(alike)].of["steps"]
        yield ask(graph, "invoke", {"log": [f"turn {turn}"]}, of(thread), durability="sync")


def storing(all_graphs: Sequence[Graphs], thread: str, chance: random.Random) -> Talk:
    """Puts, writes and prunes of its own, as no graph makes them."""
    saver = all_graphs[0].saver
    config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    values: dict[str, Any] = {"items": [], "kept": "kept"}
    versions: dict[str, Any] = {}
    for turn in range(chance.randint(5, 15)):
        values = {**values, "items": [*values["items"], f"item {turn}"]}
        changed = {"items": turn + 1, **({} if versions else {"kept": 1})}
        versions = {**versions, **changed}
        checkpoint: Checkpoint = {
            **empty_checkpoint(),
            "id": str(uuid6()),
            "channel_values": values,
            "channel_versions": versions,
        }
        metadata: CheckpointMetadata = {"source": "loop", "step": turn, "parents": {}}
        config = yield ask(saver, "put", config, checkpoint, metadata, changed)
        for number in range(chance.randint(0, 3)):
            writes = [("items", turn), ("kept", number)]
            yield ask(saver, "put_writes", config, writes, f"task {turn}.{number}")
        if chance.random() < 0.1:
            yield ask(saver, "prune", [thread])
        found = yield ask(saver, "get_tuple", of(thread))
        expect(found and found.checkpoint["channel_values"], values)


TALKS = {
    "steps": logging_turns("steps", ["first {}", "second {}"]),
    "deltas": logging_turns("deltas", ["first {}", "second {}"]),
    "fan-out": fanning,
    "approval": approving("approval", ["draft {}"], "sent {}"),
    "nested": approving("nested", ["before {}", "inside"], "after {}"),
    "functional": adding,
    "handing over": handing_over,
    "storing": storing,
}
"""What writers do, by name."""

DELETED = 0.3
"""Share of threads that are deleted at the end, half of them to begin anew."""


def life(name: str, all_graphs: Sequence[Graphs], thread: str, chance: random.Random) -> Talk:
    """A talk, and perhaps the thread's end, and perhaps a new one by the same name."""
    talk = TALKS[name]
    yield from talk(all_graphs, thread, chance)
    if chance.random() < DELETED:
        yield ask(all_graphs[0].saver, "delete_thread", thread)
        if chance.random() < 0.5:
            yield from talk(all_graphs, thread, chance)
