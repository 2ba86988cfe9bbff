"""How it looks: calm lines of at most 96 columns, colour only where someone looks."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TextIO

WIDTH = 96
LABEL = 9
"""Columns of the labels that tell who speaks."""

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def short(text: object, most: int) -> str:
    """One line of at most so many characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 3].rstrip() + "..."


def size(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / 1024:,.1f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:,.1f} MiB"


class Screen:
    """Writes to a terminal, or to whatever stands in its place.

    Args:
        out: Where to write; standard output if not given.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self.live = self._out.isatty()
        self._colour = self.live and "NO_COLOR" not in os.environ
        self._column = 0
        self._word = ""
        self._indent = 2 + LABEL

    def styled(self, text: str, style: str) -> str:
        """The text in a style, if colours are shown."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colour and style else text

    def act(self, number: int, title: str, told: str = "") -> None:
        """The heading of an act, and a sentence on what it is to show."""
        rule = "─" * max(3, WIDTH - len(title) - 6)
        self.line(f"\n{self.styled(f'{number}  {title}', 'bold')}  {self.styled(rule, 'dim')}")
        if told:
            self.text(told, style="dim")
        self.line()

    def line(self, text: str = "", style: str = "") -> None:
        """One line, as it is."""
        self.end()
        print(self.styled(text, style), file=self._out, flush=True)

    def text(
        self, text: str, label: str | None = None, style: str = "", label_style: str = "bold"
    ) -> None:
        """A text, wrapped, in the column beside the label if there is one, even an empty one."""
        indent = "  " if label is None else " " * (2 + LABEL)
        room = WIDTH - len(indent)
        wrapped = [textwrap.wrap(line, room, break_on_hyphens=False) for line in text.splitlines()]
        lines = [line for paragraph in wrapped for line in paragraph or [""]] or [""]
        start = "  " if label is None else "  " + self.styled(f"{label:<{LABEL}}", label_style)
        for line in lines:
            self.line(start + self.styled(line, style) if line else "")
            start = indent

    def table(
        self, heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = ""
    ) -> None:
        """A table.

        Args:
            heads: The columns' heads.
            rows: Their cells.
            right: For each column ``>`` to align it to the right, else ``<``.
        """
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        aligned = right.ljust(len(heads), "<")

        def laid(cells: Sequence[str]) -> str:
            parts = zip(cells, aligned, widths, strict=True)
            return "  " + "  ".join(f"{c:{a}{w}}" for c, a, w in parts).rstrip()

        self.line(laid(heads), style="dim")
        for row in rows:
            self.line(laid(row))

    def say(self, words: str, label: str = "") -> None:
        """Some more words of a text that is being spoken; it wraps as it grows.

        Args:
            words: They may begin and end anywhere, also within a word.
            label: Stands before the first word.
        """
        if not self._column:
            print("  " + self.styled(f"{label:<{LABEL}}", "bold"), end="", file=self._out)
            self._column = self._indent
        for letter in words:
            if letter.isspace():
                self._put_word()
                if letter == "\n" and self._column > self._indent:
                    self._break()
            else:
                self._word += letter
        self._out.flush()

    def end(self) -> None:
        """End what is being spoken, if anything is."""
        if self._column:
            self._put_word()
            print(file=self._out, flush=True)
            self._column = 0

    def progress(self, text: str) -> None:
        """How far something slow has come; each call takes the last one's place."""
        if self.live:
            print(f"\r\x1b[K  {self.styled(text, 'dim')}", end="", file=self._out, flush=True)

    def progress_done(self, text: str) -> None:
        """The something slow has ended."""
        if self.live:
            print("\r\x1b[K", end="", file=self._out)
        self.line(f"  {text}")

    def ask(self, prompt: str, asked: Callable[[], None] | None = None) -> str:
        """Ask the person at the terminal; what comes from a pipe is shown as if typed.

        Args:
            prompt: What to ask.
            asked: Called when the prompt is on the screen.

        Raises:
            EOFError: There is nobody.
        """
        self.end()
        if asked is not None:
            print(f"  {prompt}", end="", file=self._out, flush=True)
            asked()
        try:
            answer = input("" if asked else f"  {prompt}")
        except EOFError:
            self.line()
            raise
        if not sys.stdin.isatty():
            self.line(answer)
        return answer.strip()

    def _put_word(self) -> None:
        if not self._word:
            return
        gap = 0 if self._column == self._indent else 1
        if self._column + gap + len(self._word) > WIDTH:
            self._break()
            gap = 0
        print(" " * gap + self._word, end="", file=self._out)
        self._column += gap + len(self._word)
        self._word = ""

    def _break(self) -> None:
        print("\n" + " " * self._indent, end="", file=self._out)
        self._column = self._indent
