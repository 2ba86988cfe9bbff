"""From a URL to a primary store; the parts it takes are imported only then."""

from __future__ import annotations

from typing import Any

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.primary.contract import PrimaryStore


def open_store(url: str, **options: Any) -> PrimaryStore:
    """A store of record.

    Args:
        url: ``sqlite:///path``, ``postgresql://user@host/database`` or
            ``dynamodb://...``.
        **options: As of `SqlStore`, or of the DynamoDB store.

    Raises:
        ConfigurationError: The URL can't be used, or a package it takes is missing.
    """
    scheme, is_url, _ = url.partition("://")
    scheme = scheme.partition("+")[0]
    if scheme in ("sqlite", "postgres", "postgresql"):
        return _sql(url, options)
    if scheme == "dynamodb":
        return _dynamodb(url, options)
    raise ConfigurationError(
        "a primary store can't be opened by "
        + (f"a URL that begins with {scheme[:20]!r}" if is_url else "what is no URL")
        + ": use sqlite:///path, postgresql://user@host/database or dynamodb://table"
    )


def _sql(url: str, options: dict[str, Any]) -> PrimaryStore:
    try:
        from langgraph_valkey.sql.store import SqlStore
    except ImportError as failure:
        raise ConfigurationError(
            "a primary store on SQL needs SQLAlchemy: pip install 'langgraph-valkey[sql]', or "
            "[postgres] for PostgreSQL"
        ) from failure
    return SqlStore(url, **options)


def _dynamodb(url: str, options: dict[str, Any]) -> PrimaryStore:
    try:
        from langgraph_valkey.dynamodb.store import DynamoStore
    except ImportError as failure:
        raise ConfigurationError(
            "a primary store on DynamoDB needs boto3: pip install 'langgraph-valkey[aws]'"
        ) from failure
    return DynamoStore.from_url(url, **options)
