"""The methods of a store that put and delete, with one argument more: whether that is to last.

What LangGraph's own methods check, and make of their arguments, stays theirs: they are called
on a stand-in for the store, which makes durable operations of what they hand to `batch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

from langgraph.store.base import NOT_PROVIDED, BaseStore, NotProvided, PutOp, Result, TTLConfig

from langgraph_valkey.items.batch import DurablePut


class LastingPuts(BaseStore):
    """A store of which the items can go through a store of record.

    Attributes:
        ttl_config: How long items live.
    """

    ttl_config: TTLConfig | None

    def put(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        durable: bool = False,
    ) -> None:
        """Store or update an item; see `BaseStore.put`.

        A durable item is recorded in the primary store first. If that can't be asked the call
        raises, and nothing is stored (`OutcomeUnknown`: it may be; call again). If Valkey
        can't, the call raises, too, but the item is recorded, and will be there.

        An item may also be put without `durable` after it was put with it. The later put
        then counts, until Valkey loses both or the durable one alone: then the durable
        one is brought again, and counts. It goes by its deadline of the put: what reads put
        off, they put off in Valkey.

        Args:
            namespace: As of `BaseStore.put`.
            key: As of `BaseStore.put`.
            value: As of `BaseStore.put`.
            index: As of `BaseStore.put`.
            ttl: As of `BaseStore.put`.
            durable: Whether it goes through the primary store.

        Raises:
            ConfigurationError: It is to be durable, and the store has no `primary_store`.
        """
        BaseStore.put(self._maker(durable), namespace, key, value, index, ttl=ttl)

    async def aput(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        durable: bool = False,
    ) -> None:
        """Store or update an item; see `put`."""
        await BaseStore.aput(self._maker(durable), namespace, key, value, index, ttl=ttl)

    def delete(self, namespace: tuple[str, ...], key: str, *, durable: bool = False) -> None:
        """Delete an item; see `BaseStore.delete`.

        Args:
            namespace: As of `BaseStore.delete`.
            key: As of `BaseStore.delete`.
            durable: Whether the deletion goes through the primary store, as that of an item
                which was put so has to: else it may be there again after a failover.

        Raises:
            ConfigurationError: It is to be durable, and the store has no `primary_store`.
        """
        BaseStore.delete(self._maker(durable), namespace, key)

    async def adelete(self, namespace: tuple[str, ...], key: str, *, durable: bool = False) -> None:
        """Delete an item; see `delete`."""
        await BaseStore.adelete(self._maker(durable), namespace, key)

    def _maker(self, durable: bool) -> BaseStore:
        """By whose `batch` LangGraph's methods make of their arguments what they are to."""
        return cast(BaseStore, _Lasting(self)) if durable else self


class _Lasting:
    """A store as methods see it that make puts: what they make is durable."""

    supports_ttl = True

    def __init__(self, store: BaseStore) -> None:
        self.ttl_config = store.ttl_config
        self._store = store

    def batch(self, ops: Iterable[PutOp]) -> list[Result]:
        return self._store.batch([DurablePut(*op) for op in ops])

    async def abatch(self, ops: Iterable[PutOp]) -> list[Result]:
        return await self._store.abatch([DurablePut(*op) for op in ops])
