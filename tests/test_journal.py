"""What is kept until it is durable: within bounds, on disk, and past the end of a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey import limits
from langgraph_valkey.local import LocalCluster, LocalValkey
from tests.faces import config
from tests.failover_ground import (
    FAST_MS,
    Party,
    join,
    replace_killed,
    threads_in,
    total,
    until,
)

MIB = 1024 * 1024
BLOB_BYTES = 256 * 1024
BOUND_S = 0.5


@pytest.fixture
def server() -> Iterator[LocalValkey]:
    """One server, to be killed."""
    with LocalValkey() as started:
        yield started


async def blobs(party: Party, first: int, count: int) -> None:
    """Put checkpoints of what can't be compressed, each in a thread of its own."""
    for number in range(first, first + count):
        await party.twin.step(f"t{number}", number, blob=os.urandom(BLOB_BYTES))


@pytest.mark.parametrize("kind", ["sync"])
async def test_what_has_no_room_is_counted_and_told_once(
    kind: str, server: LocalValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that the journal fills up; and the report names what could not be restored."""
    monkeypatch.setattr(limits, "MISSING_S", 0.3)
    bounds = {"journal_bytes_max": MIB, "lag_bound_s": 2 * BOUND_S}
    async with join(kind, server.url, key_prefix=prefix, **bounds) as party:
        await blobs(party, 1, 3)
        assert party.saver.health().uncovered == 0
        await blobs(party, 4, 4)
        health = party.saver.health()
        assert health.uncovered == 4
        assert health.journal_entries == 7
        assert health.journal_bytes <= MIB
        assert party.uncovered == [1]
        await until(party.is_durable)
        assert party.saver.health().journal_bytes == 0
        await blobs(party, 11, 6)
        assert party.saver.health().uncovered == 7
        assert party.uncovered == [1, 5]
        server.kill()
        server.restart()
        await until(lambda: party.reports)
        [report] = party.reports
        assert (report.replayed, report.uncovered) == (3, 3)
        assert set(report.incomplete) == {"t11", "t12", "t13"}
        await party.twin.check("t14", "t15", "t16")


@pytest.mark.parametrize("kind", ["async"])
async def test_what_has_no_room_goes_to_the_spool(
    kind: str, server: LocalValkey, prefix: str, tmp_path: Path
) -> None:
    """And comes back from there."""
    bounds: dict[str, Any] = {"journal_bytes_max": MIB, "lag_bound_s": BOUND_S, "drain_s": 9.0}
    async with join(kind, server.url, key_prefix=prefix, spool_dir=tmp_path, **bounds) as party:
        await blobs(party, 1, 10)
        health = party.saver.health()
        assert (health.journal_entries, health.uncovered) == (10, 0)
        assert BLOB_BYTES < health.journal_bytes <= MIB
        server.kill()
        server.restart()
        await until(lambda: party.reports)
        [report] = party.reports
        assert (report.replayed, report.uncovered, report.incomplete) == (10, 0, ())
        await party.twin.check()
    assert party.uncovered == []
    assert list(tmp_path.glob("*.spool")) == []


# --- past the end of a process --------------------------------------------------------


@contextmanager
def writer(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """This module as a program: it writes a thread a line it is given, and says when."""
    command = [sys.executable, "-m", "tests.test_journal", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def written(process: subprocess.Popen[str], threads: list[str]) -> None:
    """Have it write a step to each thread, and wait until all are acknowledged."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(*threads, sep=",", file=process.stdin, flush=True)
    assert process.stdout.readline() == "acknowledged\n"


async def test_a_spool_outlives_its_process(prefix: str, tmp_path: Path) -> None:
    with (
        LocalCluster(durability="async", lag_bound_s=BOUND_S, node_timeout_ms=FAST_MS) as cluster,
        writer(cluster.url, prefix, str(tmp_path)) as process,
    ):
        leaves: dict[str, Any] = {"lag_bound_s": BOUND_S, "drain_s": 9.0}
        threads = threads_in(cluster, prefix, 0, 3)
        await asyncio.to_thread(written, process, threads)
        await asyncio.to_thread(cluster.hold_log, 0)
        await asyncio.to_thread(written, process, threads)
        process.send_signal(signal.SIGKILL)
        process.wait()
        cluster.kill_primary(0)
        await asyncio.to_thread(replace_killed, cluster)
        async with join("sync", cluster.url, key_prefix=prefix) as bystander:
            # The second step is lost; without a spool nobody has it.
            [found] = [await bystander.face.aget_tuple(config(each)) for each in threads[:1]]
            assert found is not None
            assert found.metadata["step"] == 1
        async with join(
            "async", cluster.url, key_prefix=prefix, spool_dir=tmp_path, **leaves
        ) as heir:
            for thread, step in zip(threads, (4, 5, 6), strict=True):
                head = await heir.face.aget_tuple(config(thread))
                assert head is not None
                assert head.metadata["step"] == step
                assert head.pending_writes == [(f"task {step}", "items", [step])]
                assert head.checkpoint["channel_values"]["short"] == step
            await until(lambda: heir.reports)
            assert total(heir.reports, "replayed") == 2 * len(threads)
            assert heir.saver.health().journal_entries > 0
        assert list(tmp_path.glob("*.spool")) == []


async def write(url: str, prefix: str, spool_dir: str) -> None:
    party = Party(
        "sync", url, key_prefix=prefix, spool_dir=spool_dir, durability="async", lag_bound_s=60
    )
    for line in sys.stdin:
        await party.step(*line.rstrip("\n").split(","))
        print("acknowledged", flush=True)


if __name__ == "__main__":
    asyncio.run(write(*sys.argv[1:]))
