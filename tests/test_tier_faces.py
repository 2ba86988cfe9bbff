"""Which tiers serve which face, and from where."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from langgraph_valkey.boundary.faces import blocking_face, check_face, loop_face
from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.link import finish
from tests.faces import checkpoint, config, metadata, numbered_id
from tests.tier_ground import WatchedTier, open_tier


class OnlyAsync(BaseCheckpointSaver[str]):
    """Has no blocking methods."""

    async def aget_tuple(self, config: Any) -> Any:
        return None

    async def aput(self, *args: Any) -> Any:
        raise AssertionError


class Nothing(BaseCheckpointSaver[str]):
    """Has no methods at all."""


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "watched"])
async def test_a_blocking_tier_serves_both(kind: str, tmp_path: Path) -> None:
    """On the async face it works in a thread, so the loop goes on."""
    async with open_tier(kind, tmp_path) as tier:
        check_face(tier, "sync")
        check_face(tier, "async")
        made, _ = checkpoint(numbered_id(1), {"value": 1})
        await loop_face(tier).put(config("faces"), made, metadata(1))
        found = finish(blocking_face(tier).get_tuple(config("faces")))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"value": 1}
        assert len(finish(blocking_face(tier).listed(config("faces")))) == 1
        await loop_face(tier).delete_thread("faces")


async def test_a_blocking_tier_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    main = threading.get_ident()
    called_from: list[int] = []

    class Slow(SqliteSaver):
        def get_tuple(self, config: Any) -> Any:
            called_from.append(threading.get_ident())

    async with open_tier("sqlite", tmp_path) as tier:
        assert isinstance(tier, SqliteSaver)
        await loop_face(Slow(tier.conn)).get_tuple(config("t"))
    assert called_from != [main]


@pytest.mark.parametrize("kind", ["async sqlite", "async postgres"])
async def test_an_async_tier_serves_blocking_calls_of_other_threads(
    kind: str, tmp_path: Path
) -> None:
    """On its own loop's thread a blocking call would wait for itself."""
    async with open_tier(kind, tmp_path) as tier:
        check_face(tier, "async")
        with pytest.raises(ConfigurationError, match="this very thread"):
            check_face(tier, "sync")
        with pytest.raises(ConfigurationError, match="this very thread"):
            finish(blocking_face(tier).get_tuple(config("t")))

        def elsewhere() -> Any:
            check_face(tier, "sync")
            return finish(blocking_face(tier).get_tuple(config("t")))

        assert await asyncio.to_thread(elsewhere) is None


async def test_an_async_tier_serves_other_loops(tmp_path: Path) -> None:
    async with open_tier("async sqlite", tmp_path) as tier:
        made, _ = checkpoint(numbered_id(1), {"value": 1})

        async def elsewhere() -> Any:
            await loop_face(tier).put(config("t"), made, metadata(1))
            return await loop_face(tier).listed(config("t"))

        [found] = await asyncio.to_thread(asyncio.run, elsewhere())
        assert found.checkpoint == made


def test_a_tier_whose_loop_has_ended_is_refused(tmp_path: Path) -> None:
    async def open_it() -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "tier.db")) as tier:
            return tier

    tier = asyncio.run(open_it())
    with pytest.raises(ConfigurationError, match="does not run"):
        check_face(tier, "sync")
    with pytest.raises(ConfigurationError, match="does not run"):
        finish(blocking_face(tier).get_tuple(config("t")))
    with pytest.raises(ConfigurationError, match="does not run"):
        asyncio.run(loop_face(tier).get_tuple(config("t")))


def test_tiers_without_the_methods_are_refused() -> None:
    check_face(OnlyAsync(), "async")
    with pytest.raises(ConfigurationError, match="no blocking methods"):
        check_face(OnlyAsync(), "sync")
    with pytest.raises(ConfigurationError, match="neither"):
        check_face(Nothing(), "async")
    with pytest.raises(ValueError, match="'sync' or 'async'"):
        check_face(Nothing(), "both")  # type: ignore[arg-type]


CALLS: list[Callable[[Any], Any]] = [
    lambda face: face.get_tuple(config("t")),
    lambda face: face.put(config("t"), checkpoint(numbered_id(1))[0], metadata(1)),
    lambda face: face.put_writes(config("t", "", "1"), [("secret", "secret")], "task", ""),
    lambda face: face.delete_thread("t"),
]


@pytest.mark.parametrize("number", range(len(CALLS)))
async def test_whatever_a_tier_raises_names_it_and_tells_no_state(number: int) -> None:
    tier = WatchedTier()
    tier.failing = {"get_tuple", "put", "put_writes", "delete_thread"}
    with pytest.raises(Unreachable, match=r"WatchedTier.*ConnectionResetError") as raised:
        finish(CALLS[number](blocking_face(tier)))
    assert isinstance(raised.value.__cause__, ConnectionResetError)
    assert "secret" not in str(raised.value)
    with pytest.raises(Unreachable, match="WatchedTier"):
        await CALLS[number](loop_face(tier))
