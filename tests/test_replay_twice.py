"""Two failovers, one after the other: what the first one's replay judged is not durable yet.

A replay that finds an entry deleted, or expired, has been told so by a primary that may be
lost in its turn, with whoever deleted it. What then stands there must be whole, and what was
known to be deleted must stay so.
"""

from __future__ import annotations

from typing import Any

import pytest

from langgraph_valkey import OutcomeUnknown, ValkeySaver
from langgraph_valkey.testing import MemoryLink, memory_saver
from tests.faces import checkpoint, config, metadata, numbered_id

THREAD = "t"


class Ground:
    """A server in memory, and how much of what it was told a failover loses.

    Attributes:
        server: The server.
        mark: How many writes it had taken when it was marked.
    """

    def __init__(self) -> None:
        self.server = MemoryLink()
        self.mark = 0

    def saver(self, **settings: Any) -> ValkeySaver:
        return memory_saver(self.server, durability="async", **settings)

    def fail_over(self, *, to_mark: bool = False) -> None:
        """Another primary takes over; it lacks nothing, or all that came after the mark."""
        self.server.rewind(len(self.server._applied) - self.mark if to_mark else 0)

    def set_mark(self) -> None:
        self.mark = len(self.server._applied)


@pytest.fixture
def ground() -> Ground:
    return Ground()


def put(saver: ValkeySaver, number: int, *, parent: int | None = -1) -> None:
    made, versions = checkpoint(numbered_id(number), {"value": f"{number}"})
    if parent == -1:
        parent = number - 1 or None
    at = numbered_id(parent) if parent else None
    saver.put(config(THREAD, "", at), made, metadata(number), versions)


def write(saver: ValkeySaver, number: int) -> None:
    saver.put_writes(config(THREAD, "", numbered_id(number)), [("value", "w")], "task")


def there(saver: ValkeySaver) -> list[tuple[int, bool]]:
    """The checkpoints that there are, the newest first, and whether they have a write."""
    found = saver.list({"configurable": {"thread_id": THREAD}})
    return [(int(each.checkpoint["id"][-4:]), bool(each.pending_writes)) for each in found]


@pytest.mark.parametrize("keeps_first", [True, False])
def test_a_thread_that_was_found_deleted_stays_so(ground: Ground, keeps_first: bool) -> None:
    """Though the grave is lost, with the process that dug it; also half the thread is."""
    writer, deleter = ground.saver(), ground.saver()
    if keeps_first:
        put(writer, 1)
    ground.set_mark()
    if not keeps_first:
        put(writer, 1)
    write(writer, 1)
    put(writer, 2)
    deleter.delete_thread(THREAD)
    ground.fail_over()
    writer.recover()
    ground.fail_over(to_mark=True)
    writer.recover()
    for saver in (writer, ground.saver(replay=False)):
        assert there(saver) == []
        assert saver.get_tuple(config(THREAD)) is None


def test_what_was_begun_after_a_deletion_that_is_lost_twice(ground: Ground) -> None:
    """It is there, and nothing of the life before it."""
    writer, other = ground.saver(), ground.saver()
    put(writer, 1)
    ground.set_mark()
    put(writer, 2)
    other.delete_thread(THREAD)
    ground.fail_over()
    writer.recover()
    put(other, 1)
    ground.fail_over(to_mark=True)
    writer.recover()
    other.recover()
    ground.fail_over(to_mark=True)
    writer.recover()
    other.recover()
    assert there(writer) == there(other) == [(1, False)]


def test_what_began_a_thread_without_knowing_is_over_with_it(ground: Ground) -> None:
    """Nobody told its writer when the thread began, so it would fit into any other."""
    writer, other = ground.saver(), ground.saver()
    assert writer.get_tuple(config(THREAD)) is None
    ground.server.fail_next(OutcomeUnknown, applied=True)
    with pytest.raises(OutcomeUnknown):
        put(writer, 1)
    put(writer, 2)
    other.delete_thread(THREAD)
    ground.set_mark()
    put(other, 5, parent=None)
    ground.fail_over()
    for _ in range(2):
        writer.recover()
        other.recover()
        assert there(other) == [(5, False)]
        ground.fail_over(to_mark=True)


def test_a_write_whose_checkpoint_was_found_removed_comes_with_it(ground: Ground) -> None:
    """If the removal is lost with its process, the checkpoint is back: whole, or not at all."""
    writer, pruner = ground.saver(), ground.saver()
    ground.set_mark()
    put(writer, 1)
    write(writer, 1)
    put(writer, 2)
    pruner.prune([THREAD])
    assert there(writer) == [(2, False)]
    ground.fail_over()
    writer.recover()
    ground.fail_over(to_mark=True)
    writer.recover()
    assert there(writer) == [(2, False), (1, True)]


def test_what_was_found_expired_has_its_end_again(ground: Ground) -> None:
    """Else what it had gone on from is there again, and will never end."""
    lasting, brief = ground.saver(), ground.saver(ttl_s=60.0)
    put(lasting, 1)
    ground.set_mark()
    put(brief, 2)
    ground.server.advance(61)
    ground.fail_over()
    brief.recover()
    ground.fail_over(to_mark=True)
    brief.recover()
    assert there(brief) == []


@pytest.mark.parametrize("ends", ["deleted", "expired"])
def test_who_has_only_what_is_over_waits_for_the_others(ground: Ground, ends: str) -> None:
    """A thread may have been begun anew since: its other writer has to replay that first."""
    writer, other = ground.saver(ttl_s=60.0), ground.saver()
    put(writer, 1)
    if ends == "deleted":
        other.delete_thread(THREAD)
    else:
        ground.server.advance(61)
    ground.fail_over()
    writer.recover()
    ground.server.advance(5)
    ground.fail_over()
    began_s = ground.server.now()
    assert writer.get_tuple(config(THREAD)) is None
    assert 1.9 < ground.server.now() - began_s < 3.0
