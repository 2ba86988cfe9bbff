"""The matrix of vectors, beside a plain list of them that is searched one by one."""

from __future__ import annotations

import builtins
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.items.ranking import MARGIN
from langgraph_valkey.vectors.matrix import ROWS_FIRST, Matrix
from tests.forks import holds_in_a_child

NAMES = st.sampled_from([f"n{at}" for at in range(ROWS_FIRST + 8)])
# Whole numbers, and few of them: ties are frequent, and none is a matter of rounding.
COORDINATES = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0])
TOLERANCE = 1e-5


class Beside(RuleBasedStateMachine):
    """Whatever is put, replaced and removed: a search finds what a plain one finds."""

    @initialize(dimension=st.integers(1, 5))
    def begin(self, dimension: int) -> None:
        self.dimension = dimension
        self.matrix: Matrix[int] = Matrix(dimension)
        self.plain: dict[str, tuple[np.ndarray, int]] = {}
        self.puts = 0

    def vector(self, data: st.DataObject) -> np.ndarray:
        size = self.dimension
        return np.array(data.draw(st.lists(COORDINATES, min_size=size, max_size=size)))

    @rule(name=NAMES, data=st.data(), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
    def put(self, name: str, data: st.DataObject, scale: float) -> None:
        vector = self.vector(data)
        if not vector.any():
            with pytest.raises(ValueError, match="direction"):
                self.matrix.put(name, vector, self.puts)
            return
        self.puts += 1
        self.matrix.put(name, vector * scale, self.puts)
        self.plain[name] = (vector / np.linalg.norm(vector), self.puts)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        assert self.matrix.remove(name) == (self.plain.pop(name, None) is not None)

    @precondition(lambda self: self.puts % 7 == 3)
    @rule()
    def clear(self) -> None:
        self.matrix.clear()
        self.plain.clear()
        self.puts += 1

    @rule(data=st.data(), count=st.integers(-1, ROWS_FIRST + 10), every=st.sampled_from([0, 1, 3]))
    def search(self, data: st.DataObject, count: int, every: int) -> None:
        vector = self.vector(data)

        def where(payload: int) -> bool:
            return payload % every == 0

        if not vector.any():
            with pytest.raises(ValueError, match="direction"):
                self.matrix.search(vector, count)
            return
        found = self.matrix.search(vector, count, where if every else None)
        unit = vector / np.linalg.norm(vector)
        scores = {
            name: float(row @ unit)
            for name, (row, payload) in self.plain.items()
            if not every or where(payload)
        }
        assert len(found) == max(0, min(count, len(scores)))
        for each in found:
            assert each.score == pytest.approx(scores[str(each.id)], abs=TOLERANCE)
            assert each.payload == self.plain[str(each.id)][1]
        assert len({each.id for each in found}) == len(found)
        best = sorted(scores.values(), reverse=True)[: len(found)]
        assert [each.score for each in found] == pytest.approx(best, abs=TOLERANCE)

    @invariant()
    def holds_the_same(self) -> None:
        assert len(self.matrix) == len(self.plain)
        for name, (_, payload) in self.plain.items():
            assert self.matrix.get(name) == payload
        assert self.matrix.get("absent") is None
        assert (
            self.matrix.nbytes == self.matrix._rows.nbytes >= 4 * self.dimension * len(self.plain)
        )


def test_it_finds_what_a_plain_search_finds() -> None:
    run_state_machine_as_test(
        Beside,
        settings=settings(derandomize=True, max_examples=80, stateful_step_count=60, deadline=None),
    )


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_of_equal_rows_the_first_are_found(rows: int) -> None:
    matrix: Matrix[int] = Matrix(3)
    for at in range(rows):
        matrix.put(at, [0, 1, 0], at)
    matrix.put("best", [1, 0, 0], -1)
    for count in (1, 2, rows, rows + 1, rows + 2):
        found = [each.id for each in matrix.search([1, 0.5, 0], count)]
        assert found == ["best", *range(rows)][:count]


def test_many_rows_in_many_dimensions() -> None:
    draw = np.random.default_rng(7)
    rows = draw.standard_normal((2_000, 64))
    matrix: Matrix[int] = Matrix(64)
    for at, row in enumerate(rows):
        matrix.put(at, row, at)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for asked in draw.standard_normal((50, 64)):
        scores = unit @ (asked / np.linalg.norm(asked))
        found = matrix.search(asked, 8)
        assert [each.id for each in found] == np.argsort(-scores)[:8].tolist()
        assert [each.score for each in found] == pytest.approx(np.sort(-scores)[:8] * -1, abs=1e-6)


@pytest.mark.parametrize("dimension", [3, 384, 1536, 4036, 4073, 4096])
def test_scores_are_never_off_by_more_than_who_ranks_by_them_takes_into_account(
    dimension: int,
) -> None:
    """Equal numbers are the worst: each addition is off in the same direction."""
    draw = np.random.default_rng(11)
    matrix: Matrix[int] = Matrix(dimension)
    rows = [np.ones(dimension), draw.random(dimension), draw.standard_normal(dimension)]
    rows += [row + 1e-4 * draw.standard_normal(dimension) for row in rows]
    units = np.array([row / np.linalg.norm(row) for row in rows])
    for at, row in enumerate(rows):
        matrix.put(at, row, at)
    for asked in units:
        exact = units @ asked
        off = [abs(found.score - exact[found.payload]) for found in matrix.search(asked, len(rows))]
        assert max(off) < MARGIN


@pytest.mark.parametrize(
    "vector",
    [
        *([0, 0], [0.0, float("nan")], [float("inf"), 1], [float("-inf"), 1], [1e39 * 1e300, 1]),
        *([], [1], [1, 2, 3], [[1, 2]], 1, None, "ab", ["a", "b"], [None, 1]),
    ],
)
def test_what_is_no_vector_here_is_refused_and_changes_nothing(vector: Any) -> None:
    matrix: Matrix[str] = Matrix(2)
    matrix.put("a", [1, 0], "first")
    for call in (
        lambda: matrix.put("a", vector, "second"),
        lambda: matrix.put("b", vector, "second"),
        lambda: matrix.search(vector, 1),
    ):
        with pytest.raises((ValueError, TypeError)):
            call()
    [found] = matrix.search([1, 0], 2)
    assert found == ("a", 1.0, "first")
    for nested in (7.0, [[7.0]], np.array(7.0)):
        with pytest.raises(ValueError, match="must have 1 numbers"):
            Matrix[None](1).put("a", nested, None)


@pytest.mark.parametrize(
    "vector", [[3, 4], [3e-40, 4e-40], [3e37, 4e37], [3e-320, 4e-320], [3e300, 4e300]]
)
def test_only_the_direction_counts(vector: list[float]) -> None:
    matrix: Matrix[None] = Matrix(2)
    matrix.put("a", vector, None)
    assert matrix.search(vector, 1)[0].score == pytest.approx(1, abs=1e-3)
    assert matrix.search([1, 0], 1)[0].score == pytest.approx(0.6, abs=1e-3)


def test_what_is_put_is_a_copy() -> None:
    matrix: Matrix[None] = Matrix(2)
    vector = np.array([1.0, 0.0], "<f4")
    matrix.put("a", vector, None)
    vector[:] = (0, 1)
    assert matrix.search([1, 0], 1)[0].score == 1.0


@pytest.mark.parametrize("dimension", [0, -1])
def test_no_dimension_is_refused(dimension: int) -> None:
    with pytest.raises(ValueError, match="at least one number"):
        Matrix(dimension)


def test_without_numpy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def absent(name: str, *args: Any, **given: Any) -> Any:
        if name == "numpy":
            raise ImportError(name)
        return original(name, *args, **given)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigurationError, match="langgraph-valkey"):
        Matrix(2)


