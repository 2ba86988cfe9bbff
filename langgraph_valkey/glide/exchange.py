"""From calls to commands, and from what came back to replies and errors.

A `Call` travels as a non-atomic batch of one EVALSHA. Such a batch costs no more
than a SET, and what the server rejects comes back in about a millisecond with
the server's words, where GLIDE's own script call retries behind our back and
ends in a timeout that hides them. A script the server does not know is sent
again as EVAL with its text: nothing was applied the first time.

Three lanes a link: reads, writes and large values. Rejected writes can't starve
reads, and a large value does not hold up small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from glide_shared.exceptions import GlideError, RequestError

from langgraph_valkey import limits
from langgraph_valkey.glide.errors import Kind, kind_of, translate
from langgraph_valkey.link import Call, Reply

LANES = 3
READS, WRITES, LARGE = range(LANES)
"""The connections of a link."""


class Lane(Protocol):
    """What sends commands."""

    async def exec(self, commands: list[list[bytes]]) -> list[Any]:
        """Run the commands; failures of single ones stand in the list."""
        ...


def lane_of(call: Call) -> int:
    """The lane a call goes over."""
    if call.size >= limits.LARGE_VALUE_BYTES:
        return LARGE
    return WRITES if call.writes or call.rides else READS


def _evalsha(call: Call) -> list[bytes]:
    """By its name; under the reading verb if it only reads, which is not refused with writes."""
    verb = b"EVALSHA" if call.writes else b"EVALSHA_RO"
    return [verb, call.script.sha, b"%d" % len(call.keys), *call.keys, *call.args]


def _eval(call: Call) -> list[bytes]:
    verb = b"EVAL" if call.writes else b"EVAL_RO"
    return [verb, call.script.source.encode(), b"%d" % len(call.keys), *call.keys, *call.args]


async def exchange(lane: Lane, calls: Sequence[Call]) -> list[Any]:
    """Run calls on one lane; each ends as its reply or as the error to raise."""
    try:
        results = await lane.exec([_evalsha(call) for call in calls])
    except GlideError as error:
        return [translate(error, writes=call.writes) for call in calls]
    for result in results:
        if isinstance(result, RequestError):
            return await _after_failures(lane, calls, results)
    return results


async def _after_failures(lane: Lane, calls: Sequence[Call], results: list[Any]) -> list[Any]:
    """Send scripts that the server does not know with their text; translate the rest."""
    unknown = [
        index
        for index, result in enumerate(results)
        if isinstance(result, RequestError) and kind_of(result) is Kind.NO_SCRIPT
    ]
    if unknown:
        again: list[Any]
        try:
            again = await lane.exec([_eval(calls[index]) for index in unknown])
        except GlideError as error:
            again = [error] * len(unknown)
        for index, result in zip(unknown, again, strict=True):
            results[index] = result
    return [
        translate(result, writes=call.writes) if isinstance(result, GlideError) else result
        for call, result in zip(calls, results, strict=True)
    ]


def by_lane(calls: Sequence[Call]) -> dict[int, list[int]]:
    """Which of the calls go over which lane, by their indices."""
    found: dict[int, list[int]] = {}
    for index, call in enumerate(calls):
        found.setdefault(lane_of(call), []).append(index)
    return found


def raise_first(results: list[Any]) -> list[Reply]:
    """The results, unless one of them is an error: then that is raised."""
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def in_order(parts: dict[int, list[int]], found: Sequence[list[Any]], count: int) -> list[Any]:
    """Put the results of the lanes back into the order of the calls."""
    results: list[Any] = [None] * count
    for indices, part in zip(parts.values(), found, strict=True):
        for index, result in zip(indices, part, strict=True):
            results[index] = result
    return results
