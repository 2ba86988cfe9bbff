"""What users of this library ask, each question in several wordings.

Some are near to one another and want different answers: `async` and `sync`, `with` and
`without`. A cache that goes by similarity alone gives one's answer to the other.
"""

from __future__ import annotations

import random

QUESTIONS = """
Which versions of Valkey are supported?
What Valkey versions are supported?
which Valkey versions does it support?

Which versions of Python are supported?
What Python versions are supported?

What can a crash failover lose with async durability?
With async durability, what does a crash failover lose?

What can a crash failover lose with sync durability?
With sync durability, what does a crash failover lose?

Does it work without cluster mode?
Will it work without cluster mode?

Does it work with cluster mode?
Will it work with cluster mode?

How many round trips are needed for a put?
How many round trips does a put need?

What are fencing tokens for?
Why would I want a fencing token?

Is the order charged twice if the agent is killed?
If the agent is killed, is the order charged twice?

Do threads expire?
Can threads expire?
will a thread expire?

What is the watermark?
What does watermark mean here?

How is a growing list stored?
How are growing lists stored?
In what way is a growing list stored?

What is written to the journal?
What gets written into the journal?

How do I rehearse a failover?
How can I rehearse a failover?
how to rehearse a failover
"""
"""The wordings of each question, one a line."""

SKEW = 0.9
"""How much more often the first questions are asked: by the law of Zipf, with this exponent."""


def wordings() -> list[list[str]]:
    """The wordings of each question."""
    return [block.splitlines() for block in QUESTIONS.strip().split("\n\n")]


def stream(count: int, seed: int) -> list[str]:
    """Questions as they come in: a few are asked often, in whatever wording.

    Args:
        count: How many.
        seed: Of the draw.
    """
    draw = random.Random(seed)  # noqa: S311 - it says who asks what
    questions = wordings()
    draw.shuffle(questions)
    weights = [1 / rank**SKEW for rank in range(1, len(questions) + 1)]
    return [draw.choice(each) for each in draw.choices(questions, weights, k=count)]