# --- threads and forks -------------------------------------------------------------


def test_many_threads_at_once() -> None:
    """A payload is always that of its own vector, whoever moves rows meanwhile."""
    matrix: Matrix[tuple[int, int]] = Matrix(8)
    turns = 400

    def write(thread: int) -> None:
        draw = np.random.default_rng(thread)
        for turn in range(turns):
            at = int(draw.integers(8))
            matrix.put((thread, turn % 20), np.eye(8)[at], (thread, at))
            if turn % 3 == 0:
                matrix.remove((thread, int(draw.integers(20))))
            if thread == 0 and turn % 50 == 49:
                matrix.clear()

    def read(thread: int) -> int:
        draw, seen = np.random.default_rng(100 + thread), 0
        for _ in range(turns):
            at = int(draw.integers(8))
            found = matrix.search(np.eye(8)[at], 5)
            assert all(each.payload[1] == at for each in found if each.score == 1.0)
            assert all(each.id[0] == each.payload[0] for each in found)  # type: ignore[index]
            seen += len(found)
        return seen

    with ThreadPoolExecutor(8) as threads:
        written = [threads.submit(write, number) for number in range(4)]
        read_by = [threads.submit(read, number) for number in range(4)]
        assert all(each.result() > 0 for each in read_by)
        assert [each.result() for each in written] == [None] * 4


def test_clearing_waits_for_who_is_at_work() -> None:
    matrix: Matrix[int] = Matrix(2)
    matrix.put("a", [1, 0], 1)
    cleared = threading.Event()

    def clear() -> None:
        matrix.clear()
        cleared.set()

    thread = threading.Thread(target=clear)
    with matrix._lock:
        thread.start()
        assert not cleared.wait(0.05)
        assert len(matrix) == 1
    thread.join(10)
    assert cleared.is_set()
    assert len(matrix) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_keeps_the_rows_unless_one_was_half_there() -> None:
    matrix: Matrix[int] = Matrix(2)
    matrix.put("a", [1, 0], 1)
    assert holds_in_a_child(lambda: [each.payload for each in matrix.search([1, 0], 2)] == [1])
    with matrix._lock:  # As if a thread of the parent were in the middle of a call.
        assert holds_in_a_child(lambda: matrix.search([1, 0], 2) == [] and len(matrix) == 0)
    assert len(matrix) == 1
