"""All that stands behind the page: the lab, the agent, the books, and what was said."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.agent.models import OFFLINE, chat_model
from examples.agent_app.agent_process import AgentAwayError, AgentProcess, OutageError
from examples.agent_app.books import Books
from examples.agent_app.hub import Hub
from examples.agent_app.lab import Lab
from examples.agent_app.shards import LAG_BOUND_S
from examples.agent_app.tally import Tally
from examples.agent_app.telling import Telling
from examples.agent_app.timeline import Timeline
from examples.agent_app.watch import LOOK_S, Watch
from examples.agent_app.wire import Message
from examples.agent_app.witness import Witness
from langgraph_valkey import ConfigurationError

DOCUMENTS = Path(__file__).parent / "shop"

SEND_AGAIN_S = 1.0
TITLE_LENGTH = 60
TEXT_LENGTH_MAX = 2000


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line.

    Attributes:
        folder: Where database and documents go; emptied at the start.
        model: The chat model.
        word_s: How long the offline one takes to say a word.
    """

    folder: Path
    model: str
    word_s: float


@dataclass(slots=True)
class Request:
    """What a customer sent, until it is known to be accepted.

    Attributes:
        ask: What the agent is asked to do.
        about: With what.
    """

    ask: str
    about: dict[str, Any]


