"""What a URL may say, what is told of one that is wrong, and that no secret is."""

from __future__ import annotations

import traceback

import pytest
from psycopg.errors import ConnectionTimeout
from sqlalchemy.exc import OperationalError

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.link import finish
from langgraph_valkey.primary.opening import open_store
from langgraph_valkey.sql.errors import Trouble, trouble_of
from langgraph_valkey.sql.store import SqlStore


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:pa@secret@host/db",
        "secret@host:5432/db",
        "secret:secret@host:5432/db",
    ],
)
def test_what_is_left_of_a_password_is_not_told(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"can't be read|no URL") as caught:
        open_store(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_password_in_the_query_is_hidden() -> None:
    store = SqlStore("postgresql://127.0.0.1:1/db?user=user&password=secret")
    assert "secret" not in repr(store.engine)
    _, given = store.engine.dialect.create_connect_args(store.engine.url)
    assert (given["user"], given["password"]) == ("user", "secret")
    store.close()


@pytest.mark.parametrize(
    "query", ["nonsense=1", "sslmode=sometimes", "connect_timeout=long", "keepalives_idle=long"]
)
def test_a_parameter_that_is_none_is_no_outage(query: str) -> None:
    store = SqlStore(f"postgresql://user@127.0.0.1:1/db?{query}")
    with pytest.raises(ConfigurationError, match="after the question mark"):
        finish(store.blocking.setup())
    store.close()


def test_a_connection_that_takes_too_long_is_an_outage() -> None:
    failure = OperationalError("", {}, ConnectionTimeout("connection timeout expired"))
    assert trouble_of(failure) is Trouble.GONE
