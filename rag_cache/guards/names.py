"""Whether two questions are about the same persons, places and things, in the same roles."""

from __future__ import annotations

from rag_cache.guards.guard import Asked, Candidate
from rag_cache.guards.words import Parsed, parsed

SOURCES = frozenset({"from", "leaving", "off"})
"""Before where something comes from."""

TARGETS = frozenset({"to", "into", "onto", "for", "towards"})
"""Before where it goes to."""

REACH = 3
"""How many words after such a word the name may stand."""


class Names:
    """Refuses where one question names what the other does not, or names change places.

    A name is what is written like one: with a capital inside a sentence, or in capitals.
    """

    name = "names"

    def __repr__(self) -> str:
        return "Names()"

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        """See `Guard.refusal`."""
        ours, theirs = parsed(asked.question), parsed(candidate.question)
        apart = (ours.names - theirs.mentioned) | (theirs.names - ours.mentioned)
        if apart:
            return f"different names: {', '.join(sorted(apart))}"
        if _turns_round(ours, theirs) or _turns_round(theirs, ours):
            return "from and to are exchanged"
        return None


def _turns_round(one: Parsed, other: Parsed) -> bool:
    """Whether one comes from where the other goes to."""
    source = _after(one, SOURCES)
    exchanged = not source.isdisjoint(_after(other, TARGETS))
    return exchanged and source.isdisjoint(_after(other, SOURCES))


def _after(question: Parsed, prepositions: frozenset[str]) -> set[str]:
    """The first words of content after certain prepositions."""
    found = set()
    for at, word in enumerate(question.words):
        if word in prepositions:
            following = question.stems[at + 1 : at + 1 + REACH]
            found.update([each for each in following if each in question.content][:1])
    return found
