"""Places that threads are moved from and to, and what is none."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_valkey.boundary.carrying import Cargo
from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.local.node import free_ports
from langgraph_valkey.moving import thread_file
from langgraph_valkey.moving.cargo import Reckoning
from langgraph_valkey.moving.copying import Copying
from langgraph_valkey.moving.homes import Home
from langgraph_valkey.moving.ledger import Ledger
from langgraph_valkey.moving.opaque import NotCarried, Opaque
from langgraph_valkey.moving.opening import home_of, open_home, pair
from tests.faces import checkpoint, config, metadata, numbered_id
from tests.moving_ground import (
    THREADS,
    Places,
    fill,
    home,
    nothing_is_named,
    whole,
)

# --- places ------------------------------------------------------------------------------------


def test_a_program_s_own_checkpointer(places: Places) -> None:
    """Any other kind is asked by LangGraph's own methods."""
    memory = InMemorySaver()
    fill(memory, *THREADS)
    origin = home_of(memory, name="shop:saver", writes=False)
    goal = places.make("ours")
    with closing(origin), closing(home(goal)) as target:
        ends: tuple[Home, Home] = origin, target
        assert sorted(Copying(*ends, Ledger(None, ("a", "b"))).verify().verified) == sorted(THREADS)
    after = places.saver(goal)
    assert all(whole(after, thread) == whole(memory, thread) for thread in THREADS)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("mysql://u:4711@h/d", "a place is written as"),
        ("env:NO_SUCH_PLACE", "variable NO_SUCH_PLACE"),
        ("sqlite:////no/such/folder/x.db", "can't be opened"),
        ("postgresql://u:4711@[h/d", "none that PostgreSQL takes"),
        ("aws+valkey://u:4711@h:port", "none that valkey-py takes"),
        ("valkey://u:4711@h?no_such=1", "unknown parameter"),
    ],
)
def test_places_that_mean_nothing(place: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        open_home(place, nothing_is_named)
    assert "4711" not in f"{raised.value} {raised.value.__cause__}"


def test_a_source_without_tables_is_left_as_it_is(places: Places, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).close()
    with pytest.raises(ConfigurationError, match="no such table"):
        open_home(f"sqlite:///{empty}", nothing_is_named)
    with pytest.raises(ConfigurationError, match="no such table"):
        open_home(places.make("postgres"), nothing_is_named)
    assert empty.stat().st_size == 0
    with pytest.raises(ConfigurationError, match="a file that is there"):
        open_home(f"sqlite:///{tmp_path}/missing.db", nothing_is_named)
    assert not (tmp_path / "missing.db").exists()


def test_reading_takes_over_nothing(places: Places, tmp_path: Path) -> None:
    """A saver that writes adopts the spools of processes that died; one that looks does not."""
    place = f"{places.make('ours')}&spool_dir={tmp_path}/spool"
    with closing(home(place, writes=False)) as opened:
        assert list(opened.threads()) == []
    assert not (tmp_path / "spool").exists()
    home(place).close()
    assert (tmp_path / "spool").exists()


def test_nobody_there() -> None:
    port = free_ports(1)[0]
    with pytest.raises(Unreachable, match="does not let this in") as raised:
        open_home(f"postgresql://u:4711@127.0.0.1:{port}/d", nothing_is_named)
    assert "4711" not in f"{raised.value} {raised.value.__cause__}"
    for url in (f"aws+valkey://127.0.0.1:{port}", f"valkey://127.0.0.1:{port}?read_deadline_s=0"):
        with closing(home(url, writes=False)) as nobody, pytest.raises(Unreachable):
            list(nobody.threads())


def test_the_same_place_is_none_to_copy_to(places: Places) -> None:
    place = places.make("ours")
    with pytest.raises(ConfigurationError, match="the same place"):
        pair(place, place, nothing_is_named)


def test_an_outage_of_aws_s_saver_is_no_empty_thread(places: Places) -> None:
    """It returns None, and an empty list, where the server does not answer."""
    origin = places.make("aws")
    saver = places.saver(origin)
    fill(saver, "t")
    with closing(home(origin, writes=False)) as opened:
        at = opened.addresses("t")[-1]
        client: Any = saver
        client.client.delete(f"checkpoint:{{t}}:{at[0]}:{at[1]}")
        with pytest.raises(NotCarried, match="expired or was evicted"):
            opened.cargo("t", at)
        with pytest.raises(NotCarried, match="pattern"):
            opened.delete("t*")


class Theirs(JsonPlusSerializer):
    """A serializer of somebody's own."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        return f"their {kind}", data

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return super().loads_typed((data[0].removeprefix("their "), data[1]))


def test_both_sides_need_the_same_serializer(places: Places) -> None:
    origin, goal = InMemorySaver(serde=Theirs()), InMemorySaver(serde=Theirs())
    fill(origin, "t")
    given = {"shop:one": origin, "shop:other": goal, "shop:plain": InMemorySaver()}
    with pytest.raises(ConfigurationError, match="serializer Theirs"):
        pair("shop:one", "shop:plain", given.__getitem__)
    ends = pair("shop:one", "shop:other", given.__getitem__)
    assert Copying(*ends, Ledger(None, ("a", "b"))).verify().verified == ["t"]
    assert whole(goal, "t") == whole(origin, "t")
    with pytest.raises(NotCarried, match="only the program knows"):
        thread_file.write(home_of(origin, name="shop:one", writes=False), "t", BytesIO())


def test_what_is_no_checkpointer(places: Places) -> None:
    with pytest.raises(ConfigurationError, match="shop:seven is a int"):
        home_of(7, name="shop:seven", writes=False)
    looping = InMemorySaver()
    looping.loop = None  # type: ignore[attr-defined]
    for saver in (looping, BaseCheckpointSaver[str]()):
        with pytest.raises(ConfigurationError, match="belongs to an event loop"):
            home_of(saver, name="shop:saver", writes=False)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, module, said in (
        ("postgresql://h/d", "langgraph.checkpoint.postgres", "langgraph-checkpoint-postgres"),
        ("sqlite:///x.db", "langgraph.checkpoint.sqlite", "langgraph-checkpoint-sqlite"),
        ("aws+valkey://h", "langgraph_checkpoint_aws", "langgraph-checkpoint-aws"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ConfigurationError, match=f"pip install '{said}"):
            open_home(place, nothing_is_named)


def test_prints_are_of_what_every_saver_can_give_back() -> None:
    """Old releases noted writes in metadata, which PostgresSaver drops; it drops NULs, too."""

    def printed(about: dict[str, Any], value: Any) -> dict[Any, bytes]:
        made, _ = checkpoint(numbered_id(1), {"plain": value})
        reckoning = Reckoning(Opaque())
        found = CheckpointTuple(config("t", "", numbered_id(1)), made, metadata(1, **about))
        reckoning.add(Cargo(found, []))
        return reckoning.prints

    expected = printed({"note": "ab", "pair": [1, 2]}, 10**17)
    assert printed({"note": "a\0b", "writes": {"x": 1}, "pair": (1, 2)}, 1e17) == expected
    assert printed({"note": "ab", "pair": [1, 3]}, 10**17) != expected
    assert printed({"note": "ab", "pair": [1, 2]}, 10**17 + 1) != expected
