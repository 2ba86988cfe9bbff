"""A conversation at the terminal: on a new thread, or one that was left anywhere.

The tour starts this very program twice, to kill the first and let the second go on.
"""

from __future__ import annotations

import contextlib
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from examples.agent.conversation import Conversation
from examples.agent.documents import Library
from examples.agent.graph import build_agent
from examples.agent.models import chat_model
from examples.agent.show import LABEL, Screen, short
from examples.agent.tools import make_tools
from langgraph_valkey import ValkeySaver
from langgraph_valkey.local import LocalValkey

PAUSE_S = 0.02
"""How long the offline model takes to say a word, where someone looks on."""

_YES, _NO = ("y", "yes"), ("n", "no")


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line.

    Attributes:
        model: The chat model.
        data_dir: Where server and notes keep their data.
        keep: Whether the tour leaves it there.
        question: What to ask; the tour and the chat have other uses for None.
        interactive: Whether someone types.
        thread: The thread to chat on.
        url: A server to use instead of one of our own.
        tell: A file descriptor; a line is written there when the agent waits for a
            person, and when it has answered.
    """

    model: str
    data_dir: Path
    keep: bool
    question: str | None
    interactive: bool
    thread: str
    url: str | None
    tell: int | None


def valkey_in(data_dir: Path) -> LocalValkey:
    """The server that keeps its data there."""
    return LocalValkey(data_dir / "valkey")


def notes_in(data_dir: Path) -> Path:
    """Where the agent writes its notes."""
    return data_dir / "notes"


def chat(options: Options, screen: Screen) -> None:
    """Settle what the thread waits for, ask the question given, then those typed.

    Raises:
        DemoError: The model can't be had, or fails.
        LanggraphValkeyError: The server can't be had, or fails.
    """
    with ExitStack() as stack:
        model = chat_model(options.model, PAUSE_S)
        url = options.url or stack.enter_context(valkey_in(options.data_dir)).url
        saver = stack.enter_context(ValkeySaver.from_url(url))
        tools = make_tools(Library(), notes_in(options.data_dir))
        talk = Conversation(build_agent(model, tools, saver), options.thread, screen)
        _greet(talk, options, screen)
        with contextlib.suppress(EOFError):
            _settle(talk, options, screen)
            if options.question is not None:
                screen.line()
                talk.show_question(options.question)
                talk.ask(options.question)
                _settle(talk, options, screen)
                _tell(options, "answered")
            while options.interactive and (question := _typed(screen)):
                talk.ask(question)
                _settle(talk, options, screen)
        if options.interactive:
            screen.line(f"  The thread {options.thread} is kept; start again to go on.", "dim")


def _greet(talk: Conversation, options: Options, screen: Screen) -> None:
    state = talk.state()
    if options.interactive:
        screen.text("An empty line or Ctrl-C ends it.", style="dim")
        screen.text(f"Data in {options.data_dir}", style="dim")
    if not state.values:
        screen.line(f"  Thread {options.thread} is new.", "dim")
        return
    asked = [message.text for message in state.values["messages"] if message.type == "human"]
    step = (state.metadata or {}).get("step")
    where = f"at step {step}, {len(state.values['messages'])} messages"
    screen.line(f"  Thread {options.thread} is {where}, as its checkpoint says.", "dim")
    if asked:
        screen.line(f"  The last question was: {short(asked[-1], 70)}", "dim")
    # Tasks, not `next`: that leaves out a task that had ended when the process did.
    if state.tasks and not state.interrupts:
        screen.line("  It was stopped before it had answered, and goes on.", "dim")
        screen.line()
        talk.go_on()


def _settle(talk: Conversation, options: Options, screen: Screen) -> None:
    """Ask the person until nothing waits for approval any more."""
    while talk.pending() is not None:
        screen.line()
        talk.show_pending()
        tell = None if options.tell is None else partial(_tell, options, "waiting")
        answer = screen.ask(f"{'':<{LABEL}}Write it? [y/n] ", tell).lower()
        if answer in _YES + _NO:
            talk.decide(approved=answer in _YES)


def _typed(screen: Screen) -> str:
    screen.line()
    return screen.ask(f"{'you':<{LABEL}}")


def _tell(options: Options, what: str) -> None:
    if options.tell is not None:
        os.write(options.tell, f"{what}\n".encode())