class Stage:
    """Everything; belongs to one event loop.

    Args:
        options: What was asked for.

    Attributes:
        hub: The pages that are open.
        timeline: What happened.
        lab: The cluster.
        agent: The agent's process.
        books: The shop's database.
        witness: What customers were told.
        running: Conversations with a turn under way, and its run.
        watch: How cluster and books are.
        is_recovered: Whether the agent that lives now has found nothing left to do.
    """

    def __init__(self, options: Options) -> None:
        self.hub = Hub()
        self.timeline = Timeline(self.hub)
        self.lab = Lab()
        self.witness = Witness()
        self.running: dict[str, str] = {}
        self.is_recovered = False
        self._options = options
        self._folder = options.folder.resolve()
        self._tally = Tally()
        self._telling = Telling(self)
        self._unaccepted: dict[str, Request] = {}
        self._looking: asyncio.Task[None] | None = None
        self._later: set[asyncio.Task[None]] = set()
        self.books = Books(self._folder / "shop.db")
        place = {
            "folder": str(self._folder),
            "lag_bound_s": LAG_BOUND_S,
            "replay": True,
            "model": options.model,
            "word_s": options.word_s,
        }
        self.agent = AgentProcess(place, self._heard)
        self.watch = Watch(self.lab, self.books, self.hub)
        self.watch.on_shards = self._telling.looked
        self.watch.on_ledger = self._telling.books

    # --- life -------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything, from nothing.

        Raises:
            ConfigurationError: The folder is somebody else's, or a server can't be had.
            DemoError: There is no such model.
            AgentAwayError: The agent can't start.
        """
        if self._options.model != OFFLINE:
            await asyncio.to_thread(chat_model, self._options.model)  # Before anything is started.
        await asyncio.to_thread(_empty, self._folder)
        await asyncio.to_thread(self.books.open_shop)
        await asyncio.to_thread(self.lab.start)
        self.agent.place |= {"url": self.lab.cluster.url, "cache_url": self.lab.cache.url}
        self.agent.start()
        await self.watch.look()
        self._looking = asyncio.create_task(self.watch.look_on())
        await self.agent.wait_up()

    async def stop(self) -> None:
        """End everything."""
        for task in (self._looking, *self._later):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        await self.agent.stop()
        await asyncio.to_thread(self.lab.stop)
        self.books.close()

    def soon(self, work: Any) -> None:
        """Have something done beside this."""
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    # --- the page's questions -----------------------------------------------------------

    async def state(self) -> dict[str, Any]:
        """All that a page needs to begin."""
        return {
            "threads": await self.threads(),
            "cluster": self.watch.cluster(),
            "lags": [list(lags) for lags in self.watch.lags],
            "look_s": LOOK_S,
            "lag_bound_s": LAG_BOUND_S,
            "agent": self.agent_told(),
            "cache": self._tally.total,
            "ledger": self.watch.ledger,
            "documents": self.documents(),
            "timeline": self.timeline.entries,
            "model": self._options.model,
        }

    async def threads(self) -> list[dict[str, Any]]:
        """All conversations, the newest first."""
        found = await asyncio.to_thread(self.books.conversations)
        return [
            {
                **each,
                "shard": self.lab.shard_of(each["thread"]),
                "running": self._run_of(each["thread"]) is not None,
            }
            for each in found
        ]

    async def thread(self, thread: str) -> dict[str, Any]:
        """A conversation, as the store has it.

        Raises:
            AgentAwayError, OutageError: It can't be read now.
        """
        found: dict[str, Any] = await self.agent.ask("thread", {"thread": thread})
        running = self._run_of(thread)
        return {**found, "running": running, "shard": self.lab.shard_of(thread)}

    def _run_of(self, thread: str) -> str | None:
        """The run that is under way in a conversation, or is to be accepted still."""
        sent = (run for run, each in self._unaccepted.items() if each.about["thread"] == thread)
        return self.running.get(thread) or next(sent, None)

    async def history(self, thread: str) -> list[dict[str, Any]]:
        """Its checkpoints; raises as `thread`."""
        found: list[dict[str, Any]] = await self.agent.ask("history", {"thread": thread})
        return found

    def documents(self) -> list[str]:
        """Names of the shop's help pages."""
        return sorted(each.name for each in (self._folder / "documents").glob("*.md"))

    def document(self, name: str) -> str:
        """A help page.

        Raises:
            KeyError: There is none of this name.
        """
        return self._page(name).read_text("utf-8")

    def _page(self, name: str) -> Path:
        if name not in self.documents():
            raise KeyError(name)
        return self._folder / "documents" / name

    def agent_told(self) -> dict[str, Any]:
        """How the agent's process is."""
        return {
            "pid": self.agent.pid,
            "up": self.agent.pid is not None,
            "replay": self.agent.place["replay"],
            "lives": self.agent.lives,
            "spare": self.agent.spare_pid,
            "recovered": self.is_recovered,
            "trouble": self.agent.trouble,
        }

    # --- what customers do --------------------------------------------------------------

    async def say(self, thread: str, text: str) -> str:
        """Say something; returns the run's id.

        Raises:
            AgentAwayError, OutageError: Nobody took it.
        """
        run = f"turn-{secrets.token_hex(4)}"
        await asyncio.to_thread(self.books.note_conversation, thread, text[:TITLE_LENGTH])
        self.witness.said(thread, run, text)
        await self._send(run, Request("say", {"thread": thread, "run": run, "text": text}))
        return run

    async def decide(self, thread: str, question: str, *, approve: bool) -> str:
        """Approve or decline what was asked; twice is once. Raises as `say`."""
        run = f"word-{question}"
        about = {"thread": thread, "run": run, "question": question, "approved": approve}
        await self._send(run, Request("decide", about))
        return run

    async def travel(self, thread: str, checkpoint: str) -> dict[str, Any]:
        """Go on from an earlier checkpoint, on a branch; raises as `say`."""
        run = f"branch-{secrets.token_hex(4)}"
        about = {"thread": thread, "run": run, "checkpoint": checkpoint}
        went: dict[str, Any] = await self.agent.ask("travel", about)
        found = await self.agent.ask("thread", {"thread": thread})
        self.witness.travelled(thread, found["turns"])
        self.hub.tell("refresh", {"thread": thread})
        return {**went, "run": run}

    async def edit(self, name: str, text: str) -> str:
        """Edit a help page; returns its new version.

        Raises:
            KeyError: There is none of this name.
            AgentAwayError, OutageError: It is edited, and the cache could not be told yet.
        """
        page = self._page(name)
        draft = page.with_suffix(".draft")
        draft.write_text(text, "utf-8")
        draft.replace(page)
        versions: dict[str, str] = await self.agent.ask("read_again")
        self.timeline.add(
            "edited",
            f"{name} was edited",
            f"Its version is {versions[name]} now. Cached answers that were made from another "
            "one are never served again.",
            version=versions[name],
        )
        return versions[name]

    async def keep_by(self, *, replay: bool) -> None:
        """Have the agent keep its threads by this package, or plainly: it is started anew."""
        if self.agent.place["replay"] == replay:
            return
        self.agent.place["replay"] = replay
        self._telling.switched(replay=replay)
        await self.agent.renew()

    async def _send(self, run: str, request: Request) -> None:
        """Have the agent take a request; until it is accepted it is sent to each new life."""
        if not self.agent.place["replay"]:
            await self.agent.ask(request.ask, request.about)
            return
        self._unaccepted[run] = request
        with suppress(
            AgentAwayError
        ):  # The next life will get it: the same run is the same request.
            await self.agent.ask(request.ask, request.about)

    async def _send_again(self) -> None:
        for request in list(self._unaccepted.values()):
            with suppress(AgentAwayError, OutageError, ValueError):
                await self.agent.ask(request.ask, request.about)

    async def _send_later(self, run: str) -> None:
        await asyncio.sleep(SEND_AGAIN_S)
        request = self._unaccepted.get(run)
        if request is not None:
            with suppress(AgentAwayError, OutageError, ValueError):
                await self.agent.ask(request.ask, request.about)

    @property
    def is_waiting(self) -> bool:
        """Whether something that a customer sent is not accepted yet."""
        return bool(self._unaccepted)

    # --- what the agent tells -------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        kind = message.pop("event")
        match kind:
            case "token" | "message":
                self.hub.tell(kind, message)
            case "run":
                self._heard_of_run(message)
            case "health":
                self.watch.health = message
                if self._tally.counted(message["cache"]):
                    self._telling.counted(self._tally.total)
                    self.hub.tell("cache", self._tally.total)
            case "rewound":
                self._telling.rewound(message)
                self.hub.tell("refresh", {})
            case "recovery":
                self.is_recovered = not message.get("busy", True) and not message.get("failed")
                self._telling.recovery(message)
                self._tell_agent()
                if message.get("rerun"):
                    self.hub.tell("refresh", {})
            case "up":
                self._telling.up(message)
                self._tell_agent()
                if message["replays"]:
                    self.soon(self._send_again())
            case "down" | "unable":
                self._heard_of_end()

    def _heard_of_run(self, message: Message) -> None:
        thread, run, state = message["thread"], message["run"], message["state"]
        if state == "left" and run in self._unaccepted:
            # It never began, and is recorded nowhere: a client would call again, and so does this.
            state = message["state"] = "not_taken"
            self.soon(self._send_later(run))
        elif state != "started":
            self._unaccepted.pop(run, None)
        if state in ("started", "accepted", "again"):
            self.running[thread] = run
        if state in ("accepted", "again"):
            self.witness.accepted(thread, run)
        if state in ("answered", "waiting", "failed", "left", "not_taken"):
            self.running.pop(thread, None)
        if state == "answered":
            self.witness.answered(thread, run)
        self._telling.run(message)
        self.hub.tell("run", message)

    def _heard_of_end(self) -> None:
        self.is_recovered = False
        self.running.clear()
        self._tally.ended()
        self.watch.health = {}
        self._tell_agent()

    def _tell_agent(self) -> None:
        self.hub.tell("agent", self.agent_told())


def _empty(folder: Path) -> None:
    """Make a folder as it is when the shop opens: with its help pages, and nothing else."""
    is_ours = (folder / "shop.db").exists() or (folder / "documents").exists()
    if folder.exists() and any(folder.iterdir()):
        if not is_ours:
            raise ConfigurationError(
                f"{folder} holds something that is not this demo's, and would be emptied: "
                "choose another --data-dir"
            )
        shutil.rmtree(folder)
    shutil.copytree(DOCUMENTS, folder / "documents")
