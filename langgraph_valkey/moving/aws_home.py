"""Threads of langchain-aws's `ValkeySaver`, which is another layout on the same server.

Its `get_tuple` and `list` give nothing where the server does not answer, and `list(None)`
gives nothing at all. So what there is, is asked of the server itself, by the saver's own
client: a list of ids under ``thread:{id}:namespace``, newest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from langgraph_valkey.boundary.carrying import Cargo, address
from langgraph_valkey.errors import Unreachable
from langgraph_valkey.moving.cargo import Address, tasks_in
from langgraph_valkey.moving.homes import SaverHome
from langgraph_valkey.moving.opaque import NotCarried

_STEM, _END = "thread:{", "}:"
_GLOB = set("*?[]\\^")


class AwsHome(SaverHome):
    """Threads as langchain-aws's `ValkeySaver` keeps them."""

    def threads(self) -> Iterator[str]:
        """See `Home.threads`."""
        yield from dict.fromkeys(thread for thread, _ in self._lists("*"))

    def _lists(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Thread and namespace of each list of ids."""
        saver: Any = self.saver
        with _asking():
            keys = list(saver.client.scan_iter(match=f"{_STEM}{pattern}{_END}*", count=500))
        for key in keys:
            name = key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else key
            thread, _, namespace = name.removeprefix(_STEM).rpartition(_END)
            yield thread, namespace

    def addresses(self, thread: str) -> list[Address]:
        """See `Home.addresses`."""
        named = "".join(f"\\{each}" if each in _GLOB else each for each in thread)
        found = {
            (namespace, checkpoint_id)
            for of, namespace in self._lists(named)
            for checkpoint_id in self._ids(thread, namespace)
            if of == thread
        }
        return sorted(found)

    def _ids(self, thread: str, namespace: str) -> list[str]:
        saver: Any = self.saver
        with _asking():
            found = saver.client.lrange(f"{_STEM}{thread}{_END}{namespace}", 0, -1)
        return [each.decode() if isinstance(each, bytes) else each for each in found]

    def heads(self, thread: str) -> dict[str, str]:
        """See `Home.heads`: what was put last, whatever its id."""
        heads = {}
        for namespace in dict.fromkeys(namespace for namespace, _ in self.addresses(thread)):
            heads[namespace] = self._ids(thread, namespace)[0]
        return heads

    def cargo(self, thread: str, at: Address) -> Cargo | None:
        """See `SaverHome.cargo`.

        Raises:
            NotCarried: Its id is there, and it is not.
        """
        with _asking():
            found = self.saver.get_tuple(address(thread, *at))
        if found is None and at[1] in self._ids(thread, at[0]):
            raise NotCarried(
                f"checkpoint {at[1]!r} of thread {thread!r} has expired or was evicted, though "
                "the thread lists it: delete the thread, or move it by a saver that is pruned"
            )
        return None if found is None else Cargo(found, tasks_in(found.pending_writes))

    def put(self, thread: str, cargoes: Iterable[Cargo], heads: Mapping[str, str]) -> None:
        """See `Home.put`. The last one that is put is the head.

        One that is put twice would be listed twice.
        """
        last: dict[str, Cargo] = {}
        for cargo in cargoes:
            if cargo.id == heads.get(cargo.namespace):
                last[cargo.namespace] = cargo
            else:
                self._put(thread, cargo)
        for cargo in last.values():
            self._put(thread, cargo)

    def _put(self, thread: str, cargo: Cargo) -> None:
        with _asking():
            self._put_writes(thread, cargo)
            if cargo.id not in self._ids(thread, cargo.namespace):
                self._put_checkpoint(thread, cargo)

    def delete(self, thread: str) -> None:
        """See `Home.delete`.

        Raises:
            NotCarried: Its name is a pattern, by which the saver would delete others.
        """
        if _GLOB & set(thread):
            raise NotCarried(
                f"langchain-aws's ValkeySaver takes the name {thread!r} for a pattern and would "
                "delete other threads: delete its keys by hand"
            )
        with _asking():
            super().delete(thread)


@contextmanager
def _asking() -> Iterator[None]:
    """Turn what valkey-py raises into our errors, without its texts."""
    try:
        yield
    except Exception as error:
        if any(each.__module__.partition(".")[0] == "valkey" for each in type(error).__mro__):
            raise Unreachable(
                f"the server did not do it ({type(error).__name__}): look whether it runs, has "
                "memory and is no cluster of several shards, which langchain-aws can't use"
            ) from error
        raise
