"""Entries as they are stored: a card to judge them by, and a record to serve.

A card is what every process keeps in memory for each entry of a scope: the question, a
digest of the answer, the documents it was made from. A record is the value and what is told
with it. Neither is trusted when it is read: what is not whole is `Corrupt`, which a lookup
takes for an entry that is gone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ormsgpack

from langgraph_valkey.keys import to_bytes, to_text

FORMAT = 1
"""First item of cards and records: how they are written."""


class Corrupt(ValueError):
    """What was stored can't be read back whole."""


@dataclass(frozen=True, slots=True)
class Card:
    """What an entry is judged by.

    Attributes:
        question: The question it was stored under.
        answer: Digest of its value.
        documents: Ids of the documents the value was made from, the best first.
    """

    question: str
    answer: str
    documents: tuple[str, ...]

    def pack(self) -> bytes:
        """It in stored form."""
        documents = [to_bytes(name) for name in self.documents]
        return ormsgpack.packb([FORMAT, to_bytes(self.question), self.answer, documents])

    @classmethod
    def unpack(cls, raw: bytes) -> Card:
        """Read it back.

        Raises:
            Corrupt: It is not whole.
        """
        question, answer, documents = _fields(raw, 3)
        if not isinstance(answer, str) or not isinstance(documents, list):
            raise Corrupt("a card is not whole")
        return cls(_text(question), answer, tuple(map(_text, documents)))


@dataclass(frozen=True, slots=True)
class Record:
    """What is served.

    Attributes:
        tenant: Whose it is: checked again before it is served.
        value: The value, encoded.
        evidence: Ids of the documents it was made from, and their versions.
        usage: What the model used for it: counts of tokens, as LangChain has them.
        stored_s: When it was stored, in seconds since 1970 by the writer's clock.
        took_s: How long it took to compute; None if that is not known.
    """

    tenant: str
    value: bytes
    evidence: Mapping[str, str | None]
    usage: Mapping[str, int]
    stored_s: float
    took_s: float | None

    def pack(self) -> bytes:
        """It in stored form."""
        evidence = [
            (to_bytes(name), None if version is None else to_bytes(version))
            for name, version in self.evidence.items()
        ]
        fields = [FORMAT, to_bytes(self.tenant), self.value, evidence, dict(self.usage)]
        return ormsgpack.packb([*fields, self.stored_s, self.took_s])

    @classmethod
    def unpack(cls, raw: bytes) -> Record:
        """Read it back.

        Raises:
            Corrupt: It is not whole.
        """
        tenant, value, pairs, usage, stored_s, took_s = _fields(raw, 6)
        whole = isinstance(value, bytes) and isinstance(pairs, list) and isinstance(usage, dict)
        if not (whole and _is_time(stored_s) and (took_s is None or _is_time(took_s))):
            raise Corrupt("a record is not whole")
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise Corrupt("the evidence of a record is not whole")
        if not all(isinstance(count, int) for count in usage.values()):
            raise Corrupt("the usage of a record is not whole")
        evidence = {
            _text(name): None if version is None else _text(version) for name, version in pairs
        }
        return cls(_text(tenant), value, evidence, usage, stored_s, took_s)


def _is_time(found: Any) -> bool:
    return isinstance(found, float | int) and math.isfinite(found)


def _text(raw: Any) -> str:
    if not isinstance(raw, bytes):
        raise Corrupt("a text is missing")
    try:
        return to_text(raw)
    except UnicodeDecodeError:
        raise Corrupt("a text is not whole") from None


def _fields(raw: bytes, count: int) -> list[Any]:
    try:
        fields = ormsgpack.unpackb(raw)
    except ValueError:
        raise Corrupt("what was stored is no msgpack") from None
    if not isinstance(fields, list) or len(fields) != count + 1 or fields[0] != FORMAT:
        raise Corrupt("what was stored is of another format")
    return fields[1:]
