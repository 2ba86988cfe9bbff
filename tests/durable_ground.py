"""What tests of durable items share: stores on one primary store, which may be away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey import Unreachable, operations
from langgraph_valkey.items import committing
from langgraph_valkey.items.memories import Step
from langgraph_valkey.items.names import bucket_of, pack_namespace
from langgraph_valkey.keeper import Keeper
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.operations import Answer
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.primary.memories import Memory
from langgraph_valkey.primary.opening import open_store
from tests.dynamo_ground import new_store
from tests.primary_ground import Postgres
from tests.store_ground import NS, StoreFace

BUCKET = bucket_of(pack_namespace(NS), 16)
BARE = {"durability": "none"}
"""Without a journal: what is lost comes back by the primary store, or not at all."""


class Away:
    """One face of a primary store, which may be away."""

    def __init__(self, face: Any, ground: Ground) -> None:
        self._face = face
        self._ground = ground

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._face, name)
        if not callable(found):
            return found

        async def ask(*args: Any, **given: Any) -> Any:
            self._ground.asked.append(name)
            if name == "memories":
                self._ground.since.append(given["since"])
            if self._ground.is_away:
                raise Unreachable("the primary store is away")
            return await found(*args, **given)

        return ask


class Ground:
    """A primary store, and stores that use it; each stands for a process.

    Attributes:
        is_away: Whether the primary store can't be reached.
        asked: What it was asked, by all processes.
        since: From which changes on it was asked for others.
    """

    def __init__(self, kind: str, url: str, prefix: str, primary: PrimaryStore) -> None:
        self.kind = kind
        self.is_away = False
        self.asked: list[str] = []
        self.since: list[int] = []
        self.primary = primary
        self.space = f"{prefix}:store"
        self._given = {"key_prefix": prefix, **BARE}
        self._url = url
        self._made: list[StoreFace] = []

    @property
    def blocking(self) -> Any:
        return Away(self.primary.blocking, self)

    @property
    def loops(self) -> Any:
        return Away(self.primary.loops, self)

    def open(self, **settings: Any) -> StoreFace:
        """Another process."""
        given = {"primary_store": self, **self._given, **settings}
        self._made.append(StoreFace(self.kind, self._url, **given))
        return self._made[-1]

    def recorded(self) -> dict[bytes, Memory]:
        """What the primary store has of the bucket of `NS`."""
        page = finish(self.primary.blocking.memories(self.space, BUCKET, limit=999))
        return {each.name: each for each in page}

    async def close(self) -> None:
        for each in self._made:
            await each.store.aclose(0)
        await self.primary.aclose()


@pytest.fixture
def unkept(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """No keeper, so that calls have to find out themselves; what is returned lets it go on."""
    start = Keeper.start
    monkeypatch.setattr(Keeper, "start", lambda _: None)
    return lambda: monkeypatch.setattr(Keeper, "start", start)


def of_record(name: str, request: pytest.FixtureRequest, folder: Path) -> PrimaryStore:
    """A primary store of this kind, empty."""
    if name == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return open_store(server.url_of_new_schema())
    if name == "dynamodb":
        client: Any = request.getfixturevalue("dynamo")
        return new_store(client.meta.endpoint_url, client=client, session=None)
    return open_store(f"sqlite:///{folder}/primary.db")


@pytest.fixture(params=["sync-sqlite", "async-sqlite", "async-postgresql", "sync-dynamodb"])
async def lasting(
    request: pytest.FixtureRequest,
    valkey: LocalValkey,
    prefix: str,
    tmp_path: Path,
    unkept: Callable[[], None],
) -> AsyncIterator[Ground]:
    """Stores on one shard, over each primary store; that has contract tests of both its faces."""
    kind, _, name = str(request.param).partition("-")
    made = Ground(kind, valkey.url, prefix, of_record(name, request, tmp_path))
    yield made
    await made.close()


@pytest.fixture
async def lasting_on_many(
    kind: str, plain: LocalCluster, prefix: str, tmp_path: Path, unkept: Callable[[], None]
) -> AsyncIterator[Ground]:
    """Stores on three shards with a replica each."""
    made = Ground(kind, plain.url, prefix, open_store(f"sqlite:///{tmp_path}/primary.db"))
    yield made
    await made.close()


class Keys:
    """The keys of a test on the server."""

    def __init__(self, server: LocalValkey, prefix: str) -> None:
        self._server = server
        self._prefix = prefix.encode()

    def names(self) -> list[bytes]:
        found = self._server.command("KEYS", self._prefix + b":store*")
        assert isinstance(found, list)
        return [name for name in found if isinstance(name, bytes) and b"layout" not in name]

    def lose(self) -> None:
        """As by FLUSHALL."""
        for name in self.names():
            self._server.command("DEL", name)

    def dump(self) -> dict[bytes, Any]:
        return {name: self._server.command("DUMP", name) for name in self.names()}

    def rewind(self, dump: dict[bytes, Any]) -> None:
        """To what was there then."""
        self.lose()
        for name, raw in dump.items():
            self._server.command("RESTORE", name, 0, raw)


@pytest.fixture
def store_keys(valkey: LocalValkey, prefix: str) -> Keys:
    return Keys(valkey, prefix)


async def look(face: StoreFace, times: int = 1) -> None:
    """What the keeper of a process does."""
    for _ in range(times):
        link = face.store._session.blocking
        await asyncio.to_thread(finish, face.store._tending.round(link, now=True))


def bring(face: StoreFace, changes: list[bytes], step: Step) -> Answer:
    """Send one call that brings changes."""
    durables = face.store._buckets.durables
    assert durables is not None
    call = durables.build(BUCKET, changes, step)
    [reply] = finish(face.store._session.blocking.send([call]))
    return operations.read(reply)


def die_between(
    face: StoreFace, monkeypatch: pytest.MonkeyPatch, key: str, value: dict[str, Any]
) -> None:
    """A process dies when it has recorded something, and before Valkey is told."""

    async def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(committing.Committer, "_bring", die)
        with pytest.raises(KeyboardInterrupt):
            face.store.put(NS, key, value, durable=True)
