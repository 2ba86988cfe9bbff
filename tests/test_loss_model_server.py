"""The model of the loss window on a real server, which is rewound by script.

What a failover would lose is taken back by restoring the keys as they were before, and
the server gets another replication id. Its clock is its own, so nothing expires here;
what the scripts do is what they do in production.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from langgraph_valkey import Settings
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.link import Call, Reply, finish
from langgraph_valkey.local import LocalValkey
from tests.loss_mutants import MUTANTS, applied
from tests.loss_story import tell
from tests.loss_truth import Broken
from tests.loss_world import Cluster, World
from tests.raw_server import RawServer, raw_server

STORIES = 15


class RealCluster(Cluster):
    """A real server, with a log that lags behind by the world's time."""

    def __init__(self, link: BlockingLink, raw: RawServer) -> None:
        super().__init__(seed=0)
        self._link = link
        self._raw = raw
        self._images: list[Any] = []
        self.restore({})
        self.crash(0, 0.0)

    def execute(self, call: Call) -> Reply:
        self._pass(100)
        if call.writes:
            self._images.append(self.image())
        return finish(self._link.send((call,)))[0]

    def image(self) -> Any:
        return {
            key: (self._raw.do("DUMP", key), max(0, self._raw.do("PEXPIRETIME", key)))
            for key in self._raw.keys("lgv")
        }

    def restore(self, image: Any) -> None:
        self._raw.do("FLUSHALL")
        for key, (dumped, deadline_ms) in image.items():
            self._raw.do("RESTORE", key, str(deadline_ms), dumped, "ABSTTL")
        self.open.clear()
        self._images.clear()

    def crash(self, lost: int, clock_s: float) -> None:
        if lost:
            self.restore(self._images[-lost])
        self._raw.do("DEBUG", "CHANGE-REPL-ID")
        self.open.clear()
        self._images.clear()
        info = self._raw.do("INFO", "replication")
        [text] = info.values() if isinstance(info, dict) else [info]
        self._identity = text.split(b"master_replid:")[1][:40]

    @property
    def clock_ms(self) -> int:
        seconds, rest_us = self._raw.do("TIME")
        return int(seconds) * 1000 + int(rest_us) // 1000

    @property
    def identity(self) -> bytes:
        return bytes(self._identity)

    def state(self, thread: str) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = self._raw.do("HGETALL", thread_keys("lgv", thread).state)
        return found

    def deadline_ms(self, thread: str) -> int:
        return max(0, int(self._raw.do("PEXPIRETIME", thread_keys("lgv", thread).state)))


@pytest.fixture(scope="module")
def rewindable() -> Iterator[tuple[BlockingLink, RawServer]]:
    with LocalValkey(options={"enable-debug-command": "yes"}) as server:
        link = BlockingLink(Settings.from_url(server.url))
        with raw_server(server.url) as raw:
            yield link, raw
        link.close()


def test_nothing_is_lost_on_a_real_server(rewindable: tuple[BlockingLink, RawServer]) -> None:
    steps = 0
    for seed in range(STORIES):
        world = World(seed, many=2 + seed % 2, primary=RealCluster(*rewindable))
        steps += len(tell(seed, world).log)
    print(f"seeds 0-{STORIES - 1}: {steps} steps")


def test_without_a_rule_the_model_fails_there_too(
    rewindable: tuple[BlockingLink, RawServer],
) -> None:
    mutant = MUTANTS["gen check off"]
    with applied(mutant) as patch:
        world = World(0, many=2, primary=RealCluster(*rewindable), patch=patch)
        with pytest.raises(Broken) as told:
            tell(0, world, **mutant.weights)
    print(told.value.check)
