"""Other people's threads: each asks on, one question after the other, all at once.

They run on the saver's async face, while the rest of the program uses the blocking
one of the very same object. They approve every note.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from examples.agent.graph import Agent

QUESTIONS: dict[str, tuple[str, ...]] = {
    "ben": (
        "Why does no server outlive the Python process that started it?",
        "What does the watchdog do when it ends?",
        "How is a port chosen for a local server?",
        "What survives a restart of a local server?",
        "How can a local cluster lose writes on purpose?",
        "What does the proxy refuse, stall or cut?",
    ),
    "cleo": (
        "Which keys does a thread have, and why do they share a hash tag?",
        "How is a list cut into groups?",
        "When is a chunk compressed?",
        "What does the digest of a chunk serve for?",
        "What does a record hold?",
        "What does pruning keep for a delta channel?",
    ),
    "dai": (
        "How do the blocking and the async face share one implementation?",
        "What is the unit that is sent, kept and sent again?",
        "How are rejected writes tried again?",
        "What does OutcomeUnknown mean, and what should a caller do?",
        "What happens to a connection after a fork of the process?",
        "How many lines has the file about errors that sort by what the caller does next?",
    ),
    "eve": (
        "How is a deletion remembered, so that a late write can't bring a thread back?",
        "What does CorruptState tell about a key?",
        "How does listing page through checkpoints?",
        "How does a URL name a server with TLS?",
        "What does closing a saver wait for?",
        "What should be done when the server is full?",
    ),
}
"""Whose thread asks what."""

# One of them wants to know it all: what is stored for a long thread is of interest.
QUESTIONS["fay"] = tuple(chain.from_iterable(zip(*QUESTIONS.values(), strict=True)))


async def fill(agent: Agent, done: Callable[[int, int], None]) -> None:
    """Ask all questions on all threads.

    Args:
        agent: The graph.
        done: Called after each answer with how many there are, and will be.
    """
    count, total = 0, sum(map(len, QUESTIONS.values()))

    async def ask_on(thread: str, questions: tuple[str, ...]) -> None:
        nonlocal count
        config: RunnableConfig = {"configurable": {"thread_id": thread}}
        for question in questions:
            await agent.ainvoke({"messages": [HumanMessage(question)]}, config)
            while (await agent.aget_state(config)).interrupts:
                await agent.ainvoke(Command(resume={"approved": True}), config)
            count += 1
            done(count, total)

    async with asyncio.TaskGroup() as group:
        for thread, questions in QUESTIONS.items():
            group.create_task(ask_on(thread, questions))
