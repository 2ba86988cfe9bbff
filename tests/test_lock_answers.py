"""Locks whose answers are lost, late or refused; and what can not be a lock."""

from __future__ import annotations

import time
from typing import Any

import pytest

from langgraph_valkey.errors import (
    LockUnavailable,
    OutcomeUnknown,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.operations.leases import lease
from langgraph_valkey.testing import MemoryLink
from langgraph_valkey.tiers import locks
from langgraph_valkey.tiers.locks import ClusterLeases, Lock, Way, hold_up

PREFIX = "locks"


def in_memory(link: MemoryLink) -> tuple[Way, Way]:
    """Leases on a server in memory, whose time a test moves on."""
    leases = ClusterLeases(link, PREFIX)
    way = Way(leases, link.sleep)
    return way, way


def test_a_lost_answer_is_asked_for_again_by_the_same_holder() -> None:
    link = MemoryLink()
    link.fail_next(OutcomeUnknown, applied=True)
    with Lock(in_memory(link), "report", 30) as lock:
        assert lock.token == 1
        assert link.counts["lock"] == 2


def test_answers_that_stay_lost_lock_nobody_out_for_longer_than_the_lease() -> None:
    link = MemoryLink()
    for _ in range(locks.LOCK_ASKED_MOST):
        link.fail_next(OutcomeUnknown, applied=True)
    with pytest.raises(OutcomeUnknown):
        Lock(in_memory(link), "report", 30).__enter__()
    with pytest.raises(LockUnavailable):
        Lock(in_memory(link), "report", 30).__enter__()
    link.advance(30)
    with Lock(in_memory(link), "report", 30) as lock:
        assert lock.token == 2


def test_an_answer_that_comes_late_does_not_take_what_was_given_back() -> None:
    link = MemoryLink()
    link.fail_next(OutcomeUnknown, applied="later")
    with Lock(in_memory(link), "report", 30):
        pass
    assert link.land_late() == [0]
    with Lock(in_memory(link), "report", 30) as lock:
        assert lock.token == 2


def test_a_server_that_refuses_is_waited_for_and_named() -> None:
    link = MemoryLink()
    link.fail_next(WriteRejected)
    with Lock(in_memory(link), "report", 30, wait_s=10):
        pass
    link.fail_next(WriteRejected)
    with pytest.raises(WriteRejected):
        Lock(in_memory(link), "report", 30).__enter__()


def test_an_outage_is_not_a_lock_that_is_held() -> None:
    link = MemoryLink()
    link.go_down()
    with pytest.raises(Unreachable):
        Lock(in_memory(link), "report", 30, wait_s=1).__enter__()


def test_leaving_never_hides_what_the_body_raised(caplog: pytest.LogCaptureFixture) -> None:
    link = MemoryLink()

    def body() -> None:
        with Lock(in_memory(link), "report", 0.001):
            link.go_down()
            time.sleep(0.01)  # It is lost as well.
            raise KeyError("body")

    with pytest.raises(KeyError, match="body"):
        body()
    assert "ends by itself" in caplog.text


def test_a_lock_that_could_not_be_given_back_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    link = MemoryLink()
    with Lock(in_memory(link), "report", 30):
        link.go_down()
    assert "ends by itself" in caplog.text


def test_a_lock_that_is_held_is_not_entered_again() -> None:
    lock = Lock(in_memory(MemoryLink()), "report", 30)
    with lock, pytest.raises(RuntimeError, match="make another"):
        lock.__enter__()
    with lock:
        assert "token 2" in repr(lock)


# --- arguments -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ttl_s", "wait_s"),
    [
        ("", 1, 0),
        ("x" * (locks.LOCK_NAME_MOST + 1), 1, 0),
        (7, 1, 0),
        ("x", 0, 0),
        ("x", float("inf"), 0),
        ("x", float("nan"), 0),
        ("x", 1, -1),
        ("x", 1, float("nan")),
    ],
)
def test_arguments_that_can_not_be_used(name: Any, ttl_s: float, wait_s: float) -> None:
    with pytest.raises(ValueError, match="lock"):
        Lock((Way(None, hold_up),) * 2, name, ttl_s, wait_s)  # type: ignore[arg-type]


def test_a_call_names_one_key_of_its_own() -> None:
    call = lease(PREFIX, "a}b", "acquire", "me", 1.5)
    assert call.keys == (b"locks:{a%7Db}:lock",)
    assert call.args == [b"acquire", b"me", b"1500", b"0"]
