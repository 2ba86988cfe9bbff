"""Keeping the failures of what only watches away from what is watched."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Quiet:
    """Keeps failures from whoever calls; logs the first of each row of them.

    Args:
        what: What is done, for the log.
        log: Where that is logged.
    """

    def __init__(self, what: str, log: logging.Logger) -> None:
        self._what = what
        self._log = log
        self._is_failing = False

    def call(self, act: Callable[[], T]) -> T | None:
        """The result, or None if it failed."""
        try:
            result = act()
        except Exception:  # noqa: BLE001 - whatever a provider, or what is read, raises
            if not self._is_failing:
                self._log.exception(
                    "%s failed; that is not logged again until it works", self._what
                )
            self._is_failing = True
            return None
        self._is_failing = False
        return result
