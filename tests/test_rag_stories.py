"""Stories told at once by many threads, and around failovers; see `rag_story`."""

from __future__ import annotations

from pathlib import Path

import pytest

from langgraph_valkey.link import Script
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.scripts import assemble
from rag_cache.operations import calls
from tests import rag_failover_story, rag_story
from tests.rag_story import WRONG

AT_ONCE_S = 4.0
FAILOVERS = 2
STORIES = 40


def test_nothing_wrong_is_served_by_many_at_once(
    valkey: LocalValkey, prefix: str, tmp_path: Path
) -> None:
    counts = rag_story.tell_at_once(valkey.url, prefix, tmp_path, AT_ONCE_S, seed=3)
    assert {name: counts[name] for name in WRONG} == dict.fromkeys(WRONG, 0)
    assert counts["stored late"] == 0
    for name in ("hits", "edits", "deletes", "tags", "sweeps", "refused stale", "miss stale"):
        assert counts[name] > 0, name


def test_nothing_wrong_is_served_around_failovers_that_lose_invalidations(
    plain: LocalCluster, prefix: str, tmp_path: Path
) -> None:
    counts = rag_failover_story.tell(plain, prefix, tmp_path, FAILOVERS, seed=3)
    assert {name: counts[name] for name in WRONG} == dict.fromkeys(WRONG, 0)
    assert counts["lost"] == counts["failovers"] == FAILOVERS
    assert counts["hits"] > 0


MUTANTS = {
    "undead": ("delete", "redis.call('UNLINK', KEYS[2])", "redis.call('EXISTS', KEYS[2])"),
    "expired": ("store", "redis.call('PEXPIRE', key, ttl_ms)", "redis.call('PEXPIRE', key, 9999)"),
}


@pytest.mark.parametrize("verdict", MUTANTS)
def test_the_judge_would_see_it(
    verdict: str,
    valkey: LocalValkey,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where, old, new = MUTANTS[verdict]

    def broken(package: str, script: str, shared: tuple[str, ...], flags: str) -> Script:
        whole = assemble(package, script, shared, flags)
        if script != where:
            return whole
        assert old in whole.source
        return Script(script, whole.source.replace(old, new))

    monkeypatch.setattr(calls, "assemble", broken)
    counts = rag_story.tell(valkey.url, prefix, tmp_path, STORIES, seed=3)
    assert counts[verdict] > 0
    assert counts["stale"] == 0
