"""Where the server is and how to talk to it: one frozen model.

`ConnectionSettings` is built from a URL, from the environment or from code, and
all three end in the same checks. A URL may name several nodes, since a cluster
is found through any one that answers::

    valkeys://user:pass%40word@node1:6379,node2:6379/?request_timeout_ms=800

``valkeys`` and ``rediss`` mean TLS. Everything after ``?`` is a field of the
model by its name; ``mode=standalone`` stands for ``cluster_mode=false``.

Secrets are the one thing that must not travel: a password is never a query
parameter, never part of a repr, and no error repeats any part of a URL in which
a password may hide.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, unquote

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretBytes,
    SecretStr,
    ValidationError,
    model_validator,
)

from langgraph_valkey import limits
from langgraph_valkey.errors import ConfigurationError

DEFAULT_PORT = 6379
_TLS_OF_SCHEME = {"valkey": False, "redis": False, "valkeys": True, "rediss": True}
_URL_HINT = (
    "expected valkey://user:password@host:port,host2:port2/?name=value "
    "(valkeys:// for TLS; percent-encode / ? # @ : in a user name or password)"
)
_SECRET = frozenset({"username", "password", "digest_key"})
_NOT_IN_QUERIES = _SECRET | {"addresses", "tls", "cluster_mode"}
_CLUSTER_OF_MODE = {"cluster": True, "standalone": False}


class ConnectionSettings(BaseModel):
    """How to reach one cluster (or one standalone server).

    Attributes:
        addresses: Hosts and ports of some nodes; the rest of a cluster is found.
        cluster_mode: Whether the server runs in cluster mode.
        tls: Whether to encrypt the connection.
        tls_ca_file: A PEM file of the authorities to trust instead of the system's.
        tls_insecure: Trust any certificate. For tests only.
        username: ACL user name; the default user if not given.
        password: ACL password. Not together with IAM.
        iam_cluster_name: Name of the cluster for IAM sign-in, which it switches on.
        iam_region: AWS region of that cluster.
        iam_service: Which AWS service runs it.
        database: Number of the database; only without cluster mode.
        request_timeout_ms: How long one request may take.
        connection_timeout_ms: How long connecting to one node may take.
        reject_deadline_s: How long a write that the server refuses is tried again.
        read_deadline_s: How long a call is tried again while no server answers.
        unknown_retry_deadline_s: How long a write of unknown outcome is sent again.
        in_flight_most: Requests under way at once on one client; more wait.
        durability: What the cluster promises about acknowledged writes.
        protocol: Version of the wire protocol, RESP; 2 for a server whose search module does
            not speak 3.
        client_name: Name shown by CLIENT LIST.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    addresses: tuple[tuple[str, int], ...] = (("127.0.0.1", DEFAULT_PORT),)
    cluster_mode: bool = True
    tls: bool = False
    tls_ca_file: Path | None = None
    tls_insecure: bool = False
    username: str | None = None
    password: SecretStr | None = None
    iam_cluster_name: str | None = None
    iam_region: str | None = None
    iam_service: Literal["elasticache", "memorydb"] = "elasticache"
    database: int = Field(default=0, ge=0)
    request_timeout_ms: int = Field(default=limits.REQUEST_TIMEOUT_MS, ge=1, le=600_000)
    connection_timeout_ms: int = Field(default=limits.CONNECTION_TIMEOUT_MS, ge=1, le=600_000)
    reject_deadline_s: float = Field(default=limits.REJECT_DEADLINE_S, ge=0, allow_inf_nan=False)
    read_deadline_s: float = Field(default=limits.READ_DEADLINE_S, ge=0, allow_inf_nan=False)
    unknown_retry_deadline_s: float = Field(
        default=limits.UNKNOWN_RETRY_DEADLINE_S, ge=0, allow_inf_nan=False
    )
    in_flight_most: int = Field(default=limits.IN_FLIGHT_MOST, ge=1, le=100_000)
    durability: Literal["async", "sync", "disabled", "none", "unknown"] = "unknown"
    protocol: int = Field(default=3, ge=2, le=3)
    client_name: str = Field(default="langgraph-valkey", pattern=r"^[!-~]*$")

    @property
    def may_evict(self) -> bool:
        """Whether the server is meant to evict keys when its memory is full."""
        return False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problem = _problem_of(self)
        if problem is not None:
            raise ConfigurationError(problem)
        return self

    @classmethod
    def from_url(cls, url: str, **overrides: Any) -> Self:
        """Read a URL; keyword arguments win over what it says.

        Args:
            url: As described at the top of this module.
            **overrides: Fields of this model.

        Raises:
            ConfigurationError: The URL or a field is not valid.
        """
        fields = _fields_of_url(url, "the URL", cls._in_queries())
        return cls._checked({**fields, **overrides}, "the connection settings")

    @classmethod
    def from_env(
        cls,
        prefix: str = "LANGGRAPH_VALKEY_",
        environ: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Self:
        """Read ``<prefix>URL``, then one variable a field (``<prefix>TLS_CA_FILE``...).

        Args:
            prefix: What the names of the variables start with.
            environ: The environment; the process's own if not given.
            **overrides: Fields of this model, stronger than any variable.

        Raises:
            ConfigurationError: A value is not valid, or neither ``<prefix>URL``
                nor ``<prefix>ADDRESSES`` is set.
        """
        values = os.environ if environ is None else environ
        url = values.get(prefix + "URL")
        fields = _fields_of_url(url, f"{prefix}URL", cls._in_queries()) if url else {}
        for name in cls.model_fields:
            text = values.get(prefix + name.upper())
            if text is not None:
                fields[name] = _addresses_of(text) if name == "addresses" else text
        fields.update(overrides)
        if "addresses" not in fields:
            raise ConfigurationError(
                f"no server is named: set {prefix}URL, as in {prefix}URL=valkey://127.0.0.1:6379"
            )
        return cls._checked(fields, f"the variables {prefix}...")

    @classmethod
    def _in_queries(cls) -> tuple[str, ...]:
        """The fields that may stand behind the question mark of a URL."""
        return tuple(name for name in cls.model_fields if name not in _NOT_IN_QUERIES)

    @classmethod
    def _checked(cls, fields: dict[str, Any], source: str) -> Self:
        """Build the model; say what is wrong without repeating any value."""
        try:
            return cls(**fields)
        except ValidationError as error:
            found = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}"
                for each in error.errors(include_input=False, include_url=False)
            )
        raise ConfigurationError(f"{source} are not valid: {found}")


