"""The rules by which the scripted model decides: a conversation in, a message out.

It is no transcript. What it says is put together from the tool results that stand
in the conversation; what it does next depends on which tools it has called since
the last question: search, read the best passages, offer a note (on the thread's
first question, and when asked to), answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage

from examples.agent.tools import WRITTEN
from examples.agent.words import sentences, stems, topic

_HIT = re.compile(r"^\d+\. (\S+) # (.+)$", re.MULTILINE)
_PASSAGE = re.compile(r"^(\S+ # .+) \(line \d+\)\n\n", re.MULTILINE)
_WANTS_LINES = re.compile(r"\bhow many lines\b", re.IGNORECASE)
_WANTS_NOTE = re.compile(r"\b(note|write|save)\b.*\b(down|it|this|that|note)\b", re.IGNORECASE)
_READ_AT_ONCE = 2
_SENTENCES_MOST = 3
_FIT_LEAST = 0.6
"""Sentences with less of the topic than this share of the best one's are left out."""

_TOPIC_LEAST = 2
"""A question with fewer words of its own is about what the last one was about."""

_SLUG_WORDS = 5


def next_message(messages: Sequence[BaseMessage], tools: Collection[str]) -> AIMessage:
    """What the model says next.

    Args:
        messages: The conversation so far.
        tools: The names of the tools that it may call.
    """
    asked = [at for at, message in enumerate(messages) if isinstance(message, HumanMessage)]
    if not asked:
        return AIMessage("Ask me something about this repository.")
    question, turn = str(messages[asked[-1]].text), messages[asked[-1] + 1 :]
    about = topic(question)
    if len(about) < _TOPIC_LEAST and len(asked) > 1:
        about += topic(messages[asked[-2]].text)
    results: dict[str, list[str]] = {}
    for message in turn:
        if isinstance(message, ToolMessage) and message.name:
            results.setdefault(message.name, []).append(str(message.text))
    first = all(message.name != "write_note" for message in messages)

    if "search_documents" in tools and "search_documents" not in results:
        return _call(messages, "", [("search_documents", {"query": " ".join(about)})])
    hits = _HIT.findall("\n".join(results.get("search_documents", [])))
    if not hits:
        return AIMessage(f"The documents say nothing about {' '.join(about) or 'that'}.")
    if "read_document" in tools and "read_document" not in results:
        calls = [("read_document", {"path": p, "heading": h}) for p, h in hits[:_READ_AT_ONCE]]
        if _WANTS_LINES.search(question) and "count_lines" in tools:
            calls.append(("count_lines", {"path": hits[0][0]}))
        return _call(messages, "", calls)
    answer = _answer(about, results)
    offer = "write_note" in tools and "write_note" not in results
    if offer and (first or _WANTS_NOTE.search(question)):
        path = f"{'-'.join(about[:_SLUG_WORDS])}.md"
        note = {"path": path, "text": f"{question}\n\n{answer}"}
        say = "I have found it, and would like to keep a note."
        return _call(messages, say, [("write_note", note)])
    return AIMessage("\n".join([answer, *_about_note(results.get("write_note", []))]))


def _call(
    messages: Sequence[BaseMessage], say: str, calls: Sequence[tuple[str, dict[str, Any]]]
) -> AIMessage:
    return AIMessage(
        say,
        tool_calls=[
            ToolCall(name=name, args=args, id=f"call-{len(messages)}-{n}")
            for n, (name, args) in enumerate(calls)
        ],
    )


def _answer(about: list[str], results: dict[str, list[str]]) -> str:
    """The sentences that say most about the topic, by the passages they stand in."""
    wanted = set(stems(" ".join(about)))
    told: list[tuple[str, int, str]] = []
    for text in results.get("read_document", []):
        _, *parts = _PASSAGE.split(text)
        for name, passage in zip(parts[::2], parts[1::2], strict=True):
            told += [(name, at, said) for at, said in enumerate(sentences(passage))]
    fit = {one: len(wanted & set(stems(one[2]))) for one in told}
    least = max(fit.values(), default=0) * _FIT_LEAST
    ranked = sorted(fit, key=lambda one: (-fit[one], one[1]))[:_SENTENCES_MOST]
    best = [one for one in fit if one in ranked and fit[one] >= least]
    lines = list(results.get("count_lines", []))
    for name in dict.fromkeys(name for name, _, _ in best):
        said = " ".join(said for other, _, said in best if other == name)
        lines.append(f"{said} [{name}]")
    return "\n".join(lines) or "The passages that fit hold tables and code only; read them."


def _about_note(results: list[str]) -> list[str]:
    if not results:
        return []
    written = results[-1].startswith(WRITTEN)
    path = results[-1].removeprefix(WRITTEN)
    return [f"The note is in {path}." if written else "You declined the note; nothing was written."]
