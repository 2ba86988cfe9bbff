"""`LocalValkey`: one real Valkey in this process's care, as one-shard cluster.

Cluster mode is on, so that what runs on it runs unchanged on a managed cluster.

Keeping data: with a directory, every command is in an append-only file before it
is answered (flushed to disk once a second), so a crash of the server loses nothing
and only a crash of the machine can lose the last second; a clean stop loses
nothing at all. Without one, it lives in a temporary directory, in memory only.

The slots' owner is written anew at each start, so a restart never depends on what
the last one left of its cluster file, and the port may differ from start to start.

A directory has one server at a time: the *server process* holds an advisory lock
on a file in it, so the lock lasts exactly as long as the server, whatever happens
to the Python process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.local.lifecycle import Lifecycle
from langgraph_valkey.local.node import (
    Node,
    PortTakenError,
    checked_options,
    free_ports,
    wait_until,
)
from langgraph_valkey.local.resp import Argument, Reply
from langgraph_valkey.local.topology import Member, birth_file, ghost_id, own_id
from langgraph_valkey.local.watchdog import watchdog

LOCK_DEADLINE_S = 1.0
"""How long to wait for a directory's lock: the server of a Python process that has
just been killed needs a moment to end."""

PORT_TRIES = 3
"""How often a start is tried with other ports, when one turns out to be taken."""

_PERSISTENT = {"appendonly": "yes", "appendfsync": "everysec"}


class LocalValkey(Lifecycle):
    """A real Valkey server for development, tests and single-machine use.

    Use it as a context manager, plain or async, or call `start` and `stop`. It ends
    with this Python process at the latest, however that ends.

    Args:
        data_dir: Where to keep data, made if need be; None keeps it in memory, gone
            at `stop`.
        options: Further server options, written as in ``valkey.conf``.

    Raises:
        ConfigurationError: An option that can't be given here.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        *,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._data_dir = None if data_dir is None else Path(data_dir).expanduser().resolve()
        self._options = checked_options(options)
        self._node: Node | None = None
        self._temporary: Path | None = None
        self._owner = os.getpid()

    def __repr__(self) -> str:
        state = "stopped" if self._node is None else self._node.address
        return f"LocalValkey({state})"

    @property
    def port(self) -> int:
        """The port for clients; it stays the same over `restart`."""
        return self._started().port

    @property
    def pid(self) -> int | None:
        """The server's process id, or None when it does not run."""
        return self._node.pid if self._node else None

    @property
    def url(self) -> str:
        """``valkey://127.0.0.1:PORT``."""
        return f"valkey://127.0.0.1:{self.port}"

    def command(self, *args: Argument, timeout_s: float | None = None) -> Reply:
        """Send one command; return its reply (bytes, int, None or a list).

        Raises:
            ServerError: The server answered with an error.
            Unreachable: It does not run.
            OutcomeUnknown: It ended, or the time ran out, before it answered.
        """
        return self._started().command(*args, timeout_s=timeout_s)

    def start(self) -> Self:
        """Start the server and wait until it serves; does nothing when it runs.

        Raises:
            ConfigurationError: The `local` extra is missing, the directory is in use
                or no directory, or the server refused an option.
        """
        if self.pid is not None:
            return self
        directory = self._data_dir or self._temporary or self._new_directory()
        old = self._node
        lock = self._lock(directory)
        try:
            if old is not None:
                self._launch(directory, (old.port, old.bus_port), lock)
                return self
            for tries_left in reversed(range(PORT_TRIES)):
                first, second = free_ports(2)
                try:
                    self._launch(directory, (first, second), lock)
                    break
                except PortTakenError:
                    if not tries_left:
                        raise
        except BaseException:
            if old is None:
                self._remove_temporary()
            raise
        finally:
            # The server has the lock open as well, and is now the one to hold it.
            os.close(lock)
        return self

    def stop(self) -> None:
        """Shut the server down; what stands in a data directory stays."""
        if self._owner != os.getpid():
            return  # a forked copy: the server is the parent's
        if self._node is not None:
            if self._data_dir is None:
                self._node.kill()
            else:
                self._node.stop()
            self._node = None
        self._remove_temporary()

    def restart(self) -> Self:
        """Shut down cleanly and start again on the same port.

        Without a data directory the data is gone, as after any restart of such a
        server.

        Raises:
            ConfigurationError: As of `start`; also when the port was taken meanwhile.
        """
        if self._node is not None:
            self._node.stop()
        return self.start()

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash would; `restart` brings it back."""
        self._started().kill()

    def _started(self) -> Node:
        if self._node is None:
            raise Unreachable("the local server is not started: use `with`, or call start()")
        return self._node

    def _launch(self, directory: Path, ports: tuple[int, int], lock: int) -> None:
        cluster_file = directory / "nodes.conf"
        known = cluster_file.read_text("utf-8", "replace") if cluster_file.exists() else ""
        node_id = own_id(known) or os.urandom(20).hex()
        me = Member(node_id, shard=0, leads=True, port=ports[0], bus_port=ports[1])
        cluster_file.write_text(birth_file(me, [me], shards=1), encoding="utf-8")
        persistent = {} if self._data_dir is None else _PERSISTENT
        node = Node(directory, {**persistent, **self._options}, node_id=node_id, ports=ports)
        node.start(keep_open=(lock,))
        try:
            node.take_over(ghost_id(0))
        except BaseException:
            node.kill()
            raise
        self._node = node

    def _new_directory(self) -> Path:
        self._temporary = Path(tempfile.mkdtemp(prefix="langgraph-valkey-"))
        watchdog.note_directory(self._temporary)
        return self._temporary

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            watchdog.forget_directory(self._temporary)
            self._temporary = None

    def _lock(self, directory: Path) -> int:
        """Lock the directory; return the descriptor that holds the lock."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"{directory} can't be used as data directory ({error.strerror}): "
                "give a directory that can be made or written to"
            ) from error

        def locked() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        try:
            if wait_until(locked, LOCK_DEADLINE_S):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        raise ConfigurationError(
            f"another server runs on {directory}: stop it first, connect to it, or give "
            "another data directory"
        )