def _problem_of(settings: ConnectionSettings) -> str | None:
    """What does not fit together in settings whose fields are valid one by one."""
    if not settings.addresses:
        return "no address is given: name at least one node as (host, port)"
    if any(not host or not 0 < port < 65_536 for host, port in settings.addresses):
        return "an address is not valid: a host must not be empty, a port is from 1 to 65535"
    if settings.cluster_mode and settings.database:
        return "database is for standalone servers only: a cluster has just database 0"
    if (settings.tls_ca_file or settings.tls_insecure) and not settings.tls:
        return "tls_ca_file and tls_insecure need TLS: use valkeys:// or tls=True"
    if settings.iam_cluster_name is None:
        if settings.iam_region is not None:
            return "iam_region alone does nothing: set iam_cluster_name too"
        if settings.username and settings.password is None:
            return "username is given without a password: add one, or set iam_cluster_name"
        return None
    if not settings.tls:
        return "IAM sign-in needs TLS: use valkeys:// or tls=True"
    if settings.password is not None:
        return "password and IAM exclude each other: drop one of them"
    if not settings.username or not settings.iam_region:
        return "IAM sign-in needs username and iam_region beside iam_cluster_name"
    return None


def _fields_of_url(url: str, source: str, known: tuple[str, ...]) -> dict[str, Any]:
    """Split a URL into fields; values stay text, for the model to check."""
    scheme, separator, rest = url.partition("://")
    tls = _TLS_OF_SCHEME.get(scheme.lower())
    if not separator or tls is None:
        schemes = ", ".join(f"{name}://" for name in _TLS_OF_SCHEME)
        raise ConfigurationError(f"{source} must start with one of {schemes}; {_URL_HINT}")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    if "@" in query or "@" in path or "#" in rest or "#" in query:
        # Most likely a password with a bare / ? or #: name nothing of it.
        raise ConfigurationError(f"{source} is not valid; {_URL_HINT}")
    user_part, at, hosts = authority.rpartition("@")
    fields: dict[str, Any] = {"tls": tls, "addresses": _addresses_of(hosts, source)}
    if at:
        user, colon, password = user_part.partition(":")
        if user:
            fields["username"] = unquote(user)
        if colon and password:
            fields["password"] = unquote(password)
    if path:
        fields["database"] = path
    fields.update(_fields_of_query(query, source, known))
    return fields


