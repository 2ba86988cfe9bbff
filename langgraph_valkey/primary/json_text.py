"""JSON as it is kept: strict, canonical, checked before anything is written.

What Python's `json` lets through, and other readers or a second run would not take
alike, is refused: NaN and infinities, keys that are no strings, tuples of whatever
class. Texts are ASCII with escapes, since PostgreSQL refuses NUL characters in text
and no encoding takes lone surrogates.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def encode(value: Any, what: str, bytes_max: int) -> str:
    """A value as JSON.

    Args:
        value: The value.
        what: What it is, for the error: "the payload of commit 'charge'".
        bytes_max: How long the text may be.

    Returns:
        ASCII text; equal values give equal texts.

    Raises:
        TypeError: JSON can't hold it.
        ValueError: It is too large, or nested in itself.
    """
    _check(value, what, ())
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    if len(text) > bytes_max:
        raise ValueError(
            f"{what} takes {len(text)} bytes as JSON, and at most {bytes_max} are kept: "
            "store it elsewhere, and commit its name"
        )
    return text


def _check(value: Any, what: str, around: tuple[int, ...]) -> None:
    """Raise for what JSON can't hold; the text names the place, never the value."""
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float):
        if value - value != 0:  # NaN and the infinities.
            raise TypeError(f"{what} holds a NaN or an infinity, which JSON can't hold")
        return
    if id(value) in around:
        raise ValueError(f"{what} holds itself, which JSON can't hold")
    within = (*around, id(value))
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{what} has a key that is no text, which JSON can't hold")
        for each in value.values():
            _check(each, what, within)
    elif isinstance(value, list | tuple):
        for each in value:
            _check(each, what, within)
    else:
        raise TypeError(
            f"{what} holds a {type(value).__name__}, which JSON can't hold: "
            "give text, numbers, booleans, None, lists and dicts of these"
        )


def sha256_of(text: str) -> str:
    """Digest of a text, in hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()
