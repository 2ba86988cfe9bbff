"""Settings: from a URL, the environment or code; and what they never show."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from glide_shared.config import (
    GlideClientConfiguration,
    GlideClusterClientConfiguration,
    ServiceType,
)

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.glide.clients import configuration_of
from langgraph_valkey.settings import ConnectionSettings, Settings

SECRET = "hunter2-5ecret"
IAM = "iam_cluster_name=orders&iam_region=eu-central-1"


@pytest.mark.parametrize(
    ("url", "addresses", "tls"),
    [
        ("valkey://h", (("h", 6379),), False),
        ("redis://h:1", (("h", 1),), False),
        ("valkeys://h:65535/", (("h", 65535),), True),
        ("REDISS://h1:1,h2,[::1]:3", (("h1", 1), ("h2", 6379), ("::1", 3)), True),
        ("valkey://[fe80::1]", (("fe80::1", 6379),), False),
    ],
)
def test_addresses_and_tls_of_a_url(
    url: str, addresses: tuple[tuple[str, int], ...], tls: bool
) -> None:
    settings = ConnectionSettings.from_url(url)
    assert (settings.addresses, settings.tls) == (addresses, tls)


def test_user_and_password_are_percent_decoded() -> None:
    settings = ConnectionSettings.from_url("valkey://us%3Aer:p%40ss%2Fw%3Frd@h")
    assert settings.username == "us:er"
    assert settings.password is not None
    assert settings.password.get_secret_value() == "p@ss/w?rd"


def test_query_parameters_are_fields() -> None:
    settings = ConnectionSettings.from_url(
        "valkey://h/2?mode=standalone&request_timeout_ms=800&reject_deadline_s=1.5"
        "&in_flight_most=7&durability=async&client_name=agents"
    )
    assert not settings.cluster_mode
    assert settings.database == 2
    assert settings.request_timeout_ms == 800
    assert settings.reject_deadline_s == 1.5
    assert settings.in_flight_most == 7
    assert settings.durability == "async"
    assert settings.client_name == "agents"
    assert ConnectionSettings.from_url("valkey://h/0?mode=cluster").cluster_mode


def test_a_savers_settings_are_query_parameters_too() -> None:
    settings = Settings.from_url("valkey://h?key_prefix=agents&ttl_s=60")
    assert (settings.key_prefix, settings.ttl_s) == ("agents", 60.0)
    with pytest.raises(ConfigurationError, match="behind the question mark") as caught:
        Settings.from_url(f"valkey://h?digest_key={SECRET}")
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigurationError, match="unknown parameter"):
        ConnectionSettings.from_url("valkey://h?key_prefix=agents")


def test_keyword_arguments_win_over_the_url() -> None:
    settings = ConnectionSettings.from_url("valkey://h?in_flight_most=7", in_flight_most=8)
    assert settings.in_flight_most == 8


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"http://u:{SECRET}@h", "must start with"),
        (f"u:{SECRET}@h", "must start with"),
        (f"valkey://u:{SECRET}@h:port", "no number"),
        (f"valkey://u:{SECRET}@h:0", "no number"),
        (f"valkey://u:{SECRET}@h:65536", "no number"),
        (f"valkey://u:{SECRET}@", "names no host"),
        (f"valkey://u:{SECRET}@h,,g", "names no host"),
        (f"valkey://u:{SECRET}@[::1", "unclosed"),
        (f"valkey://u:{SECRET}@::1:2", "several colons"),
        (f"valkey://u:a/{SECRET}@h", "percent-encode"),
        (f"valkey://u:a?{SECRET}@h", "percent-encode"),
        (f"valkey://u:a#{SECRET}@h", "percent-encode"),
        (f"valkey://h?password={SECRET}", "behind the question mark"),
        (f"valkey://u:{SECRET}@h?colour=red", "unknown parameter 'colour'"),
        (f"valkey://u:{SECRET}@h?mode=cloud", "cluster or standalone"),
        (f"valkey://u:{SECRET}@h?request_timeout_ms={SECRET}", "request_timeout_ms"),
        (f"valkey://u:{SECRET}@h?request_timeout_ms=0", "request_timeout_ms"),
        (f"valkey://u:{SECRET}@h?reject_deadline_s=inf", "reject_deadline_s"),
        (f"valkey://u:{SECRET}@h/{SECRET}?mode=standalone", "database"),
        (f"valkey://u:{SECRET}@h/1", "standalone servers only"),
        (f"valkey://u:{SECRET}@h?tls_insecure=true", "need TLS"),
        (f"valkey://u@h?{IAM}", "needs TLS"),
        (f"valkeys://u:{SECRET}@h?{IAM}", "exclude each other"),
        (f"valkeys://h?{IAM}", "needs username"),
        ("valkeys://u@h?iam_cluster_name=orders", "iam_region"),
        ("valkeys://h?iam_region=eu-central-1", "iam_cluster_name"),
        ("valkey://u@h", "without a password"),
    ],
)
def test_a_wrong_url_is_explained_without_its_secret(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        ConnectionSettings.from_url(url)
    shown = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value)
    assert SECRET not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_secrets_are_never_shown() -> None:
    settings = ConnectionSettings.from_url(f"valkey://user:{SECRET}@h")
    for shown in (repr(settings), str(settings), str(settings.model_dump_json())):
        assert SECRET not in shown
    with pytest.raises(ValueError) as caught:
        ConnectionSettings(password=SECRET, port=1)  # type: ignore[arg-type, call-arg]
    assert SECRET not in str(caught.value)


def test_from_the_environment() -> None:
    settings = ConnectionSettings.from_env(
        environ={
            "LANGGRAPH_VALKEY_URL": "valkeys://user@h1?in_flight_most=7",
            "LANGGRAPH_VALKEY_PASSWORD": SECRET,
            "LANGGRAPH_VALKEY_IN_FLIGHT_MOST": "8",
            "LANGGRAPH_VALKEY_TLS_INSECURE": "true",
        }
    )
    assert settings.addresses == (("h1", 6379),)
    assert settings.password is not None
    assert settings.password.get_secret_value() == SECRET
    assert settings.in_flight_most == 8
    assert settings.tls_insecure


def test_from_an_environment_without_a_url() -> None:
    environ = {"LGV_ADDRESSES": "h1:1,h2", "LGV_CLUSTER_MODE": "false"}
    settings = ConnectionSettings.from_env("LGV_", environ)
    assert settings.addresses == (("h1", 1), ("h2", 6379))
    assert not settings.cluster_mode
    with pytest.raises(ConfigurationError, match="set LGV_URL"):
        ConnectionSettings.from_env("LGV_", {})


def test_a_wrong_variable_is_explained_without_its_value() -> None:
    environ = {"LANGGRAPH_VALKEY_URL": "valkey://h", "LANGGRAPH_VALKEY_DATABASE": SECRET}
    with pytest.raises(ConfigurationError, match="database") as caught:
        ConnectionSettings.from_env(environ=environ)
    assert SECRET not in str(caught.value)


def test_cluster_configuration_for_glide() -> None:
    configuration = configuration_of(
        ConnectionSettings.from_url(f"valkeys://user:{SECRET}@h1:1,h2:2?tls_insecure=true")
    )
    assert isinstance(configuration, GlideClusterClientConfiguration)
    assert [(node.host, node.port) for node in configuration.addresses] == [("h1", 1), ("h2", 2)]
    assert configuration.recovery_requests_queue_size == 0
    assert configuration.lazy_connect
    assert configuration.use_tls
    assert configuration.credentials is not None
    assert configuration.credentials.username == "user"
    assert configuration.credentials.password == SECRET
    request = configuration._create_a_protobuf_conn_request(cluster_mode=True)
    assert request.request_timeout == 1_000
    assert request.connection_timeout == 500


def test_standalone_configuration_for_glide() -> None:
    configuration = configuration_of(ConnectionSettings.from_url("valkey://h/3?mode=standalone"))
    assert isinstance(configuration, GlideClientConfiguration)
    assert configuration.database_id == 3
    assert configuration.credentials is None


@pytest.mark.parametrize(
    ("service", "expected"),
    [("elasticache", ServiceType.ELASTICACHE), ("memorydb", ServiceType.MEMORYDB)],
)
def test_iam_configuration_for_glide(service: str, expected: ServiceType) -> None:
    configuration: Any = configuration_of(
        ConnectionSettings.from_url(f"valkeys://user@h?{IAM}&iam_service={service}")
    )
    iam = configuration.credentials.iam_config
    assert configuration.credentials.username == "user"
    assert configuration.credentials.password is None
    assert (iam.cluster_name, iam.region, iam.service) == ("orders", "eu-central-1", expected)
    request = configuration._create_a_protobuf_conn_request(cluster_mode=True)
    assert request.authentication_info.iam_credentials.cluster_name == "orders"


def test_a_missing_file_of_authorities_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "authorities.pem"
    settings = ConnectionSettings.from_url("valkeys://h", tls_ca_file=missing)
    with pytest.raises(ConfigurationError, match=r"authorities\.pem can't be read"):
        configuration_of(settings)
