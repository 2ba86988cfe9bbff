"""Random sequences of calls, compared with InMemorySaver after each.

The examples are the same on every run (``derandomize``), so a failure is
reproduced by running its test again; Hypothesis prints the shortest sequence of
steps it found, ready to be pasted. Values differ from version to version of a
channel, as LangGraph's do: a saver may tell values by version.
"""

from __future__ import annotations

import asyncio
import copy
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED

from tests.faces import FACES, Twin, checkpoint, config, metadata, numbered_id, open_face

PLACES = [("a", ""), ("a", "child"), ("u1", ""), ("u[1]", ""), ("u[1]", "b:{}")]
CHANNELS = ["count", "messages", "branch:to:x"]
REMOVERS = ["delete", "prune", "runs", *["nothing"] * 9]
"""How checkpoints go; seldom, or threads would never grow."""

places = st.sampled_from(PLACES)
any_index = st.integers(0, 999)
writes = st.lists(
    st.tuples(
        st.sampled_from(["count", "messages", ERROR, INTERRUPT, RESUME, SCHEDULED]),
        st.integers(0, 99),
    ),
    max_size=4,
)


class SaverMachine(RuleBasedStateMachine):
    """A saver and InMemorySaver, led through the same calls."""

    def __init__(self, kind: str, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.opened = AsyncExitStack()
        self.twin = Twin(self.do(self.opened.enter_async_context(open_face(kind, url))))
        self.puts: dict[tuple[str, str], dict[str, tuple[Any, ...]]] = {p: {} for p in PLACES}
        self.deleted: set[str] = set()
        """Threads that only their root may begin anew, as LangGraph does; see `ThreadDeleted`."""
        self.serial = 0

    def do(self, call: Any) -> Any:
        return self.runner.run(call)

    def teardown(self) -> None:
        with self.runner:  # Whatever ends this: an open loop's threads keep the process alive.
            self.do(self.opened.aclose())

    def stored_id(self, place: tuple[str, str], index: int) -> str | None:
        stored = sorted(self.puts[place])
        return stored[index % len(stored)] if stored else None

    def updates(self, channels: set[str], parent: Checkpoint | None, cut: int) -> dict[str, Any]:
        """New values of channels; the list grows, and at times loses or changes something."""
        self.serial += 1
        made: dict[str, Any] = {name: f"{name} {self.serial}" for name in channels}
        if "messages" in channels:
            value = list(parent["channel_values"].get("messages", [])) if parent else []
            if value and cut < 3:
                value = [value[cut:], value[: -1 - cut], [*value[:-1], {"changed": self.serial}]][
                    cut
                ]
            value.extend({"n": self.serial, "text": "word " * 30} for _ in range(1 + cut * 4))
            made["messages"] = value
        return made

    @rule(
        place=places,
        number=any_index,
        parent=st.one_of(st.just("head"), st.none(), any_index),
        channels=st.sets(st.sampled_from(CHANNELS)),
        consumed=st.booleans(),
        cut=st.integers(0, 9),
    )
    def put(
        self,
        place: tuple[str, str],
        number: int,
        parent: str | int | None,
        channels: set[str],
        consumed: bool,
        cut: int,
    ) -> None:
        if place[0] in self.deleted:
            place = (place[0], "")
        stored = self.puts[place]
        while numbered_id(number) in stored:
            number += 1
        parent_id = max(stored, default=None) if parent == "head" else None
        if isinstance(parent, int):
            parent_id = self.stored_id(place, parent)
        before = stored[parent_id][1] if parent_id else None
        made, new_versions = checkpoint(
            numbered_id(number), self.updates(channels, before, cut), parent=before
        )
        if consumed and "branch:to:x" in new_versions:
            del made["channel_values"]["branch:to:x"]
        about = metadata(number, run_id=f"run {number % 3}", odd=number % 2)
        stored[made["id"]] = (config(*place, parent_id), made, about, new_versions)
        self.do(self.twin.put(*copy.deepcopy(stored[made["id"]])))
        self.deleted.discard(place[0])

    @rule(place=places, index=any_index)
    def put_again(self, place: tuple[str, str], index: int) -> None:
        if (stored_id := self.stored_id(place, index)) is not None:
            self.do(self.twin.put(*copy.deepcopy(self.puts[place][stored_id])))

    @rule(
        place=places,
        index=any_index,
        early=st.booleans(),
        written=writes,
        task=st.sampled_from(["task 1", "task 2", "a task"]),
        path=st.sampled_from(["", "~__pregel_pull, a", "~__pregel_push, 1"]),
    )
    def put_writes(
        self,
        place: tuple[str, str],
        index: int,
        early: bool,
        written: list[tuple[str, int]],
        task: str,
        path: str,
    ) -> None:
        target = numbered_id(index) if early else self.stored_id(place, index)
        if target is not None and place[0] not in self.deleted:
            self.do(self.twin.write(config(*place, target), written, task, path))

    @rule(place=places, index=any_index)
    def get_one(self, place: tuple[str, str], index: int) -> None:
        self.do(self.twin.get(config(*place, self.stored_id(place, index) or numbered_id(index))))

    @rule(
        place=places,
        before=st.one_of(st.none(), any_index),
        limit=st.one_of(st.none(), st.integers(0, 5)),
        criteria=st.sampled_from([None, {}, {"odd": 1}, {"run_id": "run 1"}, {"odd": 0, "no": 1}]),
    )
    def list_some(
        self, place: tuple[str, str], before: int | None, limit: int | None, criteria: Any
    ) -> None:
        bound = None if before is None else config(*place, numbered_id(before))
        self.do(self.twin.list(config(*place), before=bound, limit=limit, filter=criteria))

    @precondition(lambda self: any(self.puts.values()))
    @rule(place=places, remover=st.sampled_from(REMOVERS), run=st.integers(0, 2))
    def remove(self, place: tuple[str, str], remover: str, run: int) -> None:
        if remover == "delete":
            self.do(self.twin.delete(place[0]))
            self.deleted.add(place[0])
        elif remover == "prune":
            self.do(self.twin.prune(place[0]))
        elif remover == "runs":
            self.do(self.twin.delete_runs(f"run {run}"))
        for thread_id, ns in PLACES:
            left = self.twin.oracle.storage.get(thread_id, {}).get(ns, {})
            for gone in self.puts[thread_id, ns].keys() - left.keys():
                del self.puts[thread_id, ns][gone]

    @precondition(lambda self: any(self.puts.values()))
    @rule(place=places)
    def copy_thread(self, place: tuple[str, str]) -> None:
        self.do(self.twin.delete("copy"))
        self.do(self.twin.copy(place[0], "copy"))

    @invariant()
    def all_is_equal(self) -> None:
        self.do(self.twin.list(None))
        for place in PLACES:
            self.do(self.twin.get(config(*place)))


# Hypothesis looks at each loaded module, and GLIDE's old names warn when looked at.
@pytest.mark.filterwarnings("ignore:Importing from 'glide:DeprecationWarning")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", FACES)
def test_any_sequence_of_calls(kind: str, valkey: Any) -> None:
    run_state_machine_as_test(
        lambda: SaverMachine(kind, valkey.url),  # type: ignore[arg-type]  # it may be a factory
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            derandomize=True,
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
