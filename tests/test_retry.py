"""Retrying: which failures are tried again, for how long, and what is said at the end.

No test waits: the link's clock moves only when the link sleeps or sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from langgraph_valkey import limits
from langgraph_valkey.errors import (
    ConfigurationError,
    LanggraphValkeyError,
    OutcomeUnknown,
    StoreFull,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.link import Call, Reply, Script, finish
from langgraph_valkey.retry import Retrying
from langgraph_valkey.settings import ConnectionSettings

CALLS = [Call(Script("s", "return 1"), (b"k",), [], writes=True)]
SETTINGS = ConnectionSettings(
    reject_deadline_s=30.0, read_deadline_s=3.0, unknown_retry_deadline_s=4.0
)


class ScriptedLink:
    """Fails as told, then answers; its clock moves only by its own doing.

    Args:
        failures: What each try raises, in order; None answers.
        last: What every later try raises; None answers.
        try_s: How long one try takes.
    """

    def __init__(
        self,
        failures: Sequence[Exception | None] = (),
        last: Exception | None = None,
        try_s: float = 0.0,
    ) -> None:
        self.failures = list(failures)
        self.last = last
        self.try_s = try_s
        self.clock = 100.0
        self.tries = 0
        self.waits: list[float] = []

    async def _try(self) -> None:
        self.clock += self.try_s
        failure = self.failures[self.tries] if self.tries < len(self.failures) else self.last
        self.tries += 1
        if failure is not None:
            raise failure

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        await self._try()
        return [b"answer"] * len(calls)

    async def scan(self, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
        await self._try()
        return None, [pattern]

    async def sleep(self, delay_s: float) -> None:
        self.waits.append(delay_s)
        self.clock += delay_s

    def now(self) -> float:
        return self.clock


def retrying(link: ScriptedLink, share: float = 1.0) -> Retrying:
    """Waits are the given share of their bound."""
    return Retrying(link, SETTINGS, draw=lambda low, high: low + share * (high - low))


def rejected() -> WriteRejected:
    return WriteRejected("refused")


def test_a_send_that_works_is_sent_once() -> None:
    link = ScriptedLink()
    assert finish(retrying(link).send(CALLS)) == [b"answer"]
    assert (link.tries, link.waits) == (1, [])


@pytest.mark.parametrize("failure", [WriteRejected("r"), Unreachable("u"), OutcomeUnknown("o")])
def test_passing_failures_are_tried_again(failure: Exception) -> None:
    link = ScriptedLink([failure, failure])
    assert finish(retrying(link).send(CALLS)) == [b"answer"]
    assert link.tries == 3


@pytest.mark.parametrize(
    "failure", [StoreFull("f"), ConfigurationError("c"), LanggraphValkeyError("x"), ValueError()]
)
def test_lasting_failures_are_not_tried_again(failure: Exception) -> None:
    link = ScriptedLink(last=failure)
    with pytest.raises(type(failure)) as caught:
        finish(retrying(link).send(CALLS))
    assert caught.value is failure
    assert link.tries == 1


def test_waits_double_up_to_their_bound_and_end_at_the_deadline() -> None:
    link = ScriptedLink(last=rejected())
    with pytest.raises(WriteRejected) as caught:
        finish(retrying(link).send(CALLS))
    first, most = limits.REJECT_BACKOFF_FIRST_S, limits.REJECT_BACKOFF_MOST_S
    expected = [min(first * 2**n, most) for n in range(len(link.waits))]
    assert link.waits[:-1] == pytest.approx(expected[:-1])
    assert sum(link.waits) == pytest.approx(30.0)
    assert caught.value.rejected_s == pytest.approx(30.0)
    assert f"30.0 s ({link.tries} tries)" in str(caught.value)
    assert isinstance(caught.value.__cause__, WriteRejected)


def test_waits_are_drawn_between_nothing_and_their_bound() -> None:
    bounds: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        bounds.append((low, high))
        return high / 2

    link = ScriptedLink([rejected()] * 3)
    finish(Retrying(link, SETTINGS, draw).send(CALLS))
    assert bounds == [(0.0, 0.05), (0.0, 0.1), (0.0, 0.2)]
    assert link.waits == pytest.approx([0.025, 0.05, 0.1])


@pytest.mark.parametrize(
    ("failure", "deadline_s"),
    [(WriteRejected("r"), 30.0), (Unreachable("u"), 3.0), (OutcomeUnknown("o"), 4.0)],
)
def test_each_failure_has_its_own_deadline(failure: Exception, deadline_s: float) -> None:
    link = ScriptedLink(last=failure, try_s=0.5)
    with pytest.raises(type(failure)):
        finish(retrying(link).send(CALLS))
    assert deadline_s <= link.clock - 100.0 <= deadline_s + 0.5


def test_draws_of_zero_end_too() -> None:
    link = ScriptedLink(last=Unreachable("u"), try_s=0.25)
    with pytest.raises(Unreachable):
        finish(retrying(link, share=0.0).send(CALLS))
    assert link.tries == 12


def test_a_failover_amid_a_rejection_gets_its_own_time() -> None:
    link = ScriptedLink([rejected()] * 12 + [Unreachable("u")] * 2)
    assert finish(retrying(link).send(CALLS)) == [b"answer"]
    assert link.clock - 100.0 > 3.0


def test_alternating_failures_end_at_the_longest_deadline() -> None:
    link = ScriptedLink([rejected(), Unreachable("u")] * 1_000, try_s=0.1)
    with pytest.raises((WriteRejected, Unreachable)):
        finish(retrying(link).send(CALLS))
    assert 29.0 <= link.clock - 100.0 <= 30.2


@pytest.mark.parametrize("later", [WriteRejected("r"), Unreachable("u")])
def test_unknown_stays_unknown(later: Exception) -> None:
    """A later try that was not applied says nothing about the first."""
    unknown = OutcomeUnknown("o")
    link = ScriptedLink([unknown], last=later)
    with pytest.raises(OutcomeUnknown) as caught:
        finish(retrying(link).send(CALLS))
    assert caught.value is unknown


def test_a_scan_is_tried_again() -> None:
    link = ScriptedLink([Unreachable("u")])
    assert finish(retrying(link).scan(None, b"p*")) == (None, [b"p*"])
    link = ScriptedLink(last=Unreachable("u"))
    with pytest.raises(Unreachable):
        finish(retrying(link).scan(None, b"p*"))
    assert link.clock - 100.0 == pytest.approx(3.0)


def test_clock_and_sleep_are_the_links() -> None:
    link = ScriptedLink()
    face = retrying(link)
    finish(face.sleep(2.0))
    assert face.now() == 102.0
