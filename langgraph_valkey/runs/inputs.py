"""A run's input, and what else it takes to start it again, as they are recorded.

Both are serialized as state is, by the saver's serializer: whatever can be in a state
can be in an input, and where state is encrypted they are, too. What can't be
serialized of a config (handles, callbacks) is left out, and named, so that a re-run
does not silently go without it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import PendingWrite
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME

NULL_TASK = "00000000-0000-0000-0000-000000000000"
"""The task under which LangGraph stores what a `Command` brings."""

_CONTROL = {ERROR, "__error_source_node__", INTERRUPT, RESUME}
"""Writes that tell what happened to a task; by any other one it has finished."""

_KEPT = ("tags", "metadata", "run_name", "max_concurrency", "recursion_limit")
"""What is kept of a config, beside what is configurable."""

_MOMENTARY = ("control", "print_mode", "durability")
"""Options of one execution: another one has its own."""


@dataclass(frozen=True, slots=True)
class About:
    """What is recorded of a run beside its input.

    Attributes:
        base: Id of the checkpoint that was the thread's head when it was started.
        base_run: The run that had made that; "" if it names none.
        asked: The questions (interrupts) that were open then: id, and digest.
        stored: How many writes of commands stood on that checkpoint.
        input_sha256: Digest of the input before any encryption.
        config: What is kept of the config.
        options: What the graph was invoked with.
        left_out: What could not be kept: "configurable.db", say.
    """

    base: str = ""
    base_run: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)
    stored: int = 0
    input_sha256: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    left_out: Sequence[str] = ()


def dump(serde: SerializerProtocol, value: Any) -> bytes:
    """A value as bytes.

    Raises:
        TypeError: It can't be serialized.
    """
    kind, payload = serde.dumps_typed(value)
    return kind.encode() + b"\0" + payload


def load(serde: SerializerProtocol, data: bytes) -> Any:
    """The inverse of `dump`.

    Raises:
        ValueError: The bytes are no such value, or not of a kind this process knows.
    """
    kind, _, payload = data.partition(b"\0")
    try:
        return serde.loads_typed((kind.decode(), payload))
    except Exception as error:
        raise ValueError("it can't be deserialized here") from error


def digest(serde: SerializerProtocol, value: Any) -> str:
    """Digest of a value, in hex digits: the same each time, also where state is encrypted."""
    return hashlib.sha256(dump(getattr(serde, "serde", serde), value)).hexdigest()


def context_of(serde: SerializerProtocol, about: About) -> str:
    """`About` as the registry keeps it."""
    # Not by `asdict`, which would take values apart that are dataclasses themselves.
    told = {each.name: getattr(about, each.name) for each in fields(about)}
    return json.dumps({"about": base64.b64encode(dump(serde, told)).decode()})


def about_of(serde: SerializerProtocol, context: str) -> About:
    """The inverse of `context_of`.

    Raises:
        ValueError: It is none.
    """
    found = json.loads(context or "{}").get("about")
    return About(**load(serde, base64.b64decode(found))) if found else About()


def kept(
    serde: SerializerProtocol, config: RunnableConfig, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """What can be kept of a config and of options, and what can't."""
    left_out: list[str] = []

    def keep(given: Mapping[str, Any], where: str) -> dict[str, Any]:
        able: dict[str, Any] = {}
        for name, value in given.items():
            try:
                dump(serde, value)
            except Exception:  # noqa: BLE001 - whatever a user's object raises
                left_out.append(f"{where}{name}")
            else:
                able[name] = value
        return able

    configurable = {
        name: value
        for name, value in (config.get("configurable") or {}).items()
        if not name.startswith("__")
    }
    about_config = keep({name: config[name] for name in _KEPT if config.get(name)}, "")  # type: ignore[literal-required]
    about_config["configurable"] = keep(configurable, "configurable.")
    lasting = {
        name: value
        for name, value in options.items()
        if name not in _MOMENTARY and value is not None
    }
    return about_config, keep(lasting, ""), left_out


def finished_tasks(pending: Sequence[PendingWrite]) -> set[str]:
    """Tasks whose output stands among these writes."""
    return {task for task, channel, _ in pending if task != NULL_TASK and channel not in _CONTROL}


def open_questions(
    serde: SerializerProtocol, pending: Sequence[PendingWrite] | None
) -> dict[str, str]:
    """The interrupts that wait for an answer: id, and digest of what is asked."""
    writes = pending or []
    finished = finished_tasks(writes)
    return {
        question.id: digest(serde, question.value)
        for task, channel, value in writes
        if channel == INTERRUPT and task not in finished
        for question in (value if isinstance(value, list | tuple) else [value])
    }


def commands_stored(pending: Sequence[PendingWrite] | None) -> int:
    """How many writes of commands stand on a checkpoint, answers to interrupts aside."""
    return sum(task == NULL_TASK and channel != RESUME for task, channel, _ in pending or [])
