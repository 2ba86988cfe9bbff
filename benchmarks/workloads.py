"""The data: a thread whose state grows by a list, step by step.

A step is what LangGraph hands a saver at the end of a superstep: a checkpoint
with the whole state, the versions that changed, and the writes of the tasks
that run next. The list grows linearly from nothing to twice the average size;
sizes are measured as the serializer's bytes. A message of LangChain takes some
250 bytes before its text begins, so at an average of 2 KiB only every seventh
step or so brings one; the counters change at every step.

Everything comes from a seed, and is built outside the timed part.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

Kind = Literal["messages", "dicts"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NextVersion = Callable[[Any, None], Any]

KIB = 1024
SMALLEST_TEXT = 8
LINKING = (
    "the",
    "of",
    "and",
    "to",
    "a",
    "in",
    "that",
    "it",
    "is",
    "for",
    "was",
    "on",
    "with",
    "by",
)
SYLLABLES = (
    *("ba", "ce", "do", "fi", "gu", "la", "me", "no", "pri", "ro", "sta", "te", "vo"),
    *("chan", "der", "est", "ing", "ment", "tion", "ver"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """What one superstep brings.

    Attributes:
        checkpoint: The state after it, whole.
        metadata: As LangGraph writes it.
        new_versions: Versions of the channels that changed.
        writes: Three writes of the next superstep's tasks.
        task_id: The task that wrote them.
    """

    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    new_versions: dict[str, Any]
    writes: Sequence[tuple[str, Any]]
    task_id: str


def vocabulary(rng: random.Random, words: int = 2_000) -> list[str]:
    """Words of two to four syllables, and short linking words in between."""
    made = ["".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))) for _ in range(words)]
    return made + [*LINKING] * (words // len(LINKING) // 2)


def text(rng: random.Random, words: Sequence[str], size: int) -> str:
    """Sentences of about `size` characters, compressible as English is."""
    parts: list[str] = []
    length = 0
    while length < size:
        sentence = " ".join(rng.choices(words, k=rng.randint(6, 14))).capitalize() + ". "
        parts.append(sentence)
        length += len(sentence)
    return "".join(parts)[:size]


def item(kind: Kind, rng: random.Random, number: int, content: str) -> Any:
    """One element of the list: the user's and the model's turns alternate."""
    name = f"{rng.getrandbits(128):032x}"
    if kind == "dicts":
        return {"role": ("user", "assistant")[number % 2], "content": content}
    if number % 2:
        return AIMessage(content=content, id=f"lc_run--{name}")
    return HumanMessage(content=content, id=name)


def growing_list(
    kind: Kind, average_bytes: int, steps: int, seed: int, total_steps: int | None = None
) -> list[Any | None]:
    """What each step appends, None where nothing.

    Args:
        kind: Messages or plain dicts.
        average_bytes: Average serialized size of the list over `steps` steps.
        steps: The length the average is meant for; it sets the growth a step.
        seed: Of the random numbers.
        total_steps: Go on to this many steps at the same growth.
    """
    rng = random.Random(f"{seed}/{kind}/{average_bytes}")
    words = vocabulary(rng)
    dumps = JsonPlusSerializer().dumps_typed
    growth = 2 * average_bytes / steps
    empty = len(dumps(item(kind, rng, 0, ""))[1])
    items: list[Any | None] = []
    filled = 0
    for step in range(1, (total_steps or steps) + 1):
        room = int(step * growth) - filled - empty
        if room < SMALLEST_TEXT:
            items.append(None)
            continue
        new = item(kind, rng, len(items), text(rng, words, room))
        filled += len(dumps(new)[1])
        items.append(new)
    return items


def build_steps(items: Sequence[Any | None], next_version: NextVersion) -> list[Step]:
    """The supersteps of one thread: an agent, its tools, and a summary node.

    Args:
        items: From `growing_list`.
        next_version: The saver's own, as LangGraph uses it.
    """
    steps: list[Step] = []
    grown: list[Any] = []
    version: Any = next_version(None, None)
    versions: dict[str, Any] = {"__start__": version, "messages": version, "loop": version}
    seen: dict[str, dict[str, Any]] = {
        "__input__": {},
        "__start__": {"__start__": version},
        "agent": {},
        "tools": {},
    }
    nodes = ("agent", "tools")
    for number, new in enumerate(items):
        version = next_version(version, None)
        node, following = nodes[number % 2], nodes[(number + 1) % 2]
        changed = {"loop": version, f"branch:to:{node}": version, f"branch:to:{following}": version}
        if new is not None:
            grown = [*grown, new]
            changed["messages"] = version
        versions = {**versions, **changed}
        seen = {**seen, node: {f"branch:to:{node}": versions[f"branch:to:{node}"]}}
        checkpoint = Checkpoint(
            v=4,
            id=str(uuid6(clock_seq=number)),
            ts=datetime.now(UTC).isoformat(),
            channel_values={
                "messages": grown,
                "loop": number,
                f"branch:to:{following}": None,
            },
            channel_versions=versions,
            versions_seen=seen,
            updated_channels=sorted(changed),
        )
        metadata = CheckpointMetadata(source="loop", step=number, parents={})
        writes: list[tuple[str, Any]] = [("loop", number + 1), (f"branch:to:{node}", None)]
        following_item = items[number + 1] if number + 1 < len(items) else None
        if following_item is None:
            writes.append(("note", f"step {number}"))
        else:
            writes.append(("messages", [following_item]))
        steps.append(Step(checkpoint, metadata, changed, writes, f"task-{number:032x}"))
    return steps


def thread(thread_id: str) -> RunnableConfig:
    """The config of a thread's latest checkpoint, as a first put needs it too."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def state_bytes(steps: Sequence[Step]) -> int:
    """What storing the whole state at every step would take, in bytes."""
    dumps = JsonPlusSerializer().dumps_typed
    return sum(len(dumps(step.checkpoint)[1]) for step in steps)
