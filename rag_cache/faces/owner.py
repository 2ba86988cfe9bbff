"""Whose the entries of a face are, and how they are found and forgotten together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rag_cache.scope import Scope

if TYPE_CHECKING:
    from rag_cache.semantic_cache import SemanticCache

Tenant: TypeAlias = str | Callable[..., str | None]
"""A tenant, or who tells it for each call; None if nothing may be cached for that call."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the entries of a face are.

    Attributes:
        face: Which face, and its label: faces with different ones share no entries.
        tenant: Whose entries, or who tells it.
        corpus: Name of the collection of documents that they are made from.
    """

    face: str
    tenant: Tenant
    corpus: str

    def __post_init__(self) -> None:
        _ = Scope(tenant="" if callable(self.tenant) else self.tenant, corpus=self.corpus)

    def tenant_now(self, *about: Any) -> str | None:
        """Whose call it is; None if nothing may be cached for it.

        Raises:
            TypeError: It is told as something else.
        """
        tenant = self.tenant(*about) if callable(self.tenant) else self.tenant
        if tenant is not None and not isinstance(tenant, str):
            raise TypeError(
                f"the tenant of a call must be a string, or None to cache nothing, not a "
                f"{type(tenant).__name__}"
            )
        return tenant

    def scope(self, tenant: str, extra: Mapping[str, Any], **fields: Any) -> Scope:
        """A scope of this face; nothing else shares it."""
        told = {"face": self.face, **extra}
        return Scope(tenant=tenant, corpus=self.corpus, extra=told, **fields)

    def tags(self, tenant: str, more: Iterable[str] = ()) -> tuple[str, ...]:
        """Tags of an entry: by these two, all of the face are forgotten, or all of a tenant."""
        return (self._tag(None), self._tag(tenant), *more)

    def clear(self, cache: SemanticCache, tenant: str | None) -> None:
        """Forget entries, in all processes.

        Args:
            cache: In which cache.
            tenant: Whose; None for those of the face's own tenant, or of all tenants if that
                is told for each call.

        Raises:
            InvalidationPending: See `SemanticCache.invalidate`.
        """
        cache.invalidate(tag=self._cleared(tenant), corpus=self.corpus)

    async def aclear(self, cache: SemanticCache, tenant: str | None) -> None:
        """Forget entries; see `clear`."""
        await cache.ainvalidate(tag=self._cleared(tenant), corpus=self.corpus)

    def _cleared(self, tenant: str | None) -> str:
        if tenant is None and not callable(self.tenant):
            return self._tag(self.tenant)
        return self._tag(tenant)

    def _tag(self, tenant: str | None) -> str:
        return f"face:{self.face}" if tenant is None else f"face:{self.face} of {tenant}"
