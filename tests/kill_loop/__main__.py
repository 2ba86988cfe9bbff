"""``python -m tests.kill_loop --failovers N --seed S``; see the package."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from types import FrameType

from tests.kill_loop import report
from tests.kill_loop.faults import DECK, FAULTS
from tests.kill_loop.loop import Plan, run


def plan_from(module: str) -> Plan:
    """What the command line asks of a kill loop."""
    standard = Plan()
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--failovers", type=int, default=standard.failovers)
    parser.add_argument("--seed", type=int, default=standard.seed)
    parser.add_argument("--crews", type=int, default=standard.crews, help="processes that write")
    parser.add_argument("--writers", type=int, default=standard.writers, help="in each of them")
    parser.add_argument("--kinds", nargs="+", choices=sorted(FAULTS), default=DECK)
    parser.add_argument("--planned", action="store_true", help="only planned failovers")
    parser.add_argument("--no-replay", action="store_true", help="the control: losses must show")
    given = parser.parse_args()
    return Plan(
        failovers=given.failovers,
        seed=given.seed,
        kinds=("planned",) if given.planned else tuple(given.kinds),
        crews=given.crews,
        writers=given.writers,
        replays=not given.no_replay,
    )


def leave(number: int, _frame: FrameType | None) -> None:
    """Leave by an exception, so that servers and crews are ended on the way."""
    sys.exit(128 + number)


def main() -> int:
    """Run it, tell of it; 1 if anything is wrong."""
    signal.signal(signal.SIGTERM, leave)
    plan = plan_from("tests.kill_loop")
    print(
        f"Seed {plan.seed}: {plan.failovers} failovers under {plan.crews * plan.writers} writers."
    )
    result = run(plan, lambda line: print(line, flush=True))
    figures = report.figures(plan, result)
    print(f"\n{report.table(result)}\n")
    for error, often in report.errors(result).most_common():
        print(f"{often} x {error}")
    for moved in report.seen_back(result):
        print(f"seen to move back: {moved}")
    print(json.dumps(figures))
    return int(any(figures[name] for name in report.MUST_BE_ZERO))


if __name__ == "__main__":
    sys.exit(main())
