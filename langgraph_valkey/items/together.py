"""Several questions to one bucket, in one call: what a call costs by itself is paid once.

A batch may ask a bucket for items, for news beneath some prefixes and for names. Each is a
script; here they become the functions of one, and its reply is taken apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from langgraph_valkey.link import Call, Reply, Script
from langgraph_valkey.scripts import text_of

_PARTS = {"read": 1, "news": 2, "names": 3, "seek": 4}
"""Scripts that only read, and by which numbers they are asked for."""

_ARGUMENTS_MOST = 99
"""What stands in two digits; who has more is asked alone."""


@cache
def _script() -> Script:
    functions = [
        f"RUN[{number}] = function(ARGV)\n{text_of(__package__, part)}end"
        for part, number in _PARTS.items()
    ]
    before = [text_of(__package__, each) for each in ("prelude", "paging")]
    texts = [text_of("langgraph_valkey", "identity"), *before, "local RUN = {}", *functions]
    texts.append(text_of(__package__, "several"))
    return Script("several", "#!lua flags=no-writes\n" + "\n".join(texts))


class Together:
    """Calls as they are sent: those that read one bucket as one.

    Args:
        asked: The calls.

    Attributes:
        calls: What to send.
    """

    def __init__(self, asked: Sequence[Call]) -> None:
        groups: dict[tuple[bytes, ...], list[int]] = {}
        for at, call in enumerate(asked):
            if call.script.name in _PARTS and len(call.args) <= _ARGUMENTS_MOST:
                groups.setdefault(call.keys, []).append(at)
        together = [group for group in groups.values() if len(group) > 1]
        alone = set(range(len(asked))).difference(*together)
        self._places = [*([at] for at in sorted(alone)), *together]
        self.calls = [
            asked[places[0]] if len(places) == 1 else _merged([asked[at] for at in places])
            for places in self._places
        ]

    def replies(self, replies: Sequence[Reply]) -> list[Reply]:
        """What each call has replied, by what was sent has."""
        found: dict[int, Reply] = {}
        for places, reply in zip(self._places, replies, strict=True):
            found.update(zip(places, [reply] if len(places) == 1 else reply, strict=True))
        return [found[at] for at in range(len(found))]


def _merged(asked: Sequence[Call]) -> Call:
    packed = []
    for call in asked:
        packed.append(b"%d%02d" % (_PARTS[call.script.name], len(call.args)))
        packed += [b"%06d%b" % (len(each), each) for each in call.args]
    size = max(call.size for call in asked)  # Mostly there is next to nothing to tell.
    patient = all(call.patient for call in asked)
    args = [b"".join(packed)]
    return Call(_script(), asked[0].keys, args, writes=False, size=size, patient=patient)
