"""The methods of a cache for plain keys: values that an exact key finds."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.link import finish
from rag_cache.answers import Face
from rag_cache.plain import Plain
from rag_cache.settings import CacheSettings, check_ttl

T = TypeVar("T")
_log = logging.getLogger("rag_cache")


class PlainFace:
    """Plain keys, on both faces.

    Reading and writing fail open: a server in trouble has nothing and keeps nothing.

    Args:
        settings: All there is to set.
        blocking: The blocking face.
        loops: The async face.
    """

    def __init__(self, settings: CacheSettings, blocking: Face, loops: Face) -> None:
        self._plain = Plain(settings.key_prefix)
        self._plain_settings = settings
        self._ttl_of = settings.ttl_of
        self._face_blocking = blocking
        self._face_loops = loops

    def apart(self, name: str) -> PlainFace:
        """Plain keys of their own, over the same connections.

        Clearing all namespaces there leaves those here as they are, and the other way round.

        Args:
            name: Letters, digits, and ``_.-``.

        Raises:
            ValueError: The name holds something else, or nothing.
        """
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ValueError("such a name has letters, digits, '_', '.' and '-' alone")
        prefix = f"{self._plain_settings.key_prefix}/{name}"
        settings = self._plain_settings.model_copy(update={"key_prefix": prefix})
        return PlainFace(settings, self._face_blocking, self._face_loops)

    def get_many(self, namespace: str, keys: Sequence[str]) -> dict[str, bytes]:
        """The values of those keys that have one.

        Args:
            namespace: Of which namespace.
            keys: Which keys.
        """
        return finish(self._got(self._face_blocking, namespace, keys))

    async def aget_many(self, namespace: str, keys: Sequence[str]) -> dict[str, bytes]:
        """The values of those keys that have one; see `get_many`."""
        return await self._got(self._face_loops, namespace, keys)

    def put_many(
        self,
        namespace: str,
        values: Mapping[str, bytes],
        *,
        ttl_s: float | None = None,
        kind: str = "node",
    ) -> bool:
        """Keep values.

        Args:
            namespace: In which namespace.
            values: What is to be kept, by keys.
            ttl_s: How long they live at most; that of their kind if not given.
            kind: "node", "embedding", or a kind of `CacheSettings.ttl_s`.

        Returns:
            Whether they are kept.

        Raises:
            TypeError: A value is not bytes.
            ValueError: The time to live is none.
        """
        return finish(self._put(self._face_blocking, namespace, values, ttl_s, kind))

    async def aput_many(
        self,
        namespace: str,
        values: Mapping[str, bytes],
        *,
        ttl_s: float | None = None,
        kind: str = "node",
    ) -> bool:
        """Keep values; see `put_many`."""
        return await self._put(self._face_loops, namespace, values, ttl_s, kind)

    def clear_namespace(self, namespace: str | None) -> None:
        """Forget a namespace's values; those of all namespaces if it is None.

        Raises:
            LanggraphValkeyError: The server could not be told, and may have told only some.
        """
        finish(self._plain.forget(self._face_blocking.writes, namespace))

    async def aclear_namespace(self, namespace: str | None) -> None:
        """Forget a namespace's values; see `clear_namespace`."""
        await self._plain.forget(self._face_loops.writes, namespace)

    async def _got(self, face: Face, namespace: str, keys: Sequence[str]) -> dict[str, bytes]:
        if not keys:
            return {}
        return await _open(self._plain.recall(face.lookups, namespace, keys), {})

    async def _put(
        self,
        face: Face,
        namespace: str,
        values: Mapping[str, bytes],
        ttl_s: float | None,
        kind: str,
    ) -> bool:
        if not all(isinstance(value, bytes) for value in values.values()):
            raise TypeError("values under plain keys must be bytes")
        life_s = self._ttl_of(kind) if ttl_s is None else check_ttl(ttl_s)
        lives = {key: (value, face.writer.life_ms(life_s)) for key, value in values.items()}
        if not lives:
            return True

        async def keep() -> bool:
            await self._plain.keep(face.writes, namespace, lives)
            return True

        return await _open(keep(), False)


async def _open(attempt: Awaitable[T], otherwise: T) -> T:
    """What an attempt returns, or something else if the server is in trouble."""
    try:
        return await attempt
    except LanggraphValkeyError as failure:
        _log.info("plain keys can't be used now: %s", failure)
        return otherwise
