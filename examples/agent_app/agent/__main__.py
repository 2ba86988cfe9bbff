"""The agent's process: ``python -m examples.agent_app.agent SOCKET``; the server starts it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel

from examples.agent.models import OFFLINE, DemoError, chat_model
from examples.agent.scripted_model import ScriptedModel
from examples.agent_app.agent.desk import Desk
from examples.agent_app.agent.help_pages import HelpPages
from examples.agent_app.agent.keeping import Guarded, Keeping, Plain, report_told
from examples.agent_app.agent.scripted import next_message
from examples.agent_app.books import Books
from examples.agent_app.wire import Message, Wire
from examples.rag_pipeline.extractive_model import ExtractiveModel
from langgraph_valkey import Hooks, LanggraphValkeyError, RecoveryReport
from rag_cache.embedders import WordLlama

HEALTH_S = 0.25
"""How often it is told how the loss window and the cache are."""

RECOVER_AGAIN_S = 0.5
RECOVER_DEADLINE_S = 60.0
"""How often, and for how long, it is looked for runs of a process that may live still."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is, and how the agent is to be.

    Attributes:
        url: Of the cluster.
        cache_url: Of the semantic cache.
        folder: Where database and documents are.
        lag_bound_s: The cluster's.
        replay: Whether to keep threads by this package, or plainly.
        model: The chat model.
        word_s: How long the offline model takes to say a word.
    """

    url: str
    cache_url: str
    folder: str
    lag_bound_s: float
    replay: bool
    model: str
    word_s: float


class Process:
    """The process.

    Args:
        wire: To the server.
        heard: What comes from there.
        place: Where everything is.
    """

    def __init__(self, wire: Wire, heard: Iterator[Message], place: Place) -> None:
        self._wire = wire
        self._heard = heard
        folder = Path(place.folder)
        primary = f"sqlite:///{folder / 'shop.db'}"
        shop = Books(folder / "shop.db")
        thinks, answers = _models(place)
        self._pages = HelpPages(
            folder / "documents", answers, place.model, place.cache_url, primary
        )
        hooks = Hooks(on_rewind=self._rewound)
        self._keeping: Keeping = (
            Guarded(place.url, primary, place.lag_bound_s, hooks)
            if place.replay
            else Plain(place.url, shop, place.lag_bound_s)
        )
        self._desk = Desk(wire, thinks, self._keeping, shop, self._pages)
        self._ended = threading.Event()
        self._pages.read_again()

    def serve(self) -> None:
        """Do what the server asks, until it is gone, or asks to leave."""
        self._wire.tell("up", pid=os.getpid(), replays=self._keeping.replays)
        for work in (self._recover, self._tell_health):
            threading.Thread(target=work, daemon=True).start()
        for message in self._heard:
            if message["ask"] == "leave":
                self._desk.leave()
                self._keeping.close()
                self._pages.close()
                self._wire.say({"reply": message["number"]})
                break
            threading.Thread(target=self._answer, args=(message,), daemon=True).start()
        self._ended.set()

    def _answer(self, message: Message) -> None:
        number = message["number"]
        try:
            value = self._do(message["ask"], message.get("about", {}))
        except LanggraphValkeyError as error:
            told = f"{type(error).__name__}: {error}"
            self._wire.say({"reply": number, "outage": told})
        except Exception as error:  # noqa: BLE001 - the server is told, and goes on
            self._wire.say({"reply": number, "error": f"{type(error).__name__}: {error}"})
        else:
            self._wire.say({"reply": number, "value": value})

    def _do(self, ask: str, about: dict[str, Any]) -> Any:
        desk = self._desk
        match ask:
            case "say":
                desk.say(about["thread"], about["run"], about["text"])
            case "decide":
                where = about["thread"], about["run"], about["question"]
                desk.decide(*where, approved=about["approved"])
            case "travel":
                return desk.travel(about["thread"], about["run"], about["checkpoint"])
            case "thread":
                return desk.thread(about["thread"])
            case "history":
                return desk.history(about["thread"])
            case "read_again":
                return self._pages.read_again()
            case _:
                raise ValueError(f"nobody knows how to {ask!r}")
        return None

    # --- what it tells unasked ----------------------------------------------------------

    def _rewound(self, report: RecoveryReport) -> None:
        self._wire.tell("rewound", **report_told(report))

    def _recover(self) -> None:
        """Look for what a process before this one has left, until nothing is in doubt."""
        until_s = time.monotonic() + RECOVER_DEADLINE_S
        while not self._ended.is_set() and time.monotonic() < until_s:
            try:
                report = self._keeping.recover(self._desk.graph)
            except LanggraphValkeyError as error:
                self._wire.tell("recovery", trouble=f"{type(error).__name__}: {error}")
            else:
                self._wire.tell("recovery", **report)
                if not report["busy"] and not report["failed"]:
                    return
            time.sleep(RECOVER_AGAIN_S)

    def _tell_health(self) -> None:
        while not self._ended.wait(HEALTH_S):
            self._desk.look_after()
            health, stats = self._keeping.health(), self._pages.stats()
            shards = {
                each.identity: {
                    "watermark_age_s": each.watermark_age_s,
                    "journal_entries": each.journal_entries,
                    "journal_bytes": each.journal_bytes,
                    "rejecting_s": each.rejecting_s,
                }
                for each in health.shards
            }
            cache = {
                "hits": dict(stats.hits),
                "misses": dict(stats.misses),
                "stale_refused": stats.stale_refused,
                "saved_s": stats.saved_s,
                "saved_tokens": stats.tokens_in + stats.tokens_out,
                "saved_money": stats.cost_saved or 0.0,
            }
            self._wire.tell(
                "health",
                shards=shards,
                journal_bytes=health.journal_bytes,
                journal_entries=health.journal_entries,
                uncovered=health.uncovered,
                recoveries=health.recoveries,
                cache=cache,
            )


def _models(place: Place) -> tuple[BaseChatModel, BaseChatModel]:
    """What the agent thinks with, and what answers from the help pages."""
    if place.model == OFFLINE:
        thinks = ScriptedModel(pause_s=place.word_s, rules=next_message)
        return thinks, ExtractiveModel(embedder=WordLlama())
    model = chat_model(place.model)
    return model, model


def main() -> int:
    """Wait for the word to begin, and run; returns the exit code."""
    for name in ("langgraph_valkey", "rag_cache"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # The page tells it.
    wire = Wire(int(sys.argv[1]))
    heard = wire.heard()
    begin = next(heard, None)
    if begin is None:
        return 0
    try:
        process = Process(wire, heard, Place(**begin["about"]))
    except (DemoError, LanggraphValkeyError) as error:
        wire.tell("unable", why=str(error))
        return 1
    process.serve()
    return 0


if __name__ == "__main__":
    # Turns under way must not hold it up: whoever recovers brings them to their end.
    os._exit(main())
