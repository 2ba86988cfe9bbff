"""The spool in trouble: forks, full disks, and files that it can't read."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from langgraph_valkey.loss_window import spool_file
from langgraph_valkey.loss_window.spool import Spool
from langgraph_valkey.loss_window.spool_file import SpoolFile
from tests.spools import MIB, contents, left_behind, names, row

FORKING = """
import os, sys, threading, warnings
from pathlib import Path
from langgraph_valkey.loss_window.spool import Row, Spool

warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork beside other threads
directory = Path(sys.argv[1])
spool = Spool(directory, bytes_max=1 << 30)
abandoned = Spool(directory, bytes_max=1 << 30)
abandoned.add(Row(7, "t", 7e9, b"abandoned"))
abandoned.close()
[adopted] = spool.adopt()
stop = threading.Event()

def add_all_the_time():
    serial = 1
    while not stop.is_set():
        assert spool.add(Row(serial, "t", 7e9, b"parent"))
        serial += 1
    print("parent added", serial - 1, flush=True)

adding = threading.Thread(target=add_all_the_time, daemon=True)
adding.start()
for _ in range(20):
    child = os.fork()
    if not child:
        assert (spool.entries, spool.bytes, spool.rows([1])) == (0, 0, [])
        spool.discard([1])
        spool.forget("t")
        found = [row.body for each in spool.adopt() for row in each.rows()]
        assert set(found) <= {b"child"}, found  # of children that are gone
        assert spool.add(Row(1, "t", 7e9, b"child"))
        adopted.finish()
        sys.exit(0 if spool.entries == 1 else 1)  # with all that an interpreter does at its end
    assert os.waitpid(child, 0)[1] == 0
stop.set()
adding.join()
assert [each.body for each in adopted.rows()] == [b"abandoned"]
adopted.finish()
orphan = os.fork()
if not orphan:
    print("orphan", flush=True)
    os.read(0, 1)  # outlives its parent
    os._exit(0)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def spool(directory: Path) -> Iterator[Spool]:
    spool = Spool(directory, bytes_max=64 * MIB)
    yield spool
    spool.close()


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {each.levelno for each in caplog.records} <= {logging.WARNING}
    found = [each.getMessage() for each in caplog.records]
    caplog.clear()
    return found


# --- forks --------------------------------------------------------------------------


def test_a_child_has_a_file_of_its_own_and_holds_no_other(directory: Path, spool: Spool) -> None:
    """Forked in the middle of adding; the last child lives on when its parent is killed."""
    program = [sys.executable, "-c", FORKING, str(directory)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        program, stdin=pipe, stdout=pipe, text=True, start_new_session=True
    ) as parent:
        too_long = threading.Timer(20, os.killpg, (parent.pid, signal.SIGKILL))
        too_long.start()
        try:
            assert parent.stdout is not None
            lines = sorted(parent.stdout.readline() for _ in range(2))
            assert parent.wait(timeout=30) == -signal.SIGKILL
            assert lines[0] == "orphan\n"
            added = int(lines[1].removeprefix("parent added "))
            found = [list(adopted.rows()) for adopted in spool.adopt()]
        finally:
            too_long.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
    [of_parent] = [rows for rows in found if rows[0].body == b"parent"]
    assert [each.serial for each in of_parent] == list(range(1, added + 1))
    found.remove(of_parent)
    assert [[each.body for each in rows] for rows in found] == [[b"child"]] * 20


# --- disks that fail ----------------------------------------------------------------


def limited(pages: int) -> Callable[[Path], sqlite3.Connection]:
    """Connections to files that can't grow: the disk is full."""
    connect = spool_file._connect

    def connected(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        return connection

    return connected


def test_a_full_disk_refuses_rows_and_breaks_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spool_file, "_connect", limited(pages=100))
    spool = Spool(directory, bytes_max=64 * MIB)
    added = [spool.add(row(serial, body=b"secret" * 3000)) for serial in range(100)]
    kept = added.index(False)
    assert 10 < kept < 25
    assert added == [True] * kept + [False] * (100 - kept)
    assert (spool.entries, len(spool.rows(range(100)))) == (kept, kept)
    [said] = warned(caplog)
    assert str(directory) in said
    assert "full" in said
    assert "secret" not in said
    spool.discard(range(5))
    assert spool.add(row(200, body=bytes(18_000)))
    assert spool.entries == kept - 4
    spool.close()
    assert warned(caplog) == []


