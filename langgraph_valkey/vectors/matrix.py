"""The nearest of some vectors, exactly: one matrix, multiplied with what is looked for.

All rows stand in one contiguous array of float32, so a search is one product of a matrix
and a vector, which is memory-bound: beside other busy processes 0.07 ms for 1,000 rows of
384 numbers, 1.1 ms for 10,000. At these sizes no index is worth its building. A row that is
removed is replaced by the last one, and the array doubles when it is full.

It is found row by row, which stays on its thread. As one product of a matrix, BLAS shares it
among threads that spin until the last one has done its part: that saves half a millisecond
where a core is free, and took 6 to 25 ms where both were busy. `einsum` stays on its thread
as well, takes up to twice as long, and is off by ten times as much.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.fork import renew_after_fork

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[Any, Any]

P = TypeVar("P")

ROWS_FIRST = 16


class Found(NamedTuple, Generic[P]):
    """A row that is near.

    Attributes:
        id: Its name.
        score: The cosine, -1 to 1.
        payload: What it was put with.
    """

    id: Hashable
    score: float
    payload: P


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as failure:
        raise ConfigurationError(
            "vectors need numpy: pip install 'langgraph-valkey[rag]'"
        ) from failure
    return numpy


class Matrix(Generic[P]):
    """Unit vectors with names and payloads; safe to use from many threads.

    Args:
        dimension: Numbers in each vector.

    Raises:
        ConfigurationError: numpy is not installed.
        ValueError: The dimension is not positive.
    """

    def __init__(self, dimension: int) -> None:
        if dimension < 1:
            raise ValueError("a vector must have at least one number")
        self._numpy = _numpy()
        self.dimension = dimension
        self._lock = threading.Lock()
        self._begin()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with a free lock, and anew if the parent's was held: a row may be half there."""
        if self._lock.locked():
            self._begin()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Remove all rows."""
        with self._lock:
            self._begin()

    def _begin(self) -> None:
        self._rows = self._numpy.empty((0, self.dimension), "<f4")  # Many stay empty.
        self._ids: list[Hashable] = []
        self._payloads: list[P] = []
        self._place: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def capacity(self) -> int:
        """For how many rows there is memory."""
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes that the vectors take."""
        return int(self._rows.nbytes)

    def get(self, name: Hashable) -> P | None:
        """The payload of a row; None if there is no such row."""
        with self._lock:
            place = self._place.get(name)
            return None if place is None else self._payloads[place]

    def put(self, name: Hashable, vector: Any, payload: P) -> None:
        """Add a row, or replace the one of this name.

        Args:
            name: Its name.
            vector: Numbers of any length but zero: only the direction counts.
            payload: Anything to be found with it.

        Raises:
            ValueError: The vector has another dimension, or no direction.
        """
        unit = self._unit(vector)
        with self._lock:
            place = self._place.get(name)
            if place is None:
                place = len(self._ids)
                if place == len(self._rows):
                    grown = self._numpy.empty((2 * place or ROWS_FIRST, self.dimension), "<f4")
                    grown[:place] = self._rows
                    self._rows = grown
                self._ids.append(name)
                self._payloads.append(payload)
                self._place[name] = place
            self._rows[place] = unit
            self._payloads[place] = payload

    def remove(self, name: Hashable) -> bool:
        """Remove a row; whether it was there."""
        with self._lock:
            place = self._place.pop(name, None)
            if place is None:
                return False
            last_id, last_payload = self._ids.pop(), self._payloads.pop()
            if place < len(self._ids):
                self._rows[place] = self._rows[len(self._ids)]
                self._ids[place] = last_id
                self._payloads[place] = last_payload
                self._place[last_id] = place
            return True

    def search(
        self, vector: Any, count: int, where: Callable[[P], bool] | None = None
    ) -> list[Found[P]]:
        """The nearest rows, the best first; of equal ones those that stand first.

        Args:
            vector: What they shall be near to.
            count: How many at most.
            where: Which rows to look at, by their payloads; all if not given.

        Raises:
            ValueError: The vector has another dimension, or no direction.
        """
        np = self._numpy
        unit = self._unit(vector)
        # Under the lock: no row may change places between its score and its name.
        with self._lock:
            rows = len(self._ids)
            # Not `@`: see the head of this module.
            scores = np.matmul(self._rows[:rows, None, :], unit[:, None])[:, 0, 0]
            if where is None:
                allowed = np.arange(rows)
            else:
                chosen = np.fromiter(map(where, self._payloads), np.bool_, rows)
                allowed = np.flatnonzero(chosen)
            left = len(allowed)
            if not left or count < 1:
                return []
            places = allowed
            if count < left:
                among = scores[allowed]
                least = np.partition(among, left - count)[left - count]
                over, last = allowed[among > least], allowed[among == least]
                places = np.concatenate((over, last[: count - len(over)]))
            places = places[np.argsort(-scores[places], kind="stable")]
            return [
                Found(self._ids[place], score, self._payloads[place])
                for place, score in zip(places.tolist(), scores[places].tolist(), strict=True)
            ]

    def _unit(self, vector: Any) -> Vector:
        np = self._numpy
        found: Vector = np.asarray(vector, dtype="<f8")
        if found.shape != (self.dimension,):
            raise ValueError(f"a vector here must have {self.dimension} numbers, not {found.size}")
        most = float(np.abs(found).max())
        if not 0.0 < most < float("inf"):  # NaN is neither.
            raise ValueError("a vector must have a direction: not all zeros, and no NaN")
        found = found / most  # Else squares might be too small or too large for a float.
        unit: Vector = (found / np.sqrt(found @ found)).astype("<f4")
        return unit
