"""Round trips and commands of each call in the steady state, counted at the server.

MONITOR shows the server every command that it runs, and marks those run by
scripts. Between two of our own markers stand exactly the commands of one call.
A pipeline is many commands in one round trip, so round trips are counted as the
server's read events (``total_reads_processed``), which for one small call after
the other are the same.

Our monitor asks each shard how it is once a second, over a connection of its own,
whatever the calls. What it sends is known by that connection's name, and left out.
"""

from __future__ import annotations

import re
import socket
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.contenders import line_up
from benchmarks.faces import FACES, Opened
from benchmarks.figures import Figure, Goal
from benchmarks.peers import AWS, PLAINREDIS
from benchmarks.servers import ValkeyStore
from benchmarks.session import Session
from benchmarks.workloads import KIB, Step, build_steps, growing_list, thread

AVERAGE_KIB = 2
WARM_UP = 10
CALLS, CALLS_QUICK = 100, 20
MARK = "bench-marker"
HOUSEKEEPING = {"CLIENT", "CLUSTER", "HELLO", "INFO", "PING", "SELECT", "COMMAND"}
ASIDE = "-monitor"
"""What the name of our monitor's connection ends in."""
LINE = re.compile(rb'\+\d+\.\d+ \[\d+ (\S+)\] "([^"]*)"(?: "([^"]*)")?')
OPERATIONS = ("put", "put_writes", "get_tuple")


class Monitor:
    """What a server runs, by MONITOR; a context manager."""

    def __init__(self, store: ValkeyStore) -> None:
        self._store = store
        self._socket = socket.create_connection((store.host, store.port), timeout=10)
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Monitor:
        self._socket.sendall(b"MONITOR\r\n")
        self._lines.readline()
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()
        self._socket.close()

    def until_marker(self) -> tuple[list[str], int]:
        """What clients sent before a marker of now; and how much our monitor sent.

        Commands that scripts run are left out.
        """
        self._store.command("ECHO", MARK)
        sent: list[tuple[str, str]] = []
        while True:
            line = LINE.match(self._lines.readline())
            if line is None:
                raise AssertionError("MONITOR said something unreadable, or ended")
            source, name, argument = line.groups()
            if argument == MARK.encode():
                break
            if not source.startswith((b"lua", b"script")):
                sent.append((source.decode(), name.decode().upper()))
        calls = [(source, name) for source, name in sent if name not in HOUSEKEEPING]
        aside = self._aside() if len(calls) > 1 else set()
        found = [name for source, name in calls if source not in aside]
        return found, len(calls) - len(found)

    def _aside(self) -> set[str]:
        """Addresses of connections that calls don't go over."""
        text = self._store.command("CLIENT", "LIST").decode()
        clients = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines()]
        return {each["addr"] for each in clients if each["name"].endswith(ASIDE)}


async def _one_call(who: Opened, operation: str, step: Step, config: Any, latest: Any) -> Any:
    if operation == "put":
        return await who.calls.put(config, step.checkpoint, step.metadata, step.new_versions)
    if operation == "put_writes":
        await who.calls.put_writes(config, step.writes, step.task_id)
    else:
        await who.calls.get_tuple(latest)
    return config


def _commands(
    who: Opened, store: ValkeyStore, steps: Sequence[Step], thread_id: str
) -> dict[str, list[list[str]]]:
    """For each operation the commands of each call, after a warm-up."""
    latest = config = thread(thread_id)
    seen: dict[str, list[list[str]]] = {operation: [] for operation in OPERATIONS}
    with Monitor(store) as monitor:
        for number, step in enumerate(steps):
            for operation in OPERATIONS:
                config = who.run(_one_call(who, operation, step, config, latest))
                commands, _ = monitor.until_marker()
                if number >= WARM_UP:
                    seen[operation].append(commands)
    return seen


def _reads(
    who: Opened, store: ValkeyStore, steps: Sequence[Step], thread_id: str
) -> dict[str, float]:
    """For each operation the server's read events a call."""
    latest = config = thread(thread_id)
    for step in steps[:WARM_UP]:
        for operation in OPERATIONS:
            config = who.run(_one_call(who, operation, step, config, latest))
    reads: dict[str, list[int]] = {operation: [] for operation in OPERATIONS}
    with Monitor(store) as monitor:
        for step in steps[WARM_UP:]:
            for operation in OPERATIONS:
                monitor.until_marker()
                before = store.info("stats", "total_reads_processed")
                config = who.run(_one_call(who, operation, step, config, latest))
                # The second INFO is itself one read.
                count = store.info("stats", "total_reads_processed") - before - 1
                _, aside = monitor.until_marker()
                if not aside:
                    reads[operation].append(count)
    return {operation: statistics.mean(counts) for operation, counts in reads.items()}


def measure(session: Session) -> list[Figure]:
    """Savers on Valkey, both faces."""
    trips = Figure(
        "roundtrips", "Round trips and commands a call, steady state, counted at the server"
    )
    calls = CALLS_QUICK if session.quick else CALLS
    items = growing_list("messages", AVERAGE_KIB * KIB, calls + WARM_UP, session.seed)
    for face in FACES:
        lined_up = line_up(session.servers, face, rivals=(AWS, PLAINREDIS))
        with session.opened(lined_up, trips) as opened:
            for who in opened:
                name, store = who.contender.name, who.contender.store
                session.progress(f"roundtrips: {face}, {name}")
                assert isinstance(store, ValkeyStore)
                steps = build_steps(items, who.steps.get_next_version)
                reads = _reads(who, store, steps, session.new_thread())
                steps = build_steps(items, who.steps.get_next_version)
                commands = _commands(who, store, steps, session.new_thread())
                for operation in OPERATIONS:
                    trip = trips.case(f"{operation}, {face}: round trips", "", Goal(1, "nothing"))
                    trip.add(name, reads[operation])
                for operation, each in commands.items():
                    total = sum(map(len, each)) / calls
                    trips.case(f"{operation}, {face}: commands", "").add(name, total)
                    if who.contender.role == "ours":
                        more = sum(len(sent) > 1 for sent in each) / calls * 100
                        row = trips.case(f"{operation}, {face}: calls that needed two", "%")
                        row.add(name, more)
                        kinds = Counter(word for sent in each for word in sent)
                        told = ", ".join(f"{word} {count}" for word, count in kinds.items())
                        trips.notes.append(f"{operation}, {face}: {calls} calls sent {told}.")
    return [trips]