def _fields_of_query(query: str, source: str, known: tuple[str, ...]) -> dict[str, str | bool]:
    fields: dict[str, str | bool] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "mode":
            if value not in _CLUSTER_OF_MODE:
                raise ConfigurationError(f"{source}: mode must be cluster or standalone")
            fields["cluster_mode"] = _CLUSTER_OF_MODE[value]
        elif name in _SECRET:
            raise ConfigurationError(
                f"{source} has {name} behind the question mark, where logs show it; {_URL_HINT}"
            )
        elif name not in known:
            raise ConfigurationError(
                f"{source} has an unknown parameter {name!r}; known are mode and "
                + ", ".join(known)
            )
        else:
            fields[name] = value
    return fields


def _addresses_of(text: str, source: str = "addresses") -> tuple[tuple[str, int], ...]:
    """Read ``host:port,[::1]:port,host``; the port may be left out."""
    addresses = []
    for part in text.split(","):
        host, port = part.strip(), ""
        if host.startswith("["):
            host, bracket, port = host[1:].partition("]")
            if not bracket or (port and not port.startswith(":")):
                raise ConfigurationError(f"{source} has a host with an unclosed [; {_URL_HINT}")
            port = port[1:]
        elif host.count(":") > 1:
            raise ConfigurationError(
                f"{source} has a host with several colons: write IPv6 as [::1]:6379; {_URL_HINT}"
            )
        else:
            host, _, port = host.partition(":")
        if not host:
            raise ConfigurationError(f"{source} names no host; {_URL_HINT}")
        if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
            raise ConfigurationError(
                f"{source} has a port that is no number from 1 to 65535; {_URL_HINT}"
            )
        addresses.append((unquote(host), int(port) if port else DEFAULT_PORT))
    return tuple(addresses)


class Settings(ConnectionSettings):
    """All there is to set: the connection, and how threads are kept.

    Attributes:
        key_prefix: What all keys begin with. Savers with different prefixes do
            not see each other's threads.
        ttl_s: A thread expires this long after its last write; None keeps it.
        refresh_ttl_on_read: Reading a checkpoint puts the expiry off as well.
        replay: Whether to keep what is not durable yet, and replay it after a failover.
        lag_bound_s: By how much the log of a cluster with async durability may lag.
        journal_bytes_max: How much of what is not durable yet is kept in memory.
        spool_dir: A directory on a local disk where it is kept as well, so that it
            outlives this process; one directory for one cluster and key prefix.
            A store keeps what is its in a folder within.
        spool_bytes_max: How much of it this process may keep there.
        replay_grace_s: For how long after a failover reads wait for what other
            processes replay.
        on_fork: Whether a fork is only reported, or raised by the next call on its
            thread as well.
        aws_replication_group: Id of the ElastiCache replication group, to ask AWS
            which durability is in force; needs the extra ``aws``.
        aws_region: Its region; that of the environment if not given.
        store_buckets: In how many parts a store keeps its items, each in one slot of the
            cluster: the same in every process, and for good.
        server_index: Whether a store puts its vectors also where the server's search module,
            if it has one, sees them: for what is too much to hold at hand. Never with an
            encrypting serializer.
        digest_key: 16 to 64 random bytes, the same in every process; needed with
            an encrypting serializer (see `codec`). A text stands for its UTF-8.
    """

    key_prefix: str = Field(default="lgv", pattern=r"^[A-Za-z0-9_.:/-]+$")
    ttl_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    refresh_ttl_on_read: bool = False
    replay: bool = True
    lag_bound_s: float = Field(default=limits.LAG_BOUND_S, gt=0, le=3600)
    journal_bytes_max: int = Field(default=limits.JOURNAL_BYTES_MAX, ge=1024 * 1024)
    spool_dir: Path | None = None
    spool_bytes_max: int = Field(default=limits.SPOOL_BYTES_MAX, ge=1024 * 1024)
    replay_grace_s: float = Field(default=limits.REPLAY_GRACE_S, ge=0, le=60)
    on_fork: Literal["report", "raise"] = "report"
    aws_replication_group: str | None = None
    aws_region: str | None = None
    store_buckets: int = Field(default=limits.STORE_BUCKETS, ge=1, le=1024)
    server_index: bool = True
    digest_key: SecretBytes | None = None
