"""With an encrypting serializer the server holds no plaintext: not of state, metadata or writes.

The search is tried on a saver without encryption first: there it must find all of it.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from langgraph_valkey.errors import ConfigurationError
from tests.faces import FACES, Face, Twin, config, metadata, numbered_id, open_face
from tests.raw_server import raw_server

SECRETS = {
    name: f"secret-{name}-7f3a"
    for name in (
        "short state",
        "long list",
        "text",
        "dict key",
        "metadata text",
        "metadata nested",
        "metadata tag",
        "run",
        "write",
        "long write",
        "special write",
        "user in config",
    )
}


async def fill(face: Face) -> Twin:
    twin = Twin(face)
    about = metadata(
        1,
        note=SECRETS["metadata text"],
        nested={"deep": [SECRETS["metadata nested"]]},
        tags={SECRETS["metadata tag"]},
        run_id=SECRETS["run"],
    )
    where = await twin.step(
        "t",
        1,
        about=about,
        short=SECRETS["short state"],
        messages=[f"{SECRETS['long list']} {n}" for n in range(500)],
        text=SECRETS["text"] * 2000,
        table={SECRETS["dict key"]: 1},
    )
    await twin.write(where, [("messages", SECRETS["write"])], "task 1")
    await twin.write(where, [("messages", [SECRETS["long write"]] * 2000)], "task 2")
    await twin.write(where, [("__interrupt__", SECRETS["special write"])], "task 1")
    asked = config("t", "", numbered_id(1))
    asked["metadata"] = {"user": SECRETS["user in config"]}
    await twin.put(asked, *second(twin))
    return twin


def second(twin: Twin) -> tuple[Any, Any, Any]:
    made = dict(twin.last["t", ""], id=numbered_id(2))
    return made, metadata(2), {}


def aes(key: bytes = b"0123456789abcdef") -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=key)


def secrets_found(url: str, prefix: str) -> set[str]:
    with raw_server(url) as raw:
        content = raw.content(prefix)
    assert b"{t}" in content
    return {name for name, secret in SECRETS.items() if secret.encode() in content}


@pytest.mark.parametrize("kind", FACES)
async def test_no_plaintext_at_the_server(kind: str, valkey: Any) -> None:
    plain, encrypted = f"t{os.urandom(6).hex()}", f"t{os.urandom(6).hex()}"
    async with open_face(kind, valkey.url, key_prefix=plain) as face:
        await fill(face)
    assert secrets_found(valkey.url, plain) == set(SECRETS)

    options: dict[str, Any] = {"serde": aes(), "digest_key": b"k" * 32}
    async with open_face(kind, valkey.url, key_prefix=encrypted, **options) as face:
        twin = await fill(face)
        await twin.check("t")
        tag = SECRETS["metadata text"]
        assert len(await twin.list(config("t"), filter={"note": tag}, limit=1)) == 1
        assert len(await twin.list(config("t"), filter={"tags": {SECRETS["metadata tag"]}})) == 1
        await face.acopy_thread("t", "copy")
        await face.aprune(["copy"])
        assert secrets_found(valkey.url, encrypted) == set()
        await face.adelete_for_runs([SECRETS["run"]])
        assert await face.aget_tuple(config("t", "", numbered_id(1))) is None


@pytest.mark.parametrize("kind", FACES)
async def test_an_encrypting_serializer_wants_a_digest_key(kind: str, valkey: Any) -> None:
    with pytest.raises(ConfigurationError, match="digest_key"):
        async with open_face(kind, valkey.url, serde=aes()):
            raise AssertionError("unreachable")


@pytest.mark.parametrize("kind", FACES)
async def test_the_wrong_key_raises_and_tells_nothing(
    kind: str, valkey: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    prefix = f"t{os.urandom(6).hex()}"
    options: dict[str, Any] = {"key_prefix": prefix, "digest_key": b"k" * 32}
    async with open_face(kind, valkey.url, serde=aes(), **options) as face:
        await fill(face)
    async with open_face(kind, valkey.url, serde=aes(b"another key 1234"), **options) as face:
        with pytest.raises(Exception) as failure:
            await face.aget_tuple(config("t"))
    told = f"{failure.value!r} {failure.value.__cause__!r} {caplog.text}"
    assert not [secret for secret in SECRETS.values() if secret in told]


@pytest.mark.parametrize("kind", FACES)
async def test_errors_and_logs_carry_no_state(
    kind: str, valkey: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that can't be serialized: the error may name its type, not what stands beside it."""
    caplog.set_level(logging.DEBUG)
    async with open_face(kind, valkey.url) as face:
        twin = await fill(face)
        made: dict[str, Any] = dict(twin.last["t", ""], id=numbered_id(3))
        made["channel_values"] = {**made["channel_values"], "odd": iter(range(3))}
        made["channel_versions"] = {**made["channel_versions"], "odd": "1"}
        with pytest.raises(TypeError) as failure:
            await face.aput(config("t"), made, metadata(3), {"odd": "1"})  # type: ignore[arg-type]
        await twin.check("t")
    told = f"{failure.value!r} {failure.value.__cause__!r} {caplog.text}"
    assert not [secret for secret in SECRETS.values() if secret in told]
