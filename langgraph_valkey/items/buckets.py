"""The buckets of a store, over any link: how they are asked, and when an answer holds.

After a failover a bucket's answer is not returned before this process has replayed what it
knows of it, as of a saver's threads (`loss_window.recovering`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from langgraph_valkey import operations
from langgraph_valkey.errors import ConfigurationError, CorruptState, LanggraphValkeyError
from langgraph_valkey.items import calls, names
from langgraph_valkey.items.durable import Durables, PrimaryOf
from langgraph_valkey.items.telling import Name
from langgraph_valkey.items.together import Together
from langgraph_valkey.keys import ThreadKeys, to_text
from langgraph_valkey.known import Known
from langgraph_valkey.link import Call, Link, Reply
from langgraph_valkey.loss_window.recovering import not_yet
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.operations import Answer
from langgraph_valkey.stored.codec import Codec, Damaged

_FOREIGN = ("WRONGTYPE", "WrongType", "CORRUPT")
"""Words in a script's error that say: these keys hold something else."""


class Bucket(NamedTuple):
    """A bucket, as what is stored in it is sent there.

    Attributes:
        thread: Its name in the journal.
        keys: Its keys.
    """

    thread: str
    keys: ThreadKeys


class Buckets:
    """The buckets of one store.

    Args:
        codec: How values become bytes.
        window: The loss window.
        prefix: What all keys begin with.
        count: How many buckets there are.
        primary_of: The primary store, by the link whose face it shares; None without one.

    Attributes:
        codec: As given.
        window: As given.
        count: As given.
        keys: The keys of each bucket.
        known: What is known of them.
        durables: Sees to it that they have what the primary store has; None without one.
    """

    def __init__(
        self,
        codec: Codec,
        window: LossWindow,
        prefix: str,
        count: int,
        *,
        primary_of: PrimaryOf | None = None,
    ) -> None:
        self.codec = codec
        self.window = window
        self.count = count
        self.keys: Mapping[str, ThreadKeys] = {
            bucket: names.bucket_keys(prefix, bucket) for bucket in names.bucket_names(count)
        }
        self.known = Known(threads_most=count)
        self.durables: Durables | None = None
        if primary_of is not None:
            self.durables = Durables(window, self.known, self.keys, prefix, primary_of)
        self._prefix = prefix
        self._is_laid_out = False

    def of(self, namespace: bytes) -> str:
        """The bucket of a namespace, by its name."""
        return names.bucket_of(namespace, self.count)

    async def ask(self, link: Link, place: Bucket, call: Call) -> Answer:
        """Send one call and read its answer, whatever that is worth.

        Raises:
            CorruptState: The bucket's keys hold something else.
        """
        try:
            return operations.read((await link.send((call,)))[0])
        except LanggraphValkeyError as error:
            self.raise_foreign(error, place.keys.state)
            raise

    async def read(self, link: Link, asked: Sequence[tuple[str, Call]]) -> list[Answer]:
        """Send calls to buckets side by side; answers that may be relied on.

        Args:
            link: Over which.
            asked: Buckets, and what they are asked.

        Raises:
            CorruptState: Keys of the store hold something else.
        """
        return await self.until_good(link, asked, None, link.now())

    async def until_good(
        self,
        link: Link,
        asked: Sequence[tuple[str, Call]],
        replies: Sequence[Reply] | None,
        sent_s: float,
    ) -> list[Answer]:
        """Ask until all answers hold what this process knows of.

        Args:
            link: Over which.
            asked: Buckets, and what they are asked.
            replies: What they have replied already, if they were asked.
            sent_s: When they were.
        """
        standings = [self.known.standing(bucket) for bucket, _ in asked]
        found: dict[int, Answer] = {}
        left = list(range(len(asked)))
        tries, began_s = 0, link.now()
        while left:
            if replies is None:
                sent_s = link.now()
                replies = await self._send(link, [asked[at][1] for at in left])
            again = []
            good: dict[str, Answer] = {}
            for at, reply in zip(left, replies, strict=True):
                bucket, answer = asked[at][0], operations.read(reply)
                if not _says_the_same(answer, good.get(bucket)):
                    known, keys = standings[at], self.keys[bucket]
                    window, durables = self.window, self.durables
                    if await not_yet(window, link, bucket, keys, answer, known, tries, sent_s):
                        again.append(at)
                        continue
                    if durables and await durables.lacks(link, bucket, answer, sent_s, began_s):
                        again.append(at)
                        continue
                    self.known.learn(bucket, answer.standing)
                    good[bucket] = answer
                found[at] = answer
            left, replies, tries = again, None, tries + 1
        return [found[at] for at in range(len(asked))]

    async def _send(self, link: Link, asked: Sequence[Call]) -> list[Reply]:
        together = Together(asked)
        try:
            return together.replies(await link.send(together.calls))
        except LanggraphValkeyError as error:
            self.raise_foreign(error, asked[0].keys[0] if len(asked) == 1 else None)
            raise

    def raise_foreign(self, error: LanggraphValkeyError, key: bytes | None = None) -> None:
        """Raise anew where an error says that keys hold something that is not the store's.

        Args:
            error: As a link raised it.
            key: A key of the bucket that was asked, if it was one.

        Raises:
            CorruptState: It says so.
        """
        said = f"{error} {error.__cause__}"
        if type(error) is not LanggraphValkeyError or not any(word in said for word in _FOREIGN):
            return
        name = key.decode("utf-8", "backslashreplace") if key else self._prefix
        raise CorruptState(
            f"the store can't be read at {name!r}: a key there holds something else. Nothing of it "
            "is returned in part; remove what is not the store's",
            thread_id="",
            key=name,
        ) from error

    def corrupt(self, name: Name, damage: Damaged) -> CorruptState:
        """The error for an item that can't be read."""
        namespace = names.unpack_namespace(name[0])
        stem = self.keys[self.of(name[0])].state[: -len(b"state")]
        key = (stem + b"i:" + names.item_name(*name)).decode("utf-8", "backslashreplace")
        return CorruptState(
            f"item {to_text(name[1])!r} in {namespace!r} can't be read from key {key!r}: {damage}. "
            "It is not returned in part; put it anew or delete it",
            thread_id="",
            key=key,
        )

    async def lay_out(self, link: Link, *, writes: bool) -> None:
        """See to it that all processes have the same number of buckets; asked once.

        Args:
            link: Over which.
            writes: Whether something is about to be written.

        Raises:
            ConfigurationError: They have another number than this one.
        """
        if self._is_laid_out:
            return
        keys = names.bucket_keys(self._prefix, names.LAYOUT)
        [found] = await self._send(link, [calls.layout(keys)])
        if found is None and writes:
            [found] = await self._send(link, [calls.layout(keys, self.count)])
        if found is None:
            return
        if int(found) != self.count:
            raise ConfigurationError(
                f"the store under {self._prefix!r} has {int(found)} buckets, and this process "
                f"would look for its items in {self.count}: set store_buckets={int(found)}, or "
                "another key_prefix for another store"
            )
        self._is_laid_out = True


def _says_the_same(answer: Answer, good: Answer | None) -> bool:
    """Whether an answer says of its bucket, and of who tells it, what a good one said."""
    return good is not None and answer[:3] == good[:3] and answer.beyond == good.beyond
