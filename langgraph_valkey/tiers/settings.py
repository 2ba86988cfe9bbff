"""Where each kind of state goes: one frozen model of all places.

==============  =====================================================================
place           holds
==============  =====================================================================
transient       checkpoints and pending writes: a cluster with async durability and
                ``noeviction``, whose losses are replayed
cache           what can be computed again: a cluster with ``allkeys-lru``; optional
coordination    locks: a cluster with sync durability; optional, else the primary
primary         what must not be lost: commits, runs, tombstones, the outbox
==============  =====================================================================

Each cluster may be given as `Settings` or as a URL. From the environment::

    LANGGRAPH_VALKEY_URL=valkeys://...            # and one variable a field of `Settings`
    LANGGRAPH_VALKEY_CACHE_URL=valkeys://...      # likewise LANGGRAPH_VALKEY_CACHE_...
    LANGGRAPH_VALKEY_COORDINATION_URL=valkeys://...
    LANGGRAPH_VALKEY_PRIMARY=postgresql://user:password@host/database
    LANGGRAPH_VALKEY_OWNER_ALIVE_S=15             # and the other fields of `TierSettings`
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.settings import ConnectionSettings, Settings

PREFIX = "LANGGRAPH_VALKEY_"

PRIMARY = "sqlite:///langgraph-valkey.db"
"""A file beside the program: enough for one machine."""

OWNER_ALIVE_S = 15.0
"""How long a process that runs graphs is believed to live after it last said so: a
garbage collection or a busy machine must not cost it its runs, and their users wait for
this long after a crash."""

OUTBOX_POLL_S = 2.0
"""How often the outbox is looked at for messages of other processes, and for those to be
sent again. Those of this process are sent at once."""

OUTBOX_LEASE_S = 60.0
"""How long a handler may take before another process may send the same message: longer
than the time limit of any usual HTTP client."""

OUTBOX_ATTEMPTS_MOST = 16
"""How often a message is tried: with the outbox's pauses for about an hour, so that an
outage of that length on the other side needs nobody's help."""

_CLUSTERS = ("cache", "coordination")


class TierSettings(BaseModel):
    """All places, and how they are used.

    Attributes:
        transient: The cluster for checkpoints.
        cache: The cluster for what can be computed again.
        coordination: The cluster for locks, which must have sync durability; without it
            locks are kept in the primary store.
        primary: URL of the primary store: ``sqlite:///file``, ``postgresql://...`` or
            ``dynamodb://...``. Never shown, since it may hold a password.
        primary_schema: The schema of its tables on PostgreSQL; that of the connection if
            not given.
        allow_unsafe: Only warn where a cluster is not as durable as what it holds needs.
        owner_alive_s: After how long of silence of a process its runs may be taken over.
        recover_on_rewind: Whether a failover that lost something makes this process look
            for runs to be done again.
        outbox_poll_s: How often the outbox is looked at.
        outbox_lease_s: How long the handler of a message may take.
        outbox_attempts_most: How often a message is tried before it is a dead letter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    transient: Settings
    cache: Settings | None = None
    coordination: Settings | None = None
    primary: SecretStr = SecretStr(PRIMARY)
    primary_schema: str | None = Field(default=None, min_length=1)
    allow_unsafe: bool = False
    owner_alive_s: float = Field(default=OWNER_ALIVE_S, ge=0.5, le=3600)
    recover_on_rewind: bool = True
    outbox_poll_s: float = Field(default=OUTBOX_POLL_S, ge=0.05, le=3600)
    outbox_lease_s: float = Field(default=OUTBOX_LEASE_S, ge=0.1, le=86_400)
    outbox_attempts_most: int = Field(default=OUTBOX_ATTEMPTS_MOST, ge=1, le=1000)

    @field_validator("transient", *_CLUSTERS, mode="before")
    @classmethod
    def _cluster(cls, given: Any) -> Any:
        """Take a URL, or settings of a connection alone, for a cluster."""
        if isinstance(given, str):
            return Settings.from_url(given)
        if isinstance(given, ConnectionSettings) and not isinstance(given, Settings):
            return Settings(**{name: getattr(given, name) for name in type(given).model_fields})
        return given

    @field_validator("primary")
    @classmethod
    def _named(cls, url: SecretStr) -> SecretStr:
        if "://" not in url.get_secret_value():
            raise ConfigurationError(
                "primary is no URL: give sqlite:///file.db, postgresql://user:password@host/name "
                "or dynamodb://..."
            )
        return url

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.primary_schema and not self.primary.get_secret_value().startswith("postgres"):
            raise ConfigurationError("primary_schema is for PostgreSQL only: leave it out")
        return self

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read the variables named at the top of this module.

        Args:
            environ: The environment; the process's own if not given.
            **overrides: Fields of this model, stronger than any variable.

        Raises:
            ConfigurationError: A value is not valid, or no transient cluster is named.
        """
        values = os.environ if environ is None else environ
        fields: dict[str, Any] = {
            name: values[PREFIX + name.upper()]
            for name in cls.model_fields
            if PREFIX + name.upper() in values
        }
        for name in _CLUSTERS:
            prefix = f"{PREFIX}{name.upper()}_"
            if name not in overrides and _is_named(prefix, values):
                fields[name] = Settings.from_env(prefix, values)
        if "transient" not in overrides:
            fields["transient"] = Settings.from_env(PREFIX, values)
        return cls._checked({**fields, **overrides})

    @classmethod
    def _checked(cls, fields: dict[str, Any]) -> Self:
        """Build the model; say what is wrong without repeating any value."""
        try:
            return cls(**fields)
        except ValidationError as error:
            found = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}"
                for each in error.errors(include_input=False, include_url=False)
            )
        raise ConfigurationError(f"the settings of the tiers are not valid: {found}")


def _is_named(prefix: str, values: Mapping[str, str]) -> bool:
    """Whether any variable speaks of this cluster."""
    return any(prefix + name.upper() in values for name in ("url", *Settings.model_fields))
