"""Making GLIDE clients, and what has to be known of GLIDE's insides for it.

Every client connects lazily (making one never waits for a server), keeps no
queue of requests to replay after a reconnect (that would hide from us what was
sent) and never retries a batch by itself.

**Who reads the replies.** All async clients of a process share one pipe, and
one event loop reads it: the loop on which the first client was made, until that
loop is closed. An await on any other loop hangs as soon as the reading loop is
blocked or has stopped, past GLIDE's own timeout. So an async client is only
used on the loop that owns the pipe; `can_own_replies` tells whether a loop is,
or would become, that one.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
from importlib import metadata
from typing import Any, TypeAlias

import glide
import glide_sync
from glide import glide_client as _glide_insides
from glide_shared.config import (
    AdvancedGlideClientConfiguration,
    AdvancedGlideClusterClientConfiguration,
    GlideClientConfiguration,
    GlideClusterClientConfiguration,
    IamAuthConfig,
    NodeAddress,
    ProtocolVersion,
    ServerCredentials,
    ServiceType,
    TlsAdvancedConfiguration,
)
from glide_shared.logger import Level, Logger

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.link import finish
from langgraph_valkey.settings import ConnectionSettings

NativeClient: TypeAlias = glide.GlideClient | glide.GlideClusterClient
BlockingClient: TypeAlias = glide_sync.GlideClient | glide_sync.GlideClusterClient
Configuration: TypeAlias = GlideClientConfiguration | GlideClusterClientConfiguration

GLIDE_VERSION = "2.6.0"
"""Both wheels must be of this one: they install the same shared files."""

SERVER_OLDEST = (7, 2)
"""The first release of Valkey."""

_PROTOCOLS = {2: ProtocolVersion.RESP2, 3: ProtocolVersion.RESP3}
_SERVICES = {"elasticache": ServiceType.ELASTICACHE, "memorydb": ServiceType.MEMORYDB}
_log = logging.getLogger("langgraph_valkey")
_checked_clusters: set[tuple[tuple[str, int], ...]] = set()


@functools.cache
def require_glide() -> None:
    """Check both wheels' versions and quieten GLIDE's own log, once a process.

    Raises:
        ConfigurationError: A wheel is missing or of another version.
    """
    for wheel in ("valkey-glide", "valkey-glide-sync"):
        try:
            found = metadata.version(wheel)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found != GLIDE_VERSION:
            raise ConfigurationError(
                f"{wheel} is {found}, but both GLIDE wheels must be {GLIDE_VERSION}, since they "
                "share files: pip install --force-reinstall "
                f"valkey-glide=={GLIDE_VERSION} valkey-glide-sync=={GLIDE_VERSION}"
            )
    # GLIDE's warnings go to stdout otherwise. A level the program chose stays.
    Logger.init(Level.ERROR)


def configuration_of(settings: ConnectionSettings) -> Configuration:
    """GLIDE's configuration for these settings.

    Raises:
        ConfigurationError: The file of trusted authorities can't be read.
    """
    shared: dict[str, Any] = {
        "addresses": [NodeAddress(host, port) for host, port in settings.addresses],
        "use_tls": settings.tls,
        "credentials": _credentials_of(settings),
        "request_timeout": settings.request_timeout_ms,
        "client_name": settings.client_name or None,
        "protocol": _PROTOCOLS[settings.protocol],
        # A cancelled call keeps its slot in GLIDE until it is answered, so
        # GLIDE's bound is twice ours, and never under its default.
        "inflight_requests_limit": max(1_000, 2 * settings.in_flight_most),
        "lazy_connect": True,
    }
    tls_config = _tls_of(settings)
    if settings.cluster_mode:
        return GlideClusterClientConfiguration(
            **shared,
            recovery_requests_queue_size=0,
            advanced_config=AdvancedGlideClusterClientConfiguration(
                connection_timeout=settings.connection_timeout_ms, tls_config=tls_config
            ),
        )
    return GlideClientConfiguration(
        **shared,
        database_id=settings.database,
        advanced_config=AdvancedGlideClientConfiguration(
            connection_timeout=settings.connection_timeout_ms, tls_config=tls_config
        ),
    )


def _credentials_of(settings: ConnectionSettings) -> ServerCredentials | None:
    if settings.iam_cluster_name is not None and settings.iam_region is not None:
        return ServerCredentials(
            username=settings.username,
            iam_config=IamAuthConfig(
                cluster_name=settings.iam_cluster_name,
                service=_SERVICES[settings.iam_service],
                region=settings.iam_region,
            ),
        )
    if settings.password is None:
        return None
    return ServerCredentials(
        password=settings.password.get_secret_value(), username=settings.username
    )


def _tls_of(settings: ConnectionSettings) -> TlsAdvancedConfiguration | None:
    if settings.tls_insecure:
        return TlsAdvancedConfiguration(use_insecure_tls=True)
    if settings.tls_ca_file is None:
        return None
    try:
        authorities = settings.tls_ca_file.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"tls_ca_file {settings.tls_ca_file} can't be read ({error.strerror}): "
            "name a PEM file of the authorities to trust"
        ) from error
    return TlsAdvancedConfiguration(root_pem_cacerts=authorities)


def make_blocking(settings: ConnectionSettings) -> BlockingClient:
    """A client for threads. GLIDE re-makes its connection in a forked child."""
    configuration = configuration_of(settings)
    if isinstance(configuration, GlideClusterClientConfiguration):
        return glide_sync.GlideClusterClient.create(configuration)
    return glide_sync.GlideClient.create(configuration)


def make_native(settings: ConnectionSettings) -> NativeClient:
    """A client of the running event loop.

    Making one never suspends (only a credential provider of the caller's would
    make it), so it is finished on the spot: two tasks can't make one each.
    """
    configuration = configuration_of(settings)
    if isinstance(configuration, GlideClusterClientConfiguration):
        return finish(glide.GlideClusterClient.create(configuration))
    return finish(glide.GlideClient.create(configuration))


def close_native(client: NativeClient) -> None:
    """Close an async client from the thread of its loop, or after that loop ended."""
    loop = getattr(client, "_loop", None)
    if loop is not None and loop.is_closed():
        # Nobody waits for these any more, and failing them would call a dead loop.
        getattr(client, "_pending_futures", {}).clear()
    finish(client.close())


def can_own_replies(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether an async client made on this loop has its replies read by it."""
    if getattr(_glide_insides, "_async_pipe_init_pid", -1) != os.getpid():
        return True  # No pipe in this process yet, or one left over from before a fork.
    owner = getattr(_glide_insides, "_async_pipe_loop", None)
    if owner is None:
        return not getattr(_glide_insides, "_async_pipe_registered", False)  # Else trio's.
    return bool(owner is loop or owner.is_closed())


