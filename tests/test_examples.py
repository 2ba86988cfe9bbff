"""The examples run, and show what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(folder: Path, *arguments: str) -> str:
    """What an example prints, run in a folder of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_drop_in_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    outputs = [run(tmp_path, "examples.drop_in_checkpointer") for _ in range(2)]
    counts = [re.search(r"(\d+) messages so far", output) for output in outputs]
    assert [count and count[1] for count in counts] == ["2", "4"]


@pytest.mark.parametrize("seed", [1, 2])
def test_an_order_is_charged_once_wherever_it_is_killed(tmp_path: Path, seed: int) -> None:
    output = run(tmp_path, "examples.committed_order", "--seed", str(seed), "--kills", "4")
    assert "was killed" in output
    assert "Order 1001 is confirmed." in output
    assert "stock: [('lamp', 7)]" in output
    assert "charges: [('1001', 4500)]" in output
    assert "confirmations: [('1001',)]" in output
