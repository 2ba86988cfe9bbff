"""A thread that vanishes under a run never turns into an empty one."""

from __future__ import annotations

from typing import cast

import pytest

from langgraph_valkey import ReplayIncomplete, ValkeySaver
from langgraph_valkey.local import LocalValkey
from tests.faces import FACES, checkpoint, config, metadata, numbered_id, open_face


def keys_of(valkey: LocalValkey, saver: ValkeySaver) -> list[bytes]:
    return cast(list[bytes], valkey.command("KEYS", f"{saver.settings.key_prefix}*"))


@pytest.mark.parametrize("kind", FACES)
async def test_writes_on_a_vanished_thread_are_refused(kind: str, valkey: LocalValkey) -> None:
    """Else the next run would find a thread without checkpoints, and begin from nothing."""
    async with open_face(kind, valkey.url) as face:
        saver = face.saver
        assert isinstance(saver, ValkeySaver)
        made, versions = checkpoint(numbered_id(1), {"value": 1})
        stored = await face.aput(config("t"), made, metadata(1), versions)
        await face.aput_writes(stored, [("value", 2)], "before")
        for key in keys_of(valkey, saver):
            valkey.command("DEL", key)

        with pytest.raises(ReplayIncomplete) as caught:
            await face.aput_writes(stored, [("value", 3)], "after")
        assert caught.value.thread_ids == ("t",)
        assert keys_of(valkey, saver) == []

        child, versions = checkpoint(numbered_id(2), {"value": 4}, parent=made)
        await face.aput(config("t", "", numbered_id(1)), child, metadata(2), versions)
        found = await face.aget_tuple(config("t"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"value": 4}


@pytest.mark.parametrize("kind", FACES)
async def test_a_subgraph_does_not_stand_for_its_vanished_thread(
    kind: str, valkey: LocalValkey
) -> None:
    """The root heals its thread from what it holds; a subgraph alone would hide the loss."""
    async with open_face(kind, valkey.url) as face:
        saver = face.saver
        assert isinstance(saver, ValkeySaver)
        made, versions = checkpoint(numbered_id(1), {"value": 1})
        for namespace in ("", "child"):
            await face.aput(config("t", namespace), made, metadata(1), versions)
        for key in keys_of(valkey, saver):
            valkey.command("DEL", key)

        child, versions = checkpoint(numbered_id(2), {"value": 2}, parent=made)
        with pytest.raises(ReplayIncomplete):
            await face.aput(config("t", "child", numbered_id(1)), child, metadata(2), versions)
        await face.aput(config("t", "", numbered_id(1)), child, metadata(2), versions)
        assert await face.aget_tuple(config("t")) is not None
