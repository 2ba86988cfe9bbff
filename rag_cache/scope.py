"""What has to be exactly the same for an answer to be reusable at all.

An answer depends on more than its question: on who asks, on what the model was told, on
the conversation, the tools, the documents. None of that belongs into an embedding, where
a long system prompt makes all questions look alike. So it is compared exactly, as a hash,
and only the question is compared by its meaning.

The *tenant* and the *corpus* are more than parts of that hash: they name the partition in
which entries are kept, and every entry is checked against them again when it is served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

NAME_LENGTH_MAX = 512
"""Characters of a tenant's or a corpus' name: they are part of every key."""


def digest_of(*parts: str) -> bytes:
    """A name of 16 bytes for texts of any length and any characters.

    Args:
        *parts: The texts; where one ends and the next begins counts.
    """
    joined = json.dumps(parts, separators=(",", ":")).encode()  # ASCII, whatever they hold.
    return hashlib.blake2b(joined, digest_size=16).digest()


@dataclass(frozen=True)
class Scope:
    """Within what a cached value may be served.

    Attributes:
        tenant: Who asks: entries never cross from one tenant to another. "" if all
            callers may see the same.
        corpus: Name of the collection of documents that answers are made from.
        system_prompt: What the model is told before the question.
        history: Digest of the conversation before the question; see `history_digest`.
        tools: Names or descriptions of tools the model may use, in any order.
        model: The model and its parameters.
        extra: More that has to be the same; anything that can be written as JSON.

    Raises:
        TypeError: A field is of another type, or `extra` can't be written as JSON.
        ValueError: A name is longer than `NAME_LENGTH_MAX` characters.
    """

    tenant: str = ""
    corpus: str = "default"
    system_prompt: str = ""
    history: str = ""
    tools: Sequence[str] = ()
    model: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("tenant", "corpus", "system_prompt", "history", "model"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"Scope.{name} must be a string")
        for name in ("tenant", "corpus"):
            if len(getattr(self, name)) > NAME_LENGTH_MAX:
                raise ValueError(f"Scope.{name} is longer than {NAME_LENGTH_MAX} characters")
        tools = () if isinstance(self.tools, str) else tuple(self.tools)
        if isinstance(self.tools, str) or not all(isinstance(each, str) for each in tools):
            raise TypeError("Scope.tools must be a sequence of strings")
        object.__setattr__(self, "tools", tuple(sorted(tools)))
        object.__setattr__(self, "extra", dict(self.extra))
        _ = self.digest

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that stand for all of it."""
        try:
            extra = json.dumps(self.extra, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise TypeError("Scope.extra must be something that JSON can hold") from None
        return digest_of(
            *(self.tenant, self.corpus, self.system_prompt, self.history),
            *(self.model, extra, *self.tools),
        )

    @property
    def key(self) -> str:
        """The same in 32 hex digits."""
        return self.digest.hex()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scope) and self.digest == other.digest
