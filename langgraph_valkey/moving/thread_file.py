"""One thread in a file: JSON lines, with a checksum at the end.

=======  ==================================================================================
line     holds
=======  ==================================================================================
first    ``format``, ``version``, ``thread``, ``heads``: with which checkpoint it goes on, by
         namespace
others   a checkpoint each, the oldest of each namespace first: ``ns``, ``id``, ``parent``;
         ``checkpoint`` without its values, ``metadata``, ``values`` by channel; and ``tasks``
         with their pending writes, ``[channel, value]``
last     ``end``: how many checkpoints, and the SHA-256 of all bytes before this line
=======  ==================================================================================

A value is ``[kind, base64]``: the type name and the bytes of LangGraph's serializer, as they
are. The file is not encrypted.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, get_checkpoint_id

from langgraph_valkey.boundary.carrying import Cargo, Task, address
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.moving.cargo import Address, Reckoning, require_lines
from langgraph_valkey.moving.homes import SaverHome
from langgraph_valkey.moving.opaque import NotCarried, Opaque, opaque

FORMAT = "langgraph-valkey/thread"
VERSION = 1


def write(home: SaverHome, thread: str, to: BinaryIO) -> int:
    """Write a thread to a file.

    Args:
        home: Where it lives.
        thread: The thread.
        to: A file, open for bytes.

    Returns:
        How many checkpoints.

    Raises:
        NotCarried: There is no such thread, a delta channel can't be rebuilt, it was written
            to meanwhile, or the serializer is not LangGraph's.
    """
    if opaque(home.serde) is None:
        raise NotCarried(
            f"values are stored by {type(home.serde).__name__}, which only the program knows: "
            "export works with LangGraph's serializer"
        )
    mark = home.mark(thread)
    if not mark:
        raise NotCarried(f"there is no thread {thread!r} at {home.name}")
    told = hashlib.sha256()

    def line(about: Mapping[str, Any]) -> None:
        raw = json.dumps(about).encode() + b"\n"
        told.update(raw)
        to.write(raw)

    line({"format": FORMAT, "version": VERSION, "thread": thread, "heads": home.heads(thread)})
    reckoning = Reckoning(home.serde)
    for cargo in home.cargoes(thread):
        reckoning.add(cargo)
        line(_packed(cargo))
    require_lines(thread, reckoning.lines)
    if home.mark(thread) != mark:
        raise NotCarried(f"thread {thread!r} was written to meanwhile: export it between its runs")
    count = len(reckoning.prints)
    line({"end": {"checkpoints": count, "sha256": told.hexdigest()}})
    return count


_PLAIN = Opaque()
"""What stands in a file is not encrypted, also where it comes from was."""


def _value(given: Any) -> list[str]:
    kind, data = _PLAIN.dumps_typed(given)
    return [kind, b64encode(data).decode("ascii")]


def _packed(cargo: Cargo) -> dict[str, Any]:
    given = cargo.found.checkpoint
    values = given["channel_values"].items()
    return {
        "ns": cargo.namespace,
        "id": cargo.id,
        "parent": cargo.parent_id,
        "checkpoint": _value({k: v for k, v in given.items() if k != "channel_values"}),
        "metadata": _value(dict(cargo.found.metadata)),
        "values": {name: _value(value) for name, value in values},
        "tasks": [
            {
                "id": task.task_id,
                "path": task.path,
                "ordinary": [[name, _value(value)] for name, value in task.ordinary],
                "special": [[name, _value(value)] for name, value in task.special],
            }
            for task in cargo.tasks
        ],
    }


class ThreadFile(SaverHome):
    """A thread in a file, as a home that can only be read.

    Args:
        path: The file.
        thread: Under which name the thread is given; its own if not said.

    Attributes:
        thread: That name.

    Raises:
        ConfigurationError: It is no such file, of a later release, or not whole.
    """

    def __init__(self, path: Path, thread: str | None = None) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ConfigurationError(f"{path} can't be read ({error.strerror})") from error
        super().__init__(_FileSaver(self), str(path), f"file {path.absolute()}")
        self.closing.callback(self._file.close)
        try:
            header = self._checked()
        except BaseException:
            self.close()
            raise
        self.thread = thread or str(header["thread"])
        self._heads: dict[str, str] = header["heads"]

    def _checked(self) -> dict[str, Any]:
        """Look whether it is whole, and where each checkpoint stands; gives its first line."""
        told, before = hashlib.sha256(), b""
        self._places: dict[Address, int] = {}
        at = 0
        header: dict[str, Any] = {}
        for number, raw in enumerate(self._file):
            told.update(before)
            about = self._read(raw, number)
            if not number:
                header = self._require_format(about)
            elif "id" in about:
                self._places[about["ns"], about["id"]] = at
            before, at = raw, at + len(raw)
        end = self._read(before, -1).get("end") if before else None
        if end != {"checkpoints": len(self._places), "sha256": told.hexdigest()}:
            raise ConfigurationError(
                f"{self.name} is not whole: its checksum does not fit, so it was cut short or "
                "changed. Nothing of it was imported; export the thread again"
            )
        return header

    def _read(self, raw: bytes, number: int) -> dict[str, Any]:
        try:
            about = json.loads(raw)
        except ValueError:
            about = None
        if not isinstance(about, dict):
            where = f"line {number + 1}" if number >= 0 else "the end"
            raise ConfigurationError(
                f"{self.name} is no exported thread, or not whole: {where} is none of its lines"
            )
        return about

    def _require_format(self, about: Mapping[str, Any]) -> dict[str, Any]:
        if about.get("format") != FORMAT:
            raise ConfigurationError(f"{self.name} is no exported thread")
        if about.get("version") != VERSION:
            raise ConfigurationError(
                f"{self.name} is of version {about.get('version')}, and this release reads "
                f"{VERSION}: upgrade it"
            )
        return dict(about)

    def threads(self) -> Iterator[str]:
        """See `Home.threads`."""
        yield self.thread

    def addresses(self, thread: str) -> list[Address]:
        """See `Home.addresses`."""
        return list(self._places) if thread == self.thread else []

    def cargoes(self, thread: str, wanted: Collection[Address] | None = None) -> Iterator[Cargo]:
        """See `Home.cargoes`."""
        for at in self.addresses(thread):
            if wanted is None or at in wanted:
                yield self.unpacked(at)

    def cargo(self, thread: str, at: Address) -> Cargo | None:
        """See `SaverHome.cargo`."""
        return self.unpacked(at) if at in self.addresses(thread) else None

    def unpacked(self, at: Address) -> Cargo:
        """A checkpoint of the file."""
        self._file.seek(self._places[at])
        about = json.loads(self._file.readline())
        try:
            given = {name: _loaded(value) for name, value in about["values"].items()}
            checkpoint = {**_loaded(about["checkpoint"]), "channel_values": given}
            metadata = _loaded(about["metadata"])
            tasks = [
                Task(task["id"], task["path"], _writes(task["ordinary"]), _writes(task["special"]))
                for task in about["tasks"]
            ]
        except (KeyError, TypeError, ValueError, Base64Error) as error:
            raise ConfigurationError(
                f"{self.name} holds a checkpoint {at[1]!r} that is not in this form "
                f"({type(error).__name__}): was it made by something else?"
            ) from None
        namespace, parent = about["ns"], about["parent"]
        found = CheckpointTuple(
            address(self.thread, *at),
            checkpoint,  # type: ignore[arg-type]
            metadata,
            address(self.thread, namespace, parent) if parent else None,
            [(t.task_id, *write) for t in tasks for write in (*t.special, *t.ordinary)],
        )
        return Cargo(found, tasks)

    def heads(self, thread: str) -> dict[str, str]:
        """See `Home.heads`."""
        return dict(self._heads) if thread == self.thread else {}

    def mark(self, thread: str) -> str:
        """See `Home.mark`: a file does not change."""
        return "file" if thread == self.thread else ""

    def put(self, thread: str, cargoes: Iterable[Cargo], heads: Mapping[str, str]) -> None:
        """A file is only read."""
        raise NotImplementedError("an exported thread is only read")

    def delete(self, thread: str) -> None:
        """A file is only read."""
        raise NotImplementedError("an exported thread is only read")


class _FileSaver(BaseCheckpointSaver[str]):
    """As much of a checkpointer as LangGraph needs to rebuild delta channels."""

    def __init__(self, file: ThreadFile) -> None:
        super().__init__(serde=Opaque())
        self._file = file

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `BaseCheckpointSaver.get_tuple`."""
        at = config["configurable"]["checkpoint_ns"], get_checkpoint_id(config) or ""
        cargo = self._file.cargo(self._file.thread, at)
        return None if cargo is None else cargo.found


def _loaded(value: Sequence[str]) -> Any:
    kind, data = value
    return _PLAIN.loads_typed((kind, b64decode(data, validate=True)))


def _writes(given: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(channel, _loaded(value)) for channel, value in given]
