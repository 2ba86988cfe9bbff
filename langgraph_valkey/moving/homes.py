"""Where threads live: any checkpointer, behind what moving them needs.

A home tells its threads, gives and takes cargoes, and has a *mark* for each thread, which
changes with it: by that a copier knows what to look at again. This module has the
interface, and the home that asks a checkpointer for nothing but LangGraph's own methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    Checkpoint,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from langgraph_valkey.boundary.carrying import Cargo, address
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.moving.cargo import Address, Reckoning, digest, require_lines, tasks_in
from langgraph_valkey.moving.opaque import NotCarried


class Home(ABC):
    """Some place where threads live.

    Attributes:
        name: What it is and where, for people: without a password.
        identity: The same for two homes only if they hold the same threads.
        closing: What is closed with it.
    """

    def __init__(self, name: str, identity: str) -> None:
        self.name = name
        self.identity = identity
        self.closing = ExitStack()

    @abstractmethod
    def threads(self) -> Iterator[str]:
        """Every thread, each once, in no order."""

    @abstractmethod
    def addresses(self, thread: str) -> list[Address]:
        """Its checkpoints, the oldest of each namespace first."""

    @abstractmethod
    def cargoes(self, thread: str, wanted: Collection[Address] | None = None) -> Iterator[Any]:
        """Checkpoints with their writes, in the order of `addresses`; all if not said which.

        One that has gone meanwhile is left out.
        """

    @abstractmethod
    def heads(self, thread: str) -> dict[str, str]:
        """With which checkpoint the thread goes on, in each namespace."""

    @abstractmethod
    def mark(self, thread: str) -> str:
        """What changes whenever the thread does; '' if there is no such thread."""

    @abstractmethod
    def prints(self, thread: str) -> dict[Address, bytes]:
        """What it gives back of each checkpoint, in short.

        Raises:
            NotCarried: A delta channel can't be rebuilt from what is there.
        """

    @abstractmethod
    def histories(self, thread: str, heads: Mapping[str, str]) -> str:
        """What it gives back of the delta channels at these heads, in short."""

    @abstractmethod
    def put(self, thread: str, cargoes: Iterable[Any], heads: Mapping[str, str]) -> None:
        """Store checkpoints. Those that are there already may come again.

        Args:
            thread: The thread.
            cargoes: The checkpoints, as `cargoes` gave them.
            heads: With which of them the thread is to go on.
        """

    @abstractmethod
    def delete(self, thread: str) -> None:
        """Delete a thread."""

    def unsettled(self) -> int:
        """How many writes may yet be lost; `close` waits for them."""
        return 0

    def close(self) -> None:
        """Close what was opened for it."""
        self.closing.close()


class SaverHome(Home):
    """A checkpointer, asked by LangGraph's own methods.

    Args:
        saver: A checkpointer with blocking methods.
        name: As of `Home`.
        identity: As of `Home`.
    """

    def __init__(self, saver: BaseCheckpointSaver[Any], name: str, identity: str) -> None:
        super().__init__(name, identity)
        self.saver = saver

    @property
    def serde(self) -> SerializerProtocol:
        """By what values are stored."""
        return self.saver.serde

    def threads(self) -> Iterator[str]:
        """See `Home.threads`."""
        names = (str(found.config["configurable"]["thread_id"]) for found in self.saver.list(None))
        yield from dict.fromkeys(names)

    def addresses(self, thread: str) -> list[Address]:
        """See `Home.addresses`."""
        found = self.saver.list({"configurable": {"thread_id": thread}})
        places = (each.config["configurable"] for each in found)
        return sorted({(at.get("checkpoint_ns", ""), at["checkpoint_id"]) for at in places})

    def cargoes(self, thread: str, wanted: Collection[Address] | None = None) -> Iterator[Cargo]:
        """See `Home.cargoes`."""
        for at in self.addresses(thread):
            if wanted is None or at in wanted:
                cargo = self.cargo(thread, at)
                if cargo is not None:
                    yield cargo

    def cargo(self, thread: str, at: Address) -> Cargo | None:
        """One checkpoint with its writes."""
        found = self.saver.get_tuple(address(thread, *at))
        return None if found is None else Cargo(found, tasks_in(found.pending_writes))

    def heads(self, thread: str) -> dict[str, str]:
        """See `Home.heads`."""
        heads = {}
        for namespace in dict.fromkeys(namespace for namespace, _ in self.addresses(thread)):
            found = self.saver.get_tuple(address(thread, namespace))
            if found is not None:
                heads[namespace] = found.checkpoint["id"]
        return heads

    def mark(self, thread: str) -> str:
        """See `Home.mark`; all of the thread is read for it."""
        reckoned = self._reckoned(thread)
        heads = self.heads(thread) if reckoned.prints else {}
        return digest(self.serde, [sorted(reckoned.prints.items()), heads]).hex() if heads else ""

    def prints(self, thread: str) -> dict[Address, bytes]:
        """See `Home.prints`."""
        reckoned = self._reckoned(thread)
        require_lines(thread, reckoned.lines)
        return reckoned.prints

    def _reckoned(self, thread: str) -> Reckoning:
        reckoning = Reckoning(self.serde)
        for cargo in self.cargoes(thread):
            reckoning.add(cargo)
        return reckoning

    def histories(self, thread: str, heads: Mapping[str, str]) -> str:
        """See `Home.histories`."""
        told: list[Any] = []
        for at in sorted(heads.items()):
            cargo = self.cargo(thread, at)
            counted = cargo.found.metadata.get("counters_since_delta_snapshot") if cargo else ()
            for name, history in sorted(self._history(thread, at, sorted(counted or ())).items()):
                writes = [(each[0], digest(self.serde, each[2])) for each in history["writes"]]
                seed = digest(self.serde, history["seed"]) if "seed" in history else b""
                told.append([*at, name, seed, writes])
        return digest(self.serde, told).hex()

    def _history(
        self, thread: str, at: Address, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        if not channels:
            return {}
        return self.saver.get_delta_channel_history(config=address(thread, *at), channels=channels)

    def put(self, thread: str, cargoes: Iterable[Cargo], heads: Mapping[str, str]) -> None:
        """See `Home.put`.

        Raises:
            NotCarried: A thread that is kept so goes on from the highest id, and this one
                has another head.
        """
        for cargo in cargoes:
            head = heads.get(cargo.namespace, cargo.id)
            if cargo.id > head:
                raise NotCarried(
                    f"thread {thread!r} goes on from {head!r}, beside which a failover left "
                    f"{cargo.id!r}, and here it would go on from that: delete the branch that is "
                    "not wanted first"
                )
            self._put_writes(thread, cargo)
            self._put_checkpoint(thread, cargo)

    def _put_writes(self, thread: str, cargo: Cargo) -> None:
        where = address(thread, cargo.namespace, cargo.id)
        for task in cargo.tasks:
            for some in (task.special, task.ordinary):
                if some:
                    self.saver.put_writes(where, some, task.task_id, task.path)

    def _put_checkpoint(self, thread: str, cargo: Cargo) -> None:
        given = cargo.found.checkpoint
        copied = cast(Checkpoint, {**given, "channel_values": dict(given["channel_values"])})
        # All with a value as new: nobody knows which ones it has. A value's absence is no
        # news: InMemorySaver would take it for emptied, also where an ancestor has it.
        versions = {
            k: v for k, v in given["channel_versions"].items() if k in copied["channel_values"]
        }
        parent = address(thread, cargo.namespace, cargo.parent_id)
        self.saver.put(parent, copied, cargo.found.metadata, versions)

    def delete(self, thread: str) -> None:
        """See `Home.delete`."""
        self.saver.delete_thread(thread)


def require_blocking(saver: BaseCheckpointSaver[Any]) -> None:
    """Raise unless a checkpointer can be asked without an event loop.

    Raises:
        ConfigurationError: It can't.
    """
    own = type(saver).put is not BaseCheckpointSaver.put
    if not own or hasattr(saver, "loop"):
        raise ConfigurationError(
            f"{type(saver).__name__} belongs to an event loop: give the blocking class of the same "
            "checkpointer (PostgresSaver, SqliteSaver)"
        )
