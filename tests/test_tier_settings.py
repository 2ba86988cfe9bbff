"""Settings of all places: from the environment, URLs or code; and what they never show."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from pydantic import ValidationError

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.settings import ConnectionSettings, Settings
from langgraph_valkey.tiers.settings import PRIMARY, TierSettings

SECRET = "hunter2-5ecret"
URL = "LANGGRAPH_VALKEY_URL"


def test_one_variable_is_enough() -> None:
    found = TierSettings.from_env({URL: "valkey://h:1"})
    assert found.transient == Settings.from_url("valkey://h:1")
    assert (found.cache, found.coordination) == (None, None)
    assert found.primary.get_secret_value() == PRIMARY


def test_each_place_has_its_variables() -> None:
    found = TierSettings.from_env(
        {
            URL: "valkey://transient?durability=async",
            "LANGGRAPH_VALKEY_TTL_S": "60",
            "LANGGRAPH_VALKEY_CACHE_URL": "valkey://cache",
            "LANGGRAPH_VALKEY_CACHE_KEY_PREFIX": "answers",
            "LANGGRAPH_VALKEY_COORDINATION_URL": "valkeys://locks",
            "LANGGRAPH_VALKEY_COORDINATION_DURABILITY": "sync",
            "LANGGRAPH_VALKEY_PRIMARY": "postgresql://u:p@db/agents",
            "LANGGRAPH_VALKEY_PRIMARY_SCHEMA": "agents",
            "LANGGRAPH_VALKEY_ALLOW_UNSAFE": "true",
            "LANGGRAPH_VALKEY_OWNER_ALIVE_S": "3.5",
            "LANGGRAPH_VALKEY_RECOVER_ON_REWIND": "0",
            "LANGGRAPH_VALKEY_OUTBOX_POLL_S": "0.5",
            "LANGGRAPH_VALKEY_OUTBOX_LEASE_S": "5",
            "LANGGRAPH_VALKEY_OUTBOX_ATTEMPTS_MOST": "3",
        }
    )
    assert found == TierSettings(
        transient=Settings.from_url("valkey://transient", durability="async", ttl_s=60.0),
        cache=Settings.from_url("valkey://cache", key_prefix="answers"),
        coordination=Settings.from_url("valkeys://locks", durability="sync"),
        primary="postgresql://u:p@db/agents",  # type: ignore[arg-type]
        primary_schema="agents",
        allow_unsafe=True,
        owner_alive_s=3.5,
        recover_on_rewind=False,
        outbox_poll_s=0.5,
        outbox_lease_s=5,
        outbox_attempts_most=3,
    )


def test_what_is_given_beats_the_environment() -> None:
    environ = {URL: "valkey://one", "LANGGRAPH_VALKEY_CACHE_URL": "valkey://two"}
    found = TierSettings.from_env(environ, transient="valkey://three", cache=None, owner_alive_s=2)
    assert found.transient.addresses == (("three", 6379),)
    assert (found.cache, found.owner_alive_s) == (None, 2)


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "valkey://from-the-process:7")
    assert TierSettings.from_env().transient.addresses == (("from-the-process", 7),)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, URL),
        ({URL: "valkey://h", "LANGGRAPH_VALKEY_CACHE_TTL_S": "5"}, "LANGGRAPH_VALKEY_CACHE_URL"),
        ({URL: "valkey://h", "LANGGRAPH_VALKEY_OWNER_ALIVE_S": "soon"}, "owner_alive_s"),
        ({URL: "valkey://h", "LANGGRAPH_VALKEY_OUTBOX_ATTEMPTS_MOST": "0"}, "outbox_attempts_most"),
        ({URL: "valkey://h", "LANGGRAPH_VALKEY_PRIMARY": "agents.db"}, "primary is no URL"),
        ({URL: "valkey://h", "LANGGRAPH_VALKEY_PRIMARY_SCHEMA": ""}, "primary_schema"),
        ({URL: "valkey://h", "LANGGRAPH_VALKEY_PRIMARY_SCHEMA": "agents"}, "PostgreSQL only"),
    ],
)
def test_what_is_wrong_is_named(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        TierSettings.from_env(environ)


def test_clusters_may_be_urls_or_connections() -> None:
    connection = ConnectionSettings.from_url("valkeys://u:p@h?request_timeout_ms=70")
    found = TierSettings(transient="valkey://h:2", coordination=connection)  # type: ignore[arg-type]
    assert found.transient.addresses == (("h", 2),)
    assert isinstance(found.coordination, Settings)
    assert found.coordination.request_timeout_ms == 70
    assert found.coordination.password == connection.password


def test_settings_are_frozen_and_know_their_fields() -> None:
    settings = TierSettings(transient=Settings())
    with pytest.raises(ValidationError):
        settings.owner_alive_s = 1.0
    with pytest.raises(ValidationError):
        TierSettings(transient=Settings(), primry="sqlite:///x")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "wrong",
    [
        {"primary": SECRET},
        {"primary": f"postgresql://u:{SECRET}@h/d", "owner_alive_s": -1},
        {"primary": [f"postgresql://u:{SECRET}@h/d"]},
        {"transient": f"valkey://u:{SECRET}#@h"},
        {"coordination": f"valkey://u:{SECRET}@h?no_such=1"},
        {"cache": {"password": SECRET, "ttl_s": -1}},
    ],
)
def test_no_error_repeats_a_secret(wrong: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, ValidationError)) as raised:
        TierSettings(**{"transient": Settings(), **wrong})
    assert SECRET not in "".join(traceback.format_exception(raised.value, chain=True))
    assert SECRET not in repr(raised.value)


def test_no_text_of_settings_shows_a_secret() -> None:
    settings = TierSettings.from_env(
        {URL: f"valkey://u:{SECRET}@h", "LANGGRAPH_VALKEY_PRIMARY": f"postgresql://u:{SECRET}@h/d"}
    )
    for text in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.primary}"):
        assert SECRET not in text
