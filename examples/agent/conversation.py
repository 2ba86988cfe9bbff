"""One thread of the agent: ask, stop for approval, go on, from whatever process.

Nothing of it is in memory. Where the thread stands is read from its checkpoint each
time, so it makes no difference whether this process, or another one long gone,
brought it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot

from examples.agent.graph import Agent
from examples.agent.show import LABEL, WIDTH, Screen, short

_AGENT, _YOU, _TOOL, _WAITS = "agent", "you", "tool", "waits"
_ARGUMENT_SHOWN = 44
_LINE = WIDTH - LABEL - 2


class Conversation:
    """A thread, shown as it goes.

    Args:
        agent: The graph.
        thread: The thread's id.
        screen: Where to show it.
        checkpoint_id: Where to branch off from, rather than its latest checkpoint.
    """

    def __init__(
        self, agent: Agent, thread: str, screen: Screen, checkpoint_id: str | None = None
    ) -> None:
        self._agent = agent
        self._screen = screen
        self.config: RunnableConfig = {"configurable": {"thread_id": thread}}
        if checkpoint_id is not None:
            self.config["configurable"]["checkpoint_id"] = checkpoint_id

    def state(self) -> StateSnapshot:
        """Where it stands."""
        return self._agent.get_state(self.config)

    def pending(self) -> dict[str, Any] | None:
        """What waits for approval, if anything does."""
        return next((interrupt.value for interrupt in self.state().interrupts), None)

    def ask(self, question: str) -> None:
        """Ask; ends with the answer, or with something that waits for approval."""
        self._run({"messages": [HumanMessage(question)]})

    def decide(self, *, approved: bool) -> None:
        """Approve or decline what waits, and go on."""
        self._run(Command(resume={"approved": approved}))

    def go_on(self) -> None:
        """Go on where it was stopped in the middle of a step."""
        self._run(None)

    def show_question(self, question: str) -> None:
        """Show a question that was not typed here."""
        self._screen.text(question, _YOU)

    def show_pending(self) -> None:
        """Show what waits for approval."""
        waits = self.pending()
        if waits is None:
            return
        self._screen.text(f"{waits['tool']} {waits['path']}", _WAITS, label_style="yellow")
        self._screen.text(short(waits["text"], 2 * WIDTH), "", style="dim")

    def _run(self, what: Any) -> None:
        # "sync": a step begins when the checkpoint before it is stored, so what is on the
        # screen is never ahead of the server by more than the step under way.
        # With two modes each part is a pair, which the type of `stream` does not say.
        parts: Iterator[Any] = self._agent.stream(
            what, self.config, stream_mode=["messages", "updates"], durability="sync"
        )
        for mode, part in parts:
            if mode == "messages":
                self._show_words(part)
            else:
                for node, update in part.items():
                    if not node.startswith("__"):  # an interrupt, or how it came about
                        self._show_update(update)
        self._screen.end()

    def _show_words(self, part: Any) -> None:
        if isinstance(part[0], AIMessageChunk) and part[0].text:
            self._screen.say(part[0].text, _AGENT)

    def _show_update(self, update: Any) -> None:
        for message in update["messages"]:
            if isinstance(message, AIMessage):
                for call in message.tool_calls:
                    told = [short(value, _ARGUMENT_SHOWN) for value in call["args"].values()]
                    line = short(f"-> {call['name']}({', '.join(told)})", _LINE)
                    self._screen.text(line, _AGENT, style="cyan")
            elif isinstance(message, ToolMessage):
                first = str(message.text).strip().partition("\n")[0]
                self._screen.text(short(f"<- {first}", _LINE), _TOOL, "dim")
