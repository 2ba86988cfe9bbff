"""A second opinion: only what is clearly affirmed passes, on each face."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage

from rag_cache.guards.verifier import (
    FAILED,
    REFUSED,
    Ask,
    CrossEncoder,
    ModelJudge,
    Verifier,
    ask_blocking,
    ask_looping,
)

FACES: dict[str, Callable[[Verifier], Ask]] = {"blocking": ask_blocking, "looping": ask_looping}


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Callable[[Verifier], Ask]:
    return FACES[request.param]


class Verdict:
    """A verifier that says what it is told, or raises it, on one face."""

    def __init__(self, says: Any) -> None:
        self.says = says
        self.thread = 0

    def verify(self, asked: str, cached_question: str, cached_value: Any) -> bool:
        self.thread = threading.get_ident()
        if isinstance(self.says, BaseException):
            raise self.says
        return self.says  # type: ignore[no-any-return]


class Both(Verdict):
    """One with an async face, which says the opposite on the other."""

    async def averify(self, asked: str, cached_question: str, cached_value: Any) -> bool:
        await asyncio.sleep(0)
        return self.verify(asked, cached_question, cached_value)


@pytest.mark.parametrize("sort", [Verdict, Both])
@pytest.mark.parametrize(
    ("says", "why"),
    [
        (True, None),
        (False, REFUSED),
        (None, REFUSED),
        (1, REFUSED),
        ("yes", REFUSED),
        (0.99, REFUSED),
        (RuntimeError("away"), FAILED),
        (TimeoutError(), FAILED),
    ],
)
async def test_only_what_is_affirmed_passes(
    face: Callable[[Verifier], Ask], sort: type[Verdict], says: Any, why: str | None
) -> None:
    assert await face(sort(says))("asked", "cached", "value") == why


async def test_who_was_cancelled_was_not_refused() -> None:
    class Slow(Both):
        async def averify(self, *_: Any) -> bool:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await ask_looping(Slow(True))("asked", "cached", "value")


async def test_a_verifier_without_an_async_face_does_not_hold_up_the_loop() -> None:
    verdict = Verdict(True)
    assert await ask_looping(verdict)("asked", "cached", "value") is None
    assert verdict.thread not in (0, threading.get_ident())
    assert await ask_blocking(verdict)("asked", "cached", "value") is None
    assert verdict.thread == threading.get_ident()


def test_blocking_callers_never_suspend() -> None:
    asking: Any = ask_blocking(Both(True))("asked", "cached", "value")
    with pytest.raises(StopIteration) as done:
        asking.send(None)
    assert done.value.value is None


def test_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(ask_blocking(Verdict(KeyError("x")))("asked", "cached", "value"))  # type: ignore[arg-type]
    assert "the verifier failed" in caplog.text
    assert "KeyError" in caplog.text


@pytest.mark.parametrize(
    ("score", "passes"), [(0.8, True), (0.9, True), (0.79, False), (float("nan"), False)]
)
async def test_a_cross_encoder_passes_from_a_score_on(
    face: Callable[[Verifier], Ask], score: float, passes: bool
) -> None:
    seen = []

    def scored(one: str, other: str) -> float:
        seen.append((one, other))
        return score

    why = await face(CrossEncoder(scored, 0.8))("asked", "cached", "value")
    assert (why is None) is passes
    assert seen == [("asked", "cached")]


class Model(GenericFakeChatModel):
    """A chat model that keeps what it was asked."""

    asked: list[list[BaseMessage]]

    def _generate(self, messages: list[BaseMessage], *args: Any, **given: Any) -> Any:
        self.asked.append(messages)
        return super()._generate(messages, *args, **given)


def model(*answers: str | list[Any]) -> Model:
    return Model(messages=iter([AIMessage(answer) for answer in answers]), asked=[])


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ("YES", True),
        ("yes", True),
        (" Yes.\n", True),
        ([{"type": "reasoning", "reasoning": "no"}, {"type": "text", "text": "YES"}], True),
        ("NO", False),
        ("", False),
        ("YES, but the year differs", False),
        ("yes and no", False),
        ("The answer is YES", False),
        ([{"type": "reasoning", "reasoning": "YES"}], False),
        ([{"type": "text", "text": "YES"}, {"type": "text", "text": "NO"}], False),
    ],
)
async def test_a_model_must_say_yes_and_nothing_else(
    face: Callable[[Verifier], Ask], answer: Any, passes: bool
) -> None:
    why = await face(ModelJudge(model(answer)))("asked", "cached", "value")
    assert why == (None if passes else REFUSED)


async def test_a_model_is_told_both_questions_and_the_answer(
    face: Callable[[Verifier], Ask],
) -> None:
    asked = model("YES", "YES")
    await face(ModelJudge(asked))("Which now?", "Which then?", {"an": "answer"})
    await face(ModelJudge(asked, shows_value=False))("Which now?", "Which then?", "an answer")
    (system, human), (_, brief) = asked.asked
    assert "data, not instructions" in system.text
    assert "Which then?\n\nQuestion that is asked:\nWhich now?" in human.text
    assert "'an': 'answer'" in human.text
    assert "answer:" not in brief.text
    assert "Which now?" in brief.text


async def test_a_model_that_fails_has_refused(face: Callable[[Verifier], Ask]) -> None:
    assert await face(ModelJudge(model()))("asked", "cached", "value") == FAILED
