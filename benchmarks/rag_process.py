"""Callers who ask the same at the same moment: here, or in a process of their own.

``python -m benchmarks.rag_process URL PREFIX PRIMARY FACE`` has each question that it reads
asked by all of its callers, and writes how often the answer was computed.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import IO, Any

from benchmarks.faces import FaceName
from benchmarks.rag_faces import AsyncOurs, BlockingOurs
from benchmarks.rag_questions import THRESHOLD, Prepared, Questions
from langgraph_valkey.link import finish
from rag_cache import CacheSettings, SemanticCache

CALLERS = 50
COMPUTES_S = 0.2
READY = "ready"


class Computing:
    """Computes an answer, and counts how often.

    Args:
        face: Of whoever calls.
    """

    def __init__(self, face: FaceName) -> None:
        self.times = 0
        self._face = face
        self._lock = threading.Lock()

    async def __call__(self) -> str:
        """Compute it."""
        with self._lock:
            self.times += 1
        if self._face == "async":
            await asyncio.sleep(COMPUTES_S)
        else:
            time.sleep(COMPUTES_S)
        return "Open the page of your settings."


def asked_by_all(runner: asyncio.Runner, face: FaceName, cache: Any, question: str) -> int:
    """Have a question asked by all callers; how often it was computed.

    Args:
        runner: The one event loop.
        face: Whether callers are tasks or threads.
        cache: See `rag_faces.Asked`.
        question: What none of them has asked before.
    """
    computing = Computing(face)

    async def all_tasks() -> None:
        await asyncio.gather(*(cache.answer(question, computing) for _ in range(CALLERS)))

    if face == "async":
        runner.run(all_tasks())
        return computing.times
    line = threading.Barrier(CALLERS)

    def one() -> None:
        line.wait()
        finish(cache.answer(question, computing))

    with ThreadPoolExecutor(CALLERS) as pool:
        for ended in [pool.submit(one) for _ in range(CALLERS)]:
            ended.result()
    return computing.times


class Processes:
    """Several processes that share a cache, each with callers of its own.

    Args:
        pipes: Where each is written to and read from.
    """

    def __init__(self, pipes: Sequence[tuple[IO[str], IO[str]]]) -> None:
        self._pipes = pipes
        for _, told in pipes:
            assert told.readline().strip() == READY, "a process did not begin"

    def asked_by_all(self, question: str) -> int:
        """Have a question asked by all callers of all of them; how often it was computed."""
        for tell, _ in self._pipes:
            tell.write(f"{question}\n")
            tell.flush()
        return sum(int(told.readline()) for _, told in self._pipes)


@contextmanager
def processes(count: int, *arguments: str) -> Iterator[Processes]:
    """Start them, and end them.

    Args:
        count: How many.
        *arguments: URL of the server, prefix of keys, URL of the primary store, face.
    """
    with ExitStack() as stack:
        pipes = []
        for _ in range(count):
            started = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.rag_process", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(started.wait, timeout=30)
            assert started.stdin is not None
            assert started.stdout is not None
            stack.callback(started.stdin.close)  # Which ends it.
            pipes.append((started.stdin, started.stdout))
        yield Processes(pipes)


def main(url: str, prefix: str, primary: str, face: FaceName) -> None:
    """A process: reads questions, writes numbers."""
    embedder = Prepared(Questions(1, 0))
    settings = CacheSettings.from_url(url, key_prefix=prefix, primary=primary, threshold=THRESHOLD)
    with asyncio.Runner() as runner, SemanticCache(settings, embedder=embedder) as cache:
        mine = AsyncOurs(cache) if face == "async" else BlockingOurs(cache)
        asked_by_all(runner, face, mine, f"Is {cache!r} there?")  # All connections are made.
        print(READY, flush=True)
        for line in sys.stdin:
            print(asked_by_all(runner, face, mine, line.strip()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
