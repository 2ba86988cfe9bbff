"""A process whose workers commit, and are killed amid their work.

``python -m tests.primary_victim URL`` forks a worker for each line that it reads, and
prints the status with which it ended: so killing one costs no new interpreter. A line
``FIRST END SECONDS`` has it commit keys FIRST, FIRST + 1, ... until it is killed after
so many seconds, or, where it says ``never``, until END. A key adds its number to the
balance, whether an earlier worker has done so or not.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterable

from sqlalchemy import Connection, text

from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import CommitKey, CommitRequest
from langgraph_valkey.sql.store import SqlStore


def work(url: str, numbers: Iterable[int]) -> None:
    """Commit these keys, in turn."""
    store = SqlStore(url)

    def add(number: int) -> None:
        def fn(connection: Connection) -> int:
            given = {"number": number}
            connection.execute(text("UPDATE bank SET amount = amount + :number"), given)
            connection.execute(text("INSERT INTO added VALUES (:number)"), given)
            return number

        key = CommitKey("add", str(number), "global")
        receipt = finish(store.blocking.commit(CommitRequest(key, "0" * 64), fn))
        if receipt.result != number:
            raise AssertionError(receipt)

    for number in numbers:
        add(number)
    store.close()


def main(url: str) -> None:
    """Fork workers, one for each line."""
    for line in sys.stdin:
        first, end, killed_after_s = line.split()
        is_killed = killed_after_s != "never"
        worker = os.fork()
        if worker == 0:
            work(url, itertools.count(int(first)) if is_killed else range(int(first), int(end)))
            os._exit(0)
        if is_killed:
            time.sleep(float(killed_after_s))
            os.kill(worker, signal.SIGKILL)  # Not reaped yet, so it is this one or nobody.
        print(os.waitpid(worker, 0)[1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
