"""``python -m tests.store_kill_loop --failovers N --seed S``; see the package."""

from __future__ import annotations

import json
import signal
import sys

from tests.kill_loop.__main__ import leave, plan_from
from tests.kill_loop.loop import run
from tests.kill_loop.report import errors
from tests.store_kill_loop.crew import Aboard
from tests.store_kill_loop.report import MUST_BE_ZERO, figures


def main() -> int:
    """Run it, tell of it; 1 if anything is wrong."""
    signal.signal(signal.SIGTERM, leave)
    plan = plan_from("tests.store_kill_loop")
    writers = plan.crews * plan.writers
    print(f"Seed {plan.seed}: {plan.failovers} failovers under {writers} writers of a store.")
    result = run(plan, lambda line: print(line, flush=True), Aboard)
    for error, often in errors(result).most_common():
        print(f"{often} x {error}")
    found = figures(plan, result)
    print(json.dumps(found))
    return int(any(found[name] for name in MUST_BE_ZERO))


if __name__ == "__main__":
    sys.exit(main())
