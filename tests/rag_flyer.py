"""A process that asks the same question many times at once, for tests of single flight.

    python -m tests.rag_flyer URL PREFIX FOLDER LOG CALLERS TAKES_S FLIGHT_S

It says ``ready`` on its standard output, and begins when its standard input ends a line.
Each computation writes a line to the log when it begins.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from rag_cache import Computed
from tests.rag_ground import SCOPE, caches_on

QUESTION = "how do i reset my password"


def main() -> None:
    url, prefix, folder, log = sys.argv[1:5]
    callers, takes_s, flight_s = int(sys.argv[5]), float(sys.argv[6]), float(sys.argv[7])

    def compute() -> Computed:
        with Path(log).open("a") as lines:
            lines.write(f"{os.getpid()}\n")
        time.sleep(takes_s)
        return Computed(os.getpid(), {"d1": "1"})

    with caches_on(url, prefix, Path(folder)) as caches:
        # A machine that is busy with processes must not turn lookups into misses.
        cache = caches(lookup_deadline_ms=20_000, flight_s=flight_s)
        cache.lookup("something else", SCOPE)
        print("ready", flush=True)
        sys.stdin.readline()
        found: list[object] = []
        threads = [
            threading.Thread(
                target=lambda: found.append(cache.get_or_compute(QUESTION, SCOPE, compute).value)
            )
            for _ in range(callers)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        print(len(found), *sorted(set(map(str, found))), flush=True)


if __name__ == "__main__":
    main()
