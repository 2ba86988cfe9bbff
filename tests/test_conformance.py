"""LangGraph's public conformance suite, whole, on both faces, one shard and three.

The suite drives the async methods only; `SyncFace` lets it drive the blocking ones.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES

from tests.faces import FACES, open_face

TESTS_IN_SUITE = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}
"""What version 0.0.2 of the suite runs for a saver that has everything."""


@pytest.mark.parametrize("servers", ["valkey", "three_shards"])
@pytest.mark.parametrize("kind", FACES)
async def test_whole_suite(kind: str, servers: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(servers).url

    @checkpointer_test(name=f"{kind} on {servers}")
    async def opened() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
        async with open_face(kind, url) as face:
            yield face

    report = await validate(opened)

    results = report.results
    assert [failure for result in results.values() for failure in result.failures] == []
    assert {name for name, result in results.items() if result.detected} == {
        capability.value for capability in ALL_CAPABILITIES
    }
    assert {name: result.tests_passed for name, result in results.items()} == TESTS_IN_SUITE
    assert sum(result.tests_failed + result.tests_skipped for result in results.values()) == 0
