"""``python -m tests.double_fault --faults N --seed S``; see the package."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from types import FrameType

from tests.double_fault import report
from tests.double_fault.loop import Plan, run


def _plan() -> Plan:
    standard = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.double_fault", description=__doc__)
    parser.add_argument("--faults", type=int, default=standard.faults, help="double ones")
    parser.add_argument("--seed", type=int, default=standard.seed)
    parser.add_argument("--crews", type=int, default=standard.crews, help="processes at a time")
    parser.add_argument("--talks", type=int, default=standard.talks, help="conversations at a time")
    parser.add_argument("--store", choices=("postgresql", "sqlite"), default=standard.store)
    parser.add_argument(
        "--control", choices=("registry", "receipts"), default="", help="left out: it must show"
    )
    return Plan(**vars(parser.parse_args()))


def _stop(number: int, _frame: FrameType | None) -> None:
    """Leave by an exception, so that servers and crews are ended on the way."""
    sys.exit(128 + number)


def main() -> int:
    """Run it, tell of it; 1 if anything is wrong."""
    signal.signal(signal.SIGTERM, _stop)
    plan = _plan()
    print(f"Seed {plan.seed}: {plan.faults} double faults under {plan.talks} conversations.")
    result = run(plan, lambda line: print(line, flush=True))
    figures = report.figures(plan, result)
    print(*report.in_words(result), json.dumps(figures), sep="\n")
    return int(report.is_wrong(figures))


if __name__ == "__main__":
    sys.exit(main())
