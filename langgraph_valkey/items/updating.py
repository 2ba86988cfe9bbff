"""Bringing a mirror up to date: what to ask, and what to make of the answers.

An update is data, as an operation is: whoever has a link sends the calls that it wants, side
by side, and gives it the answers, until it is done. So they can travel along with others.
"""

from __future__ import annotations

from collections.abc import Mapping

from langgraph_valkey.items.calls import News
from langgraph_valkey.items.mirror import Changes, Mirror
from langgraph_valkey.items.mirrors import Mirrors
from langgraph_valkey.items.records import Record
from langgraph_valkey.items.telling import Basis, Name, Telling, news_of, read
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call
from langgraph_valkey.operations import Answer
from langgraph_valkey.stored.codec import Codec


class _Asked:
    """What one bucket has told so far."""

    def __init__(self, telling: Telling[News]) -> None:
        self.telling = telling
        self.records: dict[Name, Record | None] = {}
        self.nbytes = 0

    def drop(self) -> None:
        self.records = {}
        self.nbytes = 0


class Update:
    """Brings the mirror of one prefix up to date.

    Args:
        mirrors: The process' mirrors.
        codec: The store's.
        keys: Of all buckets.
        prefix: The name of the prefix.

    Attributes:
        mirror: Which is brought up to date.
        seen: Up to where each bucket was asked: the mirror must reach that.
        heard: The last answer of each bucket.
        is_too_large: Whether there is no room for all that is there. It can't be done then.
    """

    def __init__(
        self, mirrors: Mirrors, codec: Codec, keys: Mapping[str, ThreadKeys], prefix: bytes
    ) -> None:
        self._mirrors = mirrors
        self._codec = codec
        self._keys = keys
        self._prefix = prefix
        self.mirror: Mirror = mirrors.of(prefix)
        self.seen: dict[str, Basis] = {}
        self.heard: dict[str, Answer] = {}
        self.is_too_large = False
        self._open = {bucket: self._asked(bucket) for bucket in keys}

    def _asked(self, bucket: str) -> _Asked:
        return _Asked(news_of(self._keys[bucket], self._prefix, self.mirror.basis(bucket)))

    def next(self) -> list[tuple[str, Call]]:
        """What to ask next, of which buckets; nothing if it is done, or can't be."""
        if self.is_too_large:
            return []
        return [(bucket, asked.telling.call()) for bucket, asked in self._open.items()]

    def take(self, bucket: str, answer: Answer) -> None:
        """Take what a bucket answered.

        Raises:
            Unreadable: It told of an item that is not what was stored.
        """
        asked = self._open[bucket]
        news = asked.telling.take(answer)
        if news is None or news.anew:
            asked.drop()
        if news is None:
            return
        if news.changes:
            asked.records.update(read(self._codec, news))
            asked.nbytes += sum(len(raw) for _, _, raw in news.changes if raw is not None)
            self._look_for_room()
        if not asked.telling.is_done:
            return
        basis, since = asked.telling.basis, asked.telling.since
        if self.mirror.learn(bucket, Changes(basis, since, asked.records, news.server_ms)):
            self.seen[bucket] = basis
            self.heard[bucket] = answer
            del self._open[bucket]
            if asked.records:
                self._look_for_room()
        else:
            self._open[bucket] = self._asked(bucket)

    def _look_for_room(self) -> None:
        """See that neither what is held nor what is on its way is too much.

        Not both together: what is told anew, or changed, takes the place of what is held.
        """
        told = self._open.values()
        rows = sum(len(asked.records) for asked in told)
        nbytes = sum(asked.nbytes for asked in told)
        has_room, mirror = self._mirrors.has_room, self.mirror
        self.is_too_large = not (has_room(rows, nbytes) and has_room(len(mirror), mirror.nbytes))