def test_what_a_failing_disk_did_not_remove_is_removed_later(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(directory, bytes_max=64 * MIB)
    for serial in range(200):
        spool.add(row(serial, f"t{serial % 2}", b"secret%d" % (serial % 2) * 100))
    execute = SpoolFile.execute

    def failing(file: SpoolFile, sql: str, *values: object) -> list:
        if sql.startswith(broken):
            raise sqlite3.OperationalError("disk I/O error")
        return execute(file, sql, *values)

    monkeypatch.setattr(SpoolFile, "execute", failing)
    broken: tuple[str, ...] = ("DELETE", "INSERT")
    spool.discard(range(100, 200))
    spool.forget("t1")
    assert not spool.add(row(300))
    assert spool.entries == 200
    broken = ("VACUUM",)
    spool.discard([])
    assert spool.entries == 50
    assert b"secret1" in contents(directory)
    broken = ("nothing",)
    spool.discard([])
    assert b"secret1" not in contents(directory)
    assert [each.serial for each in spool.rows(range(200))] == list(range(0, 100, 2))
    assert len(warned(caplog)) == 1
    spool.discard(range(100))
    spool.close()
    assert names(directory) == []


def test_a_directory_that_vanishes_breaks_no_put(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "gone", bytes_max=MIB)
    shutil.rmtree(tmp_path / "gone")
    spool.after_fork()  # so that it makes a file
    assert not spool.add(row(1))
    assert spool.adopt() == []
    spool.close()
    assert len(warned(caplog)) == 1


# --- files that can't be read -------------------------------------------------------


def damage_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 4096 + path.read_bytes()[4096:])


def damage_schema(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"CREATE TABLE", b"CREATE TIBLE"))


def cut_to_nothing(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(b"a log")
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_header, damage_schema, cut_to_nothing])
def test_a_damaged_file_is_set_aside(
    directory: Path, spool: Spool, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = left_behind(directory, row(1, body=b"secret"))
    whole = left_behind(directory, row(2))
    damage(path)
    log = Path(f"{path}-wal").exists()
    [adopted] = spool.adopt()
    assert adopted.path == whole
    adopted.finish()
    [said] = warned(caplog)
    assert str(path) in said
    assert str(path.with_suffix(".damaged")) in said
    assert "secret" not in said
    assert not path.exists()
    assert path.with_suffix(".damaged").exists()
    assert Path(f"{path.with_suffix('.damaged')}-wal").exists() == log
    assert spool.adopt() == []
    assert warned(caplog) == []


def test_of_a_file_that_is_damaged_in_part_the_rest_is_read(
    directory: Path, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    path = left_behind(directory, *(row(serial, body=b"%d" % serial * 9000) for serial in range(9)))
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("UPDATE entries SET thread = x'ff' WHERE serial = 2")
        connection.execute("UPDATE entries SET body = 'text' WHERE serial = 5")
    connection.close()
    [adopted] = spool.adopt()
    assert [each.serial for each in adopted.rows()] == [0, 1, 3, 4, 6, 7, 8]
    assert warned(caplog) == []
    adopted.finish()
    assert "2 of its entries" in warned(caplog)[0]
    assert path.with_suffix(".damaged").exists()


def test_a_file_of_another_release_or_program_is_left_alone(
    directory: Path, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    newer = left_behind(directory, row(1))
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with sqlite3.connect(directory / "notes.spool") as connection:
        connection.execute("CREATE TABLE notes (text)")
    connection.close()
    before = [path.read_bytes() for path in (newer, directory / "notes.spool")]
    assert spool.adopt() == []
    said = warned(caplog)
    assert len(said) == 2
    assert all("another release" in each for each in said)
    assert [path.read_bytes() for path in (newer, directory / "notes.spool")] == before


def test_a_file_of_another_user_is_left_alone(
    directory: Path,
    spool: Spool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = left_behind(directory, row(1))
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 12345)
        assert spool.adopt() == []
    assert "another user" in warned(caplog)[0]
    [adopted] = spool.adopt()
    assert [each.serial for each in adopted.rows()] == [1]
    adopted.finish()
    assert not path.exists()


def test_what_is_no_file_is_left_alone(
    directory: Path, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    (directory / "folder.spool").mkdir()
    elsewhere = left_behind(directory, row(1)).rename(directory / "elsewhere")
    (directory / "link.spool").symlink_to(elsewhere)
    assert spool.adopt() == []
    assert len(warned(caplog)) == 2
    assert elsewhere.exists()


def test_a_file_that_is_removed_under_an_adopter_is_not_taken(directory: Path) -> None:
    """The lock of a file without a name says nothing."""
    path = left_behind(directory, row(1))
    late = os.open(path, os.O_RDWR)
    first = SpoolFile.take(path)
    assert first is not None
    first.remove()
    assert SpoolFile._held(path, late) is None
    with pytest.raises(OSError):
        os.fstat(late)  # closed
    with pytest.raises(ValueError, match="closed"):
        first.execute("SELECT 1")


def test_a_new_file_that_an_adopter_takes_first_is_replaced(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[SpoolFile] = []

    def adopter(descriptor: int, mode: int) -> None:
        """Comes between the making of a file and its lock."""
        if not taken:
            [path] = directory.glob("*.spool")
            taken.append(SpoolFile.take(path))  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "fchmod", adopter)
        file = SpoolFile.create(directory)
    assert file.path != taken[0].path
    taken[0].remove()
    file.remove()
    assert names(directory) == []
