"""How `StateTiers` are set up, looked at and left."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_valkey import ConfigurationError, Hooks, Unreachable, ValkeySaver
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.loss_window.report import RecoveryReport
from langgraph_valkey.primary.opening import open_store
from langgraph_valkey.settings import Settings
from langgraph_valkey.sql import database as sql_database
from langgraph_valkey.testing import MemoryLink
from langgraph_valkey.tiers import roles
from langgraph_valkey.tiers.settings import TierSettings
from langgraph_valkey.tiers.state_tiers import StateTiers
from tests.facade_ground import Ground, agent, charge

REWOUND = RecoveryReport("", 0, 0, 0, 0, (), ("t",), (), 0, 0.0)


@pytest.fixture
def ground(valkey: LocalValkey, tmp_path: Path) -> Iterator[Ground]:
    made = Ground(valkey, tmp_path)
    yield made
    made.lose()


def thread(thread_id: str = "t", turn_id: str = "turn") -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "turn_id": turn_id}}


# --- set-up ----------------------------------------------------------------------------


def test_nothing_is_asked_before_the_first_use(ground: Ground) -> None:
    away = Settings.from_url("valkey://127.0.0.1:1")
    path = ground.path.with_name("another.db")
    with StateTiers(TierSettings(transient=away, primary=f"sqlite:///{path}")):  # type: ignore[arg-type]
        assert not path.exists()


def test_tables_are_made_by_setup_or_by_the_first_use(ground: Ground) -> None:
    with ground.tiers() as tiers:
        assert ground.tables == {"charges"}
        tiers.setup()
        assert "lgv_commits" in ground.tables
        tiers.setup()


async def test_tables_are_made_by_setup_on_the_async_face(ground: Ground) -> None:
    async with ground.tiers() as tiers:
        await tiers.asetup()
        assert "lgv_commits" in ground.tables


UNSURE = {"coordination": Settings.from_url("valkey://127.0.0.1:1")}


@pytest.mark.parametrize(
    "use",
    [
        lambda tiers: tiers.setup(),
        lambda tiers: asyncio.run(tiers.asetup()),
        lambda tiers: tiers.lock("x", 1).__enter__(),
        lambda tiers: tiers.commit("a", key="b", fn=print, scope="global"),
        lambda tiers: tiers.recover(),
        lambda tiers: asyncio.run(tiers.arecover()),
    ],
)
def test_a_cluster_that_is_not_fit_is_refused_before_anything_is_done(
    ground: Ground, use: Any
) -> None:
    with ground.tiers(settings=UNSURE) as tiers:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="coordination cluster"):
                use(tiers)
        assert ground.tables == {"charges"}


def test_a_cluster_that_is_not_fit_is_warned_of_where_that_is_allowed(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"coordination": ground.transient, "allow_unsafe": True}
    with ground.tiers(settings=settings) as tiers, tiers.lock("x", 30):
        pass
    assert "coordination cluster" in caplog.text


def test_a_transient_cluster_that_may_evict_threads_is_refused(
    ground: Ground, valkey: LocalValkey
) -> None:
    short = ground.transient.model_copy(update={"ttl_s": 60.0})
    valkey.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    try:
        with (
            ground.tiers(settings={"transient": short}) as tiers,
            pytest.raises(ConfigurationError, match="noeviction"),
        ):
            tiers.setup()
        with ground.tiers() as tiers:
            tiers.setup()
    finally:
        valkey.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_a_tier_on_valkey_must_be_durable(ground: Ground) -> None:
    with (
        ValkeySaver.over(MemoryLink(), durability="async") as tier,
        ground.tiers(tier=tier) as tiers,
        pytest.raises(ConfigurationError, match="the tier"),
    ):
        tiers.setup()


def test_an_outage_of_a_cluster_stops_only_what_needs_it(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    link = MemoryLink()
    link.go_down()
    with ground.tiers(link=link) as tiers:
        with pytest.raises(Unreachable):
            tiers.setup()
        with tiers.lock("x", 30):
            pass
        assert "is not known (Unreachable)" in caplog.text


def test_a_tier_that_the_face_can_not_use_is_refused(ground: Ground) -> None:
    class Half(InMemorySaver):
        put = BaseCheckpointSaver.put

    with ground.tiers(tier=Half()) as tiers:
        with pytest.raises(ConfigurationError, match="no blocking methods"):
            tiers.setup()
        asyncio.run(_set_up(tiers))


async def _set_up(tiers: StateTiers) -> None:
    await tiers.asetup()
    await tiers.primary.loops.close()


def test_settings_come_from_the_environment(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGGRAPH_VALKEY_URL", ground.valkey.url)
    monkeypatch.setenv("LANGGRAPH_VALKEY_PRIMARY", f"sqlite:///{ground.path}")
    with StateTiers() as tiers:
        assert tiers.settings.transient.addresses == ground.transient.addresses
        tiers.setup()
    assert "lgv_commits" in ground.tables


# --- the whole -------------------------------------------------------------------------


def test_a_rewind_is_told_to_the_runs_and_to_the_user(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    with ground.tiers(hooks=Hooks(on_rewind=told.append)) as tiers:
        monkeypatch.setattr(tiers.runs, "rewound", lambda report: told.append(("runs", report)))
        on_rewind = tiers.saver._window._hooks.on_rewind
        assert on_rewind is not None
        on_rewind(REWOUND)
        assert told == [("runs", REWOUND), REWOUND]
    del tiers
    monkeypatch.undo()
    gc.collect()
    on_rewind(REWOUND)  # Nobody is there any more.
    assert len(told) == 2


def test_health_tells_of_all_places(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    with ground.tiers() as tiers:
        tiers.run(agent(tiers), {"order_id": "7"}, thread_id="t", run_id="r")
        health = tiers.health()
        assert health.primary_trouble == ""
        assert health.saver.journal_entries > 0
        assert health.runs.settling == 1
        assert health.outbox.working is False
        assert asyncio.run(_health(tiers)) == ""

        async def away(*_: Any) -> None:
            raise Unreachable("the primary store does not answer")

        monkeypatch.setattr(type(tiers._raw.blocking), "run", away)
        assert tiers.health().primary_trouble == "Unreachable: the primary store does not answer"
        assert asyncio.run(_health(tiers)).startswith("Unreachable")


def test_health_makes_nothing(ground: Ground) -> None:
    """Whoever looks may have no right to, and look before anybody is meant to."""
    with ground.tiers() as tiers:
        assert "call setup()" in tiers.health().primary_trouble
        assert "call setup()" in asyncio.run(_health(tiers))
        assert ground.tables == {"charges"}
        tiers.setup()
        assert tiers.health().primary_trouble == ""


async def _health(tiers: StateTiers) -> str:
    found = (await tiers.ahealth()).primary_trouble
    await tiers.primary.loops.close()
    return found


def test_leaving_twice_and_without_a_use(ground: Ground) -> None:
    tiers = ground.tiers()
    tiers.close()
    tiers.close()
    with ground.tiers() as tiers:
        tiers.outbox.handle("x", print)
        tiers.outbox.start()
        tiers.setup()
    assert not tiers.outbox.health().working
    asyncio.run(tiers.aclose(drain_s=0))


def test_a_store_of_the_callers_stays_open(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    store, closed = open_store(f"sqlite:///{ground.path}"), list[str]()
    with monkeypatch.context() as patched:
        patched.setattr(store, "close", lambda: closed.append("blocking"))
        patched.setattr(store, "aclose", lambda: closed.append("async"))
        with ground.tiers(store=store) as tiers:
            tiers.commit("charge", key="7", fn=lambda c: charge(c, "7"), config=thread())
        asyncio.run(ground.tiers(store=store).aclose())
    assert closed == []
    store.close()


def test_clusters_are_looked_at_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Any] = []
    monkeypatch.setattr(roles, "check", lambda *_, **how: looks.append(how))
    with ground.tiers() as tiers:
        for key in ("7", "8"):
            tiers.commit("charge", key=key, fn=lambda c: charge(c, "7"), config=thread())
        assert looks == [{"must_answer": False}]
        tiers.setup()
        assert looks[1:] == [{"must_answer": True}]


def test_tiers_are_collected_when_they_are_let_go(ground: Ground) -> None:
    tiers = ground.tiers()
    tiers.setup()
    tiers.outbox.start()
    tiers.close()
    gone = weakref.ref(tiers)
    del tiers
    gc.collect()
    assert gone() is None


@pytest.mark.usefixtures("unwatched")
def test_tiers_work_in_a_forked_child(ground: Ground) -> None:
    with ground.tiers() as tiers:
        graph = agent(tiers)
        tiers.run(graph, {"order_id": "1"}, thread_id="t", run_id="r")

        def child() -> None:
            found = tiers.run(graph, {"order_id": "2"}, thread_id="u", run_id="s")
            with tiers.lock("x", 30):
                os._exit(0 if found["steps"] == ["charged 2", "done"] else 1)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode == 0
        tiers.run(graph, {"order_id": "3"}, thread_id="t", run_id="q")
        tiers.close(drain_s=0)
    assert ground.charges == ["1", "2", "3"]


def test_agents_can_be_tested_on_a_server_in_memory(ground: Ground) -> None:
    settings = TierSettings(transient=Settings(), primary=f"sqlite:///{ground.path}")  # type: ignore[arg-type]
    with StateTiers(settings, link=MemoryLink()) as tiers:
        found = tiers.run(agent(tiers), {"order_id": "7"}, thread_id="t", run_id="r")
        assert found["steps"] == ["charged 7", "done"]


def test_nothing_shows_a_secret(
    ground: Ground, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_database, "TRIES_MOST", 2)
    url = "postgresql://user:hunter2@127.0.0.1:1/agents"
    settings = ground.settings(primary=url)
    with caplog.at_level(logging.DEBUG), StateTiers(settings) as tiers:
        trouble = tiers.health().primary_trouble
        assert trouble
        texts = (trouble, repr(tiers), repr(tiers.settings), caplog.text)
        assert not any("hunter2" in each for each in texts)
