"""The agent at its desk: one conversation after another, several at a time.

Nothing of a conversation is in memory. Where it stands is read from its checkpoint each
time, so it makes no difference which process brought it there.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START
from langgraph.types import Command

from examples.agent_app.agent.graph import build_agent
from examples.agent_app.agent.help_pages import HelpPages
from examples.agent_app.agent.keeping import Keeping
from examples.agent_app.agent.showing import history_shown, message_shown, thread_shown
from examples.agent_app.agent.tools import make_tools
from examples.agent_app.books import Books
from examples.agent_app.wire import Wire
from langgraph_valkey import LanggraphValkeyError, ReplayIncomplete, RunTakenOver

TURNS_AT_ONCE = 8
HISTORY_MOST = 60
"""Checkpoints of a thread that are shown, the newest."""


class Desk:
    """The agent, and all conversations with it.

    Args:
        wire: Who is told what happens.
        model: What it thinks with.
        keeping: How threads are kept.
        shop: The books.
        pages: What it knows.
    """

    def __init__(
        self, wire: Wire, model: BaseChatModel, keeping: Keeping, shop: Books, pages: HelpPages
    ) -> None:
        self._wire = wire
        self._keeping = keeping
        self._lock = threading.Lock()
        self._ours: dict[str, str] = {}
        self._again: dict[str, str] = {}
        self._begun: set[str] = set()
        tools = make_tools(shop, pages, keeping.commit)
        self.graph = build_agent(model, tools, keeping.saver, self)
        self._pool = ThreadPoolExecutor(TURNS_AT_ONCE, thread_name_prefix="turn")

    # --- what the server asks for -------------------------------------------------------

    def say(self, thread: str, run: str, text: str) -> None:
        """A customer says something."""
        self._begin(thread, run, {"messages": [HumanMessage(text, id=run)]})

    def decide(self, thread: str, run: str, question: str, *, approved: bool) -> None:
        """A customer approves or declines what was asked."""
        self._begin(thread, run, Command(resume={question: {"approved": approved}}))

    def travel(self, thread: str, run: str, checkpoint: str) -> dict[str, Any]:
        """Go on from an earlier checkpoint, on a branch of its own."""
        past = _config(thread, checkpoint)
        if START in self.graph.get_state(past).next:
            raise ValueError("a message has just arrived there: choose the step after it")
        self.graph.update_state(past, None, as_node="__copy__")
        goes_on = bool(self.graph.get_state(_config(thread)).next)
        if goes_on:
            self._begin(thread, run, None)
        return {"goes_on": goes_on}

    def thread(self, thread: str) -> dict[str, Any]:
        """A conversation as it stands."""
        shown = thread_shown(self.graph.get_state(_config(thread)))
        with self._lock:
            under_way = thread in {*self._ours.values(), *self._again.values()}
        return {**shown, "under_way": under_way}

    def history(self, thread: str) -> list[dict[str, Any]]:
        """The checkpoints of a conversation, newest first."""
        found = self.graph.get_state_history(_config(thread), limit=HISTORY_MOST)
        return history_shown(found)

    def leave(self) -> None:
        """Let turns that are under way go: whoever recovers brings them to their end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- turns --------------------------------------------------------------------------

    def _begin(self, thread: str, run: str, given: Any) -> None:
        with self._lock:
            self._ours[run] = thread
        self._tell_run(thread, run, "started")
        self._pool.submit(self._run, thread, run, given)

    def look_after(self) -> None:
        """Tell of turns that were run again, with nobody waiting for them, and have ended."""
        running = self._keeping.running()
        with self._lock:
            ended = {run: thread for run, thread in self._again.items() if run not in running}
        for run, thread in ended.items():
            try:
                state, pending = self._standing(thread)
            except LanggraphValkeyError:
                continue  # The next time.
            with self._lock:
                self._again.pop(run, None)
            self._tell_run(thread, run, state, pending=pending)

    def _standing(self, thread: str) -> tuple[str, list[dict[str, Any]]]:
        """What a turn that was executed elsewhere has come to, and what it asks for."""
        shown = self.thread(thread)
        if shown["pending"]:
            return "waiting", shown["pending"]
        return "left" if shown["next"] else "answered", []

    def _run(self, thread: str, run: str, given: Any) -> None:
        state, why = "", ""
        pending: list[dict[str, Any]] = []
        try:
            for part in self._keeping.stream(self.graph, given, thread, run):
                state = "answered"
                if "__interrupt__" in part:
                    state = "waiting"
                    pending = [{"id": each.id, **each.value} for each in part["__interrupt__"]]
            if (
                not state
            ):  # It was executed before, or by a recovery meanwhile: nothing is streamed.
                state, pending = self._standing(thread)
        except RunTakenOver:
            state, why = "left", "another process took it over"
        except ReplayIncomplete as error:
            state, why = "failed", str(error)
        except LanggraphValkeyError as error:
            state, why = "left", f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - whatever a model or a tool raises is told
            state, why = "failed", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        finally:
            with self._lock:
                self._ours.pop(run, None)
        self._tell_run(thread, run, state, why, pending)

    def _tell_run(
        self,
        thread: str,
        run: str,
        state: str,
        why: str = "",
        pending: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._wire.tell("run", thread=thread, run=run, state=state, why=why, pending=pending)

    # --- what happens in a step; see `graph.Live` -----------------------------------------

    def thinks(self, config: RunnableConfig) -> None:
        """The model is asked. The first time in a run its input is known to be stored."""
        thread, run = _named(config)
        with self._lock:
            if run in self._begun:
                return
            self._begun.add(run)
            is_ours = run in self._ours
            if not is_ours:
                self._again[run] = thread
        self._tell_run(thread, run, "accepted" if is_ours else "again")

    def says(self, config: RunnableConfig, text: str) -> None:
        """The model says a bit more."""
        thread, run = _named(config)
        self._wire.tell("token", thread=thread, run=run, text=text)

    def said(self, config: RunnableConfig, message: BaseMessage) -> None:
        """A message is whole."""
        thread, run = _named(config)
        self._wire.tell("message", thread=thread, run=run, message=message_shown(message))


def _config(thread: str, checkpoint: str = "") -> RunnableConfig:
    named = {"thread_id": thread} | ({"checkpoint_id": checkpoint} if checkpoint else {})
    return {"configurable": named}


def _named(config: RunnableConfig) -> tuple[str, str]:
    """Thread and run that a step is of."""
    return str(config["configurable"]["thread_id"]), str(config.get("metadata", {}).get("run_id"))
