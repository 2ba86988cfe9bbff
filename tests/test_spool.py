"""The spool: what `add` confirmed outlives its process, and goes to one other."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langgraph_valkey import limits
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.loss_window.spool import ROW_BYTES, Spool
from langgraph_valkey.loss_window.spool_file import Row, SpoolFile
from tests.spools import MIB, contents, left_behind, names, row

ODD_NAMES = ["", "plain", "nul\0inside", "lone\ud800surrogate", "ünïcode/../{x}", "'; DROP--"]

ADD_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from langgraph_valkey.loss_window.spool import Row, Spool

spool = Spool(Path(sys.argv[1]), bytes_max=1 << 30)
for serial in range(1, 1_000_000):
    added = spool.add(Row(serial, f"thread-{serial % 7}", time.time(), b"%d;" % serial * 900))
    if serial % 5 == 0:
        spool.discard([serial - 3])
    print(serial if added else "refused", flush=True)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "new" / "spool dir %?#"


@pytest.fixture
def spool(directory: Path) -> Iterator[Spool]:
    spool = Spool(directory, bytes_max=64 * MIB)
    yield spool
    spool.close()


# --- keeping rows -------------------------------------------------------------------


def test_rows_come_back_as_they_were(spool: Spool) -> None:
    rows = [
        Row(serial, name, serial / 7, os.urandom(serial * 999))
        for serial, name in enumerate(ODD_NAMES)
    ]
    assert all(spool.add(each) for each in reversed(rows))
    assert spool.rows([5, 1, 2, 77, 4, 3, 0]) == rows
    assert spool.rows([]) == []
    spool.forget("nul\0inside")
    spool.discard([0, 5])
    assert spool.rows(range(6)) == [rows[1], rows[3], rows[4]]
    assert spool.entries == 3


def test_it_keeps_to_its_bound(directory: Path) -> None:
    body = bytes(1000)
    cost = len(body) + 1 + ROW_BYTES
    spool = Spool(directory, bytes_max=3 * cost)
    assert [spool.add(row(serial, body=body)) for serial in range(5)] == [True] * 3 + [False] * 2
    assert (spool.entries, spool.bytes) == (3, 3 * cost)
    spool.discard([1, 4, 99])
    assert (spool.entries, spool.bytes) == (2, 2 * cost)
    assert spool.add(row(7, body=body))
    spool.forget("t", up_to_serial=2)
    assert (spool.entries, spool.bytes) == (1, cost)
    assert [each.serial for each in spool.rows(range(9))] == [7]
    spool.discard(range(1000))
    assert (spool.entries, spool.bytes) == (0, 0)
    spool.close()
    assert names(directory) == []


def test_closing_leaves_what_is_not_empty_and_ends_its_use(directory: Path) -> None:
    spool = Spool(directory, bytes_max=MIB)
    spool.add(row(1))
    spool.close()
    assert len(names(directory)) == 1
    assert not spool.add(row(2))
    assert spool.rows([1]) == []
    spool.discard([1])
    spool.forget("t")
    spool.close()
    assert len(names(directory)) == 1


def test_only_the_user_can_read_it(directory: Path, spool: Spool) -> None:
    before = os.umask(0)
    try:
        other = Spool(directory, bytes_max=MIB)
        other.add(row(1))
    finally:
        os.umask(before)
    spool.add(row(1))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert len(modes) == 4
    assert any(name.endswith("-wal") for name in modes)
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    other.close()


def test_a_directory_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(ConfigurationError, match=str(wrong)):
            Spool(wrong, bytes_max=MIB)


def test_many_threads_use_it_at_once(spool: Spool) -> None:
    def work(number: int) -> None:
        mine = range(number * 100, number * 100 + 100)
        for serial in mine:
            assert spool.add(row(serial, f"t{number}", b"%d" % serial))
        spool.discard(mine[::2])
        assert [each.body for each in spool.rows(mine)] == [b"%d" % n for n in mine[1::2]]
        if number % 2:
            spool.forget(f"t{number}")

    failed: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=guarded, args=(number,)) for number in range(6)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert failed == []
    assert spool.entries == 3 * 50
    assert spool.bytes == sum(2 + len(each.body) + ROW_BYTES for each in spool.rows(range(600)))


@settings(derandomize=True, max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_it_does_what_a_dict_does(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("model")
    spool, model, serial = Spool(directory, bytes_max=50_000), dict[int, Row](), 0
    sizes = st.sampled_from([0, 1, 100, 3000, 5000, 20_000])
    for _ in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["add", "add", "add", "discard", "forget", "restart"])):
            case "add":
                serial += data.draw(st.integers(1, 3))
                new = row(serial, data.draw(st.sampled_from(ODD_NAMES)), bytes(data.draw(sizes)))
                if spool.add(new):
                    model[serial] = new
                else:
                    assert spool.bytes + len(new.body) + ROW_BYTES + 20 > 50_000
            case "discard":
                gone = data.draw(st.sets(st.integers(0, serial + 1)))
                spool.discard(gone)
                model = {key: each for key, each in model.items() if key not in gone}
            case "forget":
                name = data.draw(st.sampled_from(ODD_NAMES))
                most = data.draw(st.none() | st.integers(0, serial + 1))
                spool.forget(name, most)
                limit = serial if most is None else most
                model = {k: r for k, r in model.items() if r.thread != name or k > limit}
            case "restart":
                spool.close()
                spool = Spool(directory, bytes_max=50_000)
                for adopted in spool.adopt():
                    rows = list(adopted.rows())
                    assert rows == [model[key] for key in sorted(model)]
                    assert all(spool.add(each) for each in rows)
                    adopted.finish()
        assert spool.entries == len(model)
        assert spool.rows(range(serial + 2)) == [model[key] for key in sorted(model)]
    spool.discard(list(model))
    assert (spool.bytes, spool.entries) == (0, 0)
    spool.close()
    assert names(directory) == []


# --- leaving no trace ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_a_forgotten_thread_leaves_no_trace(directory: Path, spool: Spool, seed: int) -> None:
    """Rows are of all sizes, so that SQLite moves them between pages, where copies stay."""
    draw = random.Random(seed)
    alive: dict[int, int] = {}
    written: dict[int, set[int]] = {thread: set() for thread in range(5)}
    for serial in range(1, 400):
        thread = draw.randrange(5)
        size = draw.choice([1, 3, draw.randrange(60), draw.randrange(1, 400)])
        assert spool.add(row(serial, f"<thread {thread}>", b"<%012d>" % serial * size))
        alive[serial] = thread
        written[thread].add(serial)
        if draw.random() < 0.1:
            gone = draw.sample(sorted(alive), draw.randrange(len(alive)))
            spool.discard(gone)
            for each in gone:
                del alive[each]
        if draw.random() < 0.03:
            spool.forget(f"<thread {thread}>")
            alive = {each: of for each, of in alive.items() if of != thread}
            found = contents(directory)
            assert f"<thread {thread}>".encode() not in found
            assert [each for each in written[thread] if b"%012d>" % each in found] == []
    assert spool.entries == len(alive)


def test_forgetting_up_to_a_row_keeps_what_came_later(directory: Path, spool: Spool) -> None:
    spool.add(row(1, "t", b"before the deletion"))
    spool.add(row(2, "t", b"begun anew"))
    spool.add(row(3, "other", b"of another thread"))
    spool.discard([3])
    spool.forget("t", up_to_serial=1)
    assert b"before the deletion" not in contents(directory)
    assert [each.body for each in spool.rows([1, 2, 3])] == [b"begun anew"]


def test_an_empty_spool_gives_its_room_back(directory: Path, spool: Spool) -> None:
    for serial in range(300):
        spool.add(row(serial, body=b"secret" * 3000))
    assert len(contents(directory)) > 5 * MIB
    spool.discard(range(300))
    assert b"secret" not in contents(directory)
    assert len(contents(directory)) < MIB


# --- adoption -----------------------------------------------------------------------


def test_what_a_killed_process_had_added_is_adopted(directory: Path, spool: Spool) -> None:
    program = [sys.executable, "-c", ADD_UNTIL_KILLED, str(directory)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        lines = [owner.stdout.readline() for _ in range(500)]
        assert spool.adopt() == []
        owner.send_signal(signal.SIGKILL)
        lines += owner.stdout.readlines()
    confirmed = {int(line) for line in lines if line.endswith("\n")}
    # It may have been killed after it had discarded one, and before it said so.
    last = max(confirmed) + 1
    discarded = {serial - 3 for serial in confirmed | {last} if serial % 5 == 0}
    [adopted] = spool.adopt()
    rows = list(adopted.rows())
    found = [each.serial for each in rows]
    assert found == sorted(found)
    assert confirmed - discarded <= set(found)
    assert len(set(found) - confirmed) <= 1  # the one that it was adding
    assert all(each.body == b"%d;" % each.serial * 900 for each in rows)
    assert (adopted.entries, adopted.discarded) == (len(rows), 0)
    adopted.finish()
    assert not adopted.path.exists()
    assert spool.adopt() == []


def test_a_living_owner_keeps_its_file(directory: Path, spool: Spool) -> None:
    spool.add(row(1))
    other = Spool(directory, bytes_max=MIB)
    assert other.adopt() == []
    assert spool.adopt() == []
    assert spool.add(row(2))
    other.close()


def test_of_many_adopters_one_gets_the_file(directory: Path) -> None:
    for _ in range(20):
        left_behind(directory, row(1), row(2))
        adopters = [Spool(directory, bytes_max=MIB) for _ in range(4)]
        gate, got = threading.Barrier(4), list[list[int]]()

        def adopt(spool: Spool, gate: threading.Barrier = gate, got: list = got) -> None:
            gate.wait()
            for adopted in spool.adopt():
                got.append([each.serial for each in adopted.rows()])
                adopted.finish()

        threads = [threading.Thread(target=adopt, args=(each,)) for each in adopters]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [[1, 2]]
        for each in adopters:
            each.close()
    assert names(directory) == []


def test_a_released_file_goes_to_the_next(directory: Path, spool: Spool) -> None:
    left_behind(directory, row(1), row(2))
    [adopted] = spool.adopt()
    assert spool.adopt() == []
    adopted.release()
    [again] = spool.adopt()
    assert [each.serial for each in again.rows()] == [1, 2]
    again.finish()


def test_rows_older_than_a_tombstone_are_discarded(directory: Path, spool: Spool) -> None:
    lifetime_s = limits.TOMBSTONE_TTL_MS / 1000
    left_behind(directory, row(1, age_s=lifetime_s + 60), row(2, age_s=lifetime_s - 60), row(3))
    left_behind(directory, row(4, age_s=lifetime_s * 9))
    found = spool.adopt()
    assert sorted((a.discarded, [each.serial for each in a.rows()]) for a in found) == [
        (1, []), (1, [2, 3]),
    ]  # fmt: skip
    for each in found:
        each.finish()
    assert len(list(directory.glob("*.spool"))) == 1


def test_what_an_owner_left_before_its_first_row_is_removed(directory: Path, spool: Spool) -> None:
    (directory / "0.spool").touch()
    SpoolFile.create(directory).close()
    with sqlite3.connect(directory / "1.spool", isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    assert len(list(directory.glob("*.spool"))) == 4
    assert spool.adopt() == []
    assert len(list(directory.glob("*.spool"))) == 1
