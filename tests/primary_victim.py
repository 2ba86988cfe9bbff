"""A process whose workers commit, and are killed amid their work.

``python -m tests.primary_victim URL COUNT`` forks a worker for each line that it reads,
kills it after as many seconds as the line says (if it says any), and prints the status
with which it ended: so killing one costs no new interpreter. A worker commits keys 0,
1, ..., each of which adds its number to the balance, whether an earlier worker has done
so or not.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from sqlalchemy import Connection, text

from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import CommitKey, CommitRequest
from langgraph_valkey.sql.store import SqlStore


def work(url: str, count: int) -> None:
    """Commit all keys."""
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

    for number in range(count):
        add(number)
    store.close()


def main(url: str, count: int) -> None:
    """Fork workers, one for each line."""
    for line in sys.stdin:
        worker = os.fork()
        if worker == 0:
            work(url, count)
            os._exit(0)
        if line.strip():
            time.sleep(float(line))
            os.kill(worker, signal.SIGKILL)  # Not reaped yet, so it is this one or nobody.
        print(os.waitpid(worker, 0)[1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