def owns_replies(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this loop reads the replies of all async clients of the process."""
    return (
        getattr(_glide_insides, "_async_pipe_loop", None) is loop
        and getattr(_glide_insides, "_async_pipe_init_pid", -1) == os.getpid()
    )


def batch_of(settings: ConnectionSettings, commands: list[list[bytes]]) -> Any:
    """A non-atomic batch: what the server rejects comes back at once, with its text."""
    batch: Any = (glide.ClusterBatch if settings.cluster_mode else glide.Batch)(is_atomic=False)
    for command in commands:
        batch.custom_command(command)
    return batch


def is_checked(settings: ConnectionSettings) -> bool:
    """Whether this process has looked at this cluster already."""
    return settings.addresses in _checked_clusters


def check_server(settings: ConnectionSettings, info: str) -> None:
    """Look at a server's INFO once: is it new enough, and may it evict?

    Args:
        settings: Whose server it is.
        info: The text of INFO. Servers may hide parts of it: what is not there
            is not checked.

    Raises:
        ConfigurationError: The server is older than `SERVER_OLDEST`.
    """
    _checked_clusters.add(settings.addresses)
    fields = dict(re.findall(r"^(\w+):(.*?)\r?$", info, re.M))
    version = fields.get("valkey_version") or fields.get("redis_version") or ""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers and numbers < SERVER_OLDEST:
        _checked_clusters.discard(settings.addresses)
        raise ConfigurationError(
            f"the server is version {version}, but {SERVER_OLDEST[0]}.{SERVER_OLDEST[1]} or newer "
            "is needed: upgrade it"
        )
    policy = fields.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and not settings.may_evict:
        _log.warning(
            "the server may evict keys (maxmemory-policy is %s): parts of threads and items of "
            "stores can vanish, and deletions be forgotten. Set maxmemory-policy to noeviction.",
            policy,
        )
