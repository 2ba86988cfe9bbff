"""Choosing a threshold and guards from examples, for a stated rate of wrong answers."""

from __future__ import annotations

from rag_cache.calibration.choosing import Calibration, Choice, calibrate
from rag_cache.calibration.examples import Logged, Pair
from rag_cache.calibration.trying import Outcome

__all__ = ["Calibration", "Choice", "Logged", "Outcome", "Pair", "calibrate"]
