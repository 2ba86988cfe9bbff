"""The two links against a real server: replies, errors, lanes, walks, access."""

from __future__ import annotations

import asyncio
import logging
import ssl
import statistics
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import trustme

from langgraph_valkey import limits
from langgraph_valkey.errors import (
    ConfigurationError,
    LanggraphValkeyError,
    OutcomeUnknown,
    StoreFull,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.glide import clients
from langgraph_valkey.glide.clients import GLIDE_VERSION, check_server, require_glide
from langgraph_valkey.link import Call, finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.local.node import free_ports
from langgraph_valkey.settings import ConnectionSettings
from tests.link_ground import (
    ECHO,
    Face,
    Wire,
    count,
    fail,
    get,
    links,
    outcomes,
    put,
    standalone,
)

PASSWORD = "an open secret"


@pytest.fixture(scope="module")
def shard() -> Iterator[LocalValkey]:
    with LocalValkey() as server:
        server.command(
            *("ACL", "SETUSER", "clerk", "on", ">" + PASSWORD, "~*", "+@all", "-flushall")
        )
        yield server


@pytest.fixture(params=["blocking", "loop"])
def face(shard: LocalValkey, request: pytest.FixtureRequest) -> Iterator[Face]:
    shard.command("FLUSHALL")
    opened = Face(request.param, ConnectionSettings.from_url(shard.url))
    yield opened
    opened.close()


async def test_replies_come_in_the_order_of_the_calls(face: Face) -> None:
    large = limits.LARGE_VALUE_BYTES
    assert await face.send(put(b"{t}a", b"1"), put(b"{u}b", b"2", size=large)) == [1, 1]
    assert await face.send(
        get(b"{u}b"),
        Call(ECHO, (b"k",), [b"\x00\xff"], writes=False),
        count(b"{v}n"),
        get(b"{t}a", size=large),
        get(b"{t}none"),
        count(b"{v}n"),
    ) == [b"2", [b"k", 7, None, [b"\x00\xff"]], 1, b"1", None, 2]
    assert await face.send() == []


@pytest.mark.parametrize(
    ("text", "of_a_write", "of_a_read"),
    [
        ("CLUSTERDOWN The cluster is down", WriteRejected, Unreachable),
        ("CLUSTERDOWN Hash slot not served", WriteRejected, Unreachable),
        ("NOREPLICAS Not enough good replicas to write.", WriteRejected, Unreachable),
        ("LOADING Valkey is loading the dataset in memory", WriteRejected, Unreachable),
        ("MASTERDOWN Link with MASTER is down", WriteRejected, Unreachable),
        ("TRYAGAIN Multiple keys request", WriteRejected, Unreachable),
        ("READONLY You can't write against a replica", WriteRejected, Unreachable),
        ("MISCONF Valkey is configured to save", WriteRejected, Unreachable),
        ("OOM command not allowed", StoreFull, StoreFull),
        ("NOPERM User has no permissions", ConfigurationError, ConfigurationError),
        ("NOAUTH Authentication required.", ConfigurationError, ConfigurationError),
        ("WRONGPASS invalid username-password", ConfigurationError, ConfigurationError),
        ("ERR of our own", LanggraphValkeyError, LanggraphValkeyError),
        ("OURCODE of our own", LanggraphValkeyError, LanggraphValkeyError),
        ("ERR see CLUSTERDOWN and OOM", LanggraphValkeyError, LanggraphValkeyError),
    ],
)
async def test_what_the_server_refuses(
    face: Face, text: str, of_a_write: type[Exception], of_a_read: type[Exception]
) -> None:
    for writes, expected in ((True, of_a_write), (False, of_a_read)):
        with pytest.raises(expected) as caught:
            await face.send(fail(text, writes=writes))
        assert type(caught.value) is expected
        assert type(caught.value.__cause__).__name__ == "RequestError"


async def test_a_rejection_comes_back_at_once_with_its_code(face: Face) -> None:
    times_s = []
    for _ in range(20):
        start = time.perf_counter()
        with pytest.raises(WriteRejected, match="ClusterDown"):
            await face.send(fail("CLUSTERDOWN The cluster is down", writes=True))
        times_s.append(time.perf_counter() - start)
    # About 1 ms; a retry or a timeout of GLIDE's own would take 250 ms or more.
    assert statistics.median(times_s) < 0.05


async def test_a_scripts_own_error_is_told_without_data(face: Face) -> None:
    call = fail("OURCODE thread 'private words' [and] (more) is not right", writes=True)
    with pytest.raises(LanggraphValkeyError, match="OURCODE") as caught:
        await face.send(call)
    for hidden in ("private", "and", "more"):
        assert hidden not in str(caught.value).partition("OURCODE")[2]


async def test_scripts_are_sent_again_after_a_flush(face: Face, shard: LocalValkey) -> None:
    assert await face.send(count(b"{t}n")) == [1]
    shard.command("SCRIPT", "FLUSH")
    assert await face.send(count(b"{t}n")) == [2]
    shard.command("SCRIPT", "FLUSH")
    assert await face.send(count(b"{t}n"), count(b"{t}n"), get(b"{t}m")) == [3, 4, None]


async def test_one_failure_among_many_is_raised_after_all_have_ended(face: Face) -> None:
    with pytest.raises(WriteRejected):
        await face.send(put(b"{t}a", b"1"), fail("NOREPLICAS x", writes=True), put(b"{t}b", b"2"))
    assert await face.send(get(b"{t}a"), get(b"{t}b")) == [b"1", b"2"]


async def test_a_walk_over_all_keys(face: Face) -> None:
    keys = {b"w:%d" % index for index in range(1_300)}
    await face.send(*(put(key, b"") for key in keys), put(b"other", b""))
    cursor, found, pages = None, set(), 0
    while True:
        cursor, page = await face.scan(cursor, b"w:*")
        found.update(page)
        pages += 1
        if cursor is None:
            break
    assert found == keys
    assert pages > 1


async def test_many_calls_at_once_wait_their_turn(face: Face) -> None:
    calls = 2_000
    if face.name == "loop":
        replies = await outcomes([face.send(count(b"n")) for _ in range(calls)])
        assert sorted(reply[0] for reply in replies) == list(range(1, calls + 1))
    else:
        threads = [
            threading.Thread(
                target=lambda: [finish(face.blocking.send([count(b"n")])) for _ in range(40)]
            )
            for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert await face.send(count(b"n")) == [calls + 1]


@pytest.mark.parametrize("most", [1, 3])
async def test_a_small_bound_on_calls_under_way(shard: LocalValkey, most: int) -> None:
    with links(shard.url, in_flight_most=most) as (blocking, loop):
        replies = await outcomes([loop.send([get(b"x")]) for _ in range(100)])
        assert replies == [[None]] * 100
        found: list[object] = []
        threads = [
            threading.Thread(target=lambda: found.append(finish(blocking.send([get(b"x")]))))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == [[None]] * 20


async def test_waiting_calls_may_be_cancelled(shard: LocalValkey) -> None:
    with links(shard.url, in_flight_most=2) as (_, loop):
        await loop.send([get(b"x")])
        tasks = [asyncio.create_task(loop.send([get(b"x")])) for _ in range(40)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        ended = await outcomes(tasks)
        assert ended[1::2] == [[None]] * 20
        assert await loop.send([get(b"x")]) == [None]


async def test_a_cancelled_call_leaves_the_link_usable(shard: LocalValkey) -> None:
    with links(shard.url) as (_, loop):
        for _ in range(50):
            task = asyncio.create_task(loop.send([get(b"none")]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await loop.send([get(b"none")]) == [None]


async def test_user_and_password(shard: LocalValkey) -> None:
    url = shard.url.replace("://", f"://clerk:{PASSWORD.replace(' ', '%20')}@")
    for name in ("blocking", "loop"):
        face = Face(name, ConnectionSettings.from_url(url))
        assert await face.send(put(b"k", b"v")) == [1]
        face.close()


async def test_a_wrong_password_is_a_configuration_error(shard: LocalValkey) -> None:
    url = shard.url.replace("://", "://clerk:wr0ng-secret@")
    for name in ("blocking", "loop"):
        face = Face(name, ConnectionSettings.from_url(url))
        with pytest.raises(ConfigurationError) as caught:
            await face.send(put(b"k", b"v"))
        face.close()
        assert "wr0ng-secret" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    wire = Wire(tls=context)
    # The server must name the proxy's port, or a cluster client goes round it.
    with LocalValkey(options={"cluster-announce-client-port": str(wire.port)}) as server:
        wire.target = server.port
        url = f"valkeys://127.0.0.1:{wire.port}"
        for options in ({"tls_ca_file": tmp_path / "authority.pem"}, {"tls_insecure": True}):
            for name in ("blocking", "loop"):
                face = Face(name, ConnectionSettings.from_url(url, **options))
                assert await face.send(put(b"k", b"v")) == [1]
                assert await face.send(get(b"k")) == [b"v"]
                face.close()
        stranger = tmp_path / "stranger.pem"
        trustme.CA().cert_pem.write_to_path(str(stranger))
        for name in ("blocking", "loop"):
            face = Face(name, ConnectionSettings.from_url(url, tls_ca_file=stranger))
            with pytest.raises((ConfigurationError, Unreachable)):
                await face.send(get(b"k"))
            face.close()
    wire.close()


async def test_standalone(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with standalone(tmp_path, port):
        url = f"valkey://127.0.0.1:{port}/3?mode=standalone"
        for name in ("blocking", "loop"):
            face = Face(name, ConnectionSettings.from_url(url))
            assert await face.send(put(b"k", b"v")) == [1]
            assert await face.send(get(b"k"), count(b"n" + name.encode())) == [b"v", 1]
            with pytest.raises(WriteRejected, match="ClusterDown"):
                await face.send(fail("CLUSTERDOWN x", writes=True))
            cursor, keys = await face.scan(None, b"k*")
            assert (cursor, keys) == (None, [b"k"])
            face.close()


async def test_a_broken_connection_leaves_writes_unknown() -> None:
    wire = Wire()
    with LocalValkey(options={"cluster-announce-client-port": str(wire.port)}) as server:
        wire.target = server.port
        for name in ("blocking", "loop"):
            face = Face(name, ConnectionSettings.from_url(f"valkey://127.0.0.1:{wire.port}"))
            await face.send(put(b"k", b"0"), get(b"k"))
            wire.cuts = True
            with pytest.raises(OutcomeUnknown):
                await face.send(put(b"k", b"1"))
            with pytest.raises(Unreachable):
                await face.send(get(b"k"))
            wire.cuts = False
            assert server.command("GET", "k") == b"1"
            face.close()
    wire.close()


def test_both_wheels_must_be_of_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = [text for text in metadata.requires("langgraph-valkey") or () if "glide" in text]
    assert sorted(pins) == [f"valkey-glide-sync=={GLIDE_VERSION}", f"valkey-glide=={GLIDE_VERSION}"]
    versions = {"valkey-glide": GLIDE_VERSION, "valkey-glide-sync": "2.5.0"}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    require_glide.cache_clear()
    with pytest.raises(ConfigurationError, match=r"valkey-glide-sync is 2\.5\.0.*pip install"):
        require_glide()
    monkeypatch.undo()
    require_glide()


def test_an_old_server_is_refused() -> None:
    settings = ConnectionSettings.from_url("valkey://old")
    for info in ("redis_version:6.2.6\r\n", "valkey_version:7.1.9\r\nredis_version:7.2.4\r\n"):
        with pytest.raises(ConfigurationError, match=r"7\.2 or newer"):
            check_server(settings, info)
        assert not clients.is_checked(settings)
    check_server(settings, "redis_version:7.2.4\r\nvalkey_version:9.1.0\r\n")
    assert clients.is_checked(settings)


async def test_a_server_that_evicts_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with LocalValkey(options={"maxmemory-policy": "allkeys-lru"}) as server:
        with caplog.at_level(logging.WARNING, "langgraph_valkey"):
            for name in ("loop", "blocking"):
                face = Face(name, ConnectionSettings.from_url(server.url))
                await face.send(get(b"k"))
                await face.send(get(b"k"))
                face.close()
        assert [record.name for record in caplog.records] == ["langgraph_valkey"]
        assert "allkeys-lru" in caplog.text


async def test_a_closed_link_says_so(face: Face) -> None:
    await face.send(get(b"k"))
    face.close()
    face.close()
    for attempt in (face.send(get(b"k")), face.scan(None, b"*")):
        with pytest.raises(ConfigurationError, match="was closed"):
            await attempt
    await face.loop.aclose()
    await face.blocking.aclose()
