"""What can be set of a cache, and what is refused at the door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey.errors import ConfigurationError
from rag_cache import CacheSettings, SemanticCache
from rag_cache.guards import NeighbourAgreement
from tests.rag_ground import Bag

URL = "valkey://127.0.0.1:1"


def test_the_environment_has_a_prefix_of_its_own() -> None:
    environ = {
        "RAG_CACHE_URL": URL,
        "RAG_CACHE_TTL_S": '{"answer": 60}',
        "RAG_CACHE_THRESHOLD": "0.8",
        # A saver's, of another meaning.
        "LANGGRAPH_VALKEY_URL": "valkey://elsewhere:1",
        "LANGGRAPH_VALKEY_TTL_S": "5",
    }
    settings = CacheSettings.from_env(environ=environ)
    assert settings.addresses == (("127.0.0.1", 1),)
    assert settings.threshold == 0.8
    assert settings.ttl_of("answer") == 60
    assert settings.ttl_of("node") == 24 * 3600


def test_a_primary_store_is_not_named_where_logs_show_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        CacheSettings.from_url(f"{URL}?primary=postgresql%3A%2F%2Fu%3Ahidden%40h%2Fd")
    assert "hidden" not in str(caught.value)
    settings = CacheSettings.from_url(URL, primary="postgresql://u:hidden@h/d")
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    "given",
    [
        {"ttl_s": "5"},
        {"ttl_s": "no json"},
        {"ttl_s": {"answer": 0}},
        {"ttl_s": {"answer": 1e9}},
        {"threshold": 2},
        {"spread": 0},
        {"spread": 65},
        {"lookup_deadline_ms": 0},
        {"ttl_jitter": 1},
        {"key_prefix": "a b"},
        {"key_prefix": ""},
        {"unknown": 1},
    ],
)
def test_what_can_not_be_right_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        CacheSettings.from_url(URL, **given)


def test_a_lookup_waits_for_no_request_longer_than_it_may_take() -> None:
    settings = CacheSettings.from_url(URL, lookup_deadline_ms=20, request_timeout_ms=700)
    assert settings.for_lookups().request_timeout_ms == 20
    assert settings.for_writes().request_timeout_ms == 700
    assert CacheSettings.from_url(URL, request_timeout_ms=10).for_lookups().request_timeout_ms == 10
    assert settings.may_evict


def test_a_guard_that_is_never_shown_enough_is_refused(tmp_path: Path) -> None:
    """It would refuse everything, and nobody would know why nothing hits."""
    given: dict[str, Any] = {"embedder": Bag(), "neighbours": 3}
    given["primary"] = f"sqlite:///{tmp_path}/versions.db"
    with pytest.raises(ConfigurationError, match="set neighbours=4 or more"):
        SemanticCache(URL, guards=[NeighbourAgreement(agreeing=4)], **given)
    SemanticCache(URL, guards=[NeighbourAgreement(agreeing=3)], **given).close()
