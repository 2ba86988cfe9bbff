"""Puts into words, for the timeline, what the agent and the cluster were seen to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from examples.agent_app.shards import ShardView
from examples.agent_app.timeline import Level, counted

if TYPE_CHECKING:
    from examples.agent_app.stage import Stage


class Telling:
    """What was told already, so that nothing is told twice.

    Args:
        stage: Of which it is told.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._refusing: dict[int, str] = {}
        self._wrong: set[str] = set()
        self._stale = 0
        self._again: set[str] = set()

    # --- the agent --------------------------------------------------------------------

    def up(self, message: dict[str, Any]) -> None:
        """A process of the agent is up."""
        if self._stage.agent.lives > 1:
            how = (
                "with replay and run registry" if message["replays"] else "as a plain checkpointer"
            )
            self._stage.timeline.add(
                "agent_up",
                "A new agent process",
                f"Process {message['pid']} is up, {how}. It holds nothing of the one before it.",
                pid=message["pid"],
            )

    def switched(self, *, replay: bool) -> None:
        """The agent is started anew, in the other way."""
        if replay:
            text = (
                "The agent is started anew with its journal, its replay and the run registry: what "
                "is acknowledged from now on is not lost."
            )
        else:
            text = (
                "The agent is started anew as a plain checkpointer: no journal, nothing replayed, "
                "nothing run again, and tools that write without a record of what they did."
            )
        title = "Replay is on" if replay else "Replay is off"
        self._stage.timeline.add("switched", title, text, "good" if replay else "warn")

    def run(self, message: dict[str, Any]) -> None:
        """A turn has come to somewhere."""
        timeline = self._stage.timeline
        match message["state"]:
            case "again":
                self._again.add(message["run"])
                timeline.add(
                    "rerun",
                    "Run again",
                    "A turn that its process did not bring to an end is run again, from what was "
                    "recorded of it. What it has committed already is not done again.",
                    run=message["run"],
                )
            case "left":
                then = (
                    "It is recorded, and will be brought to its end"
                    if self._stage.agent.place["replay"]
                    else "Nobody will bring it to its end"
                )
                timeline.add("left", "A turn was cut off", f"{message['why']}. {then}.", "warn")
            case "not_taken":
                timeline.add(
                    "not_taken",
                    "A message was not taken",
                    f"{message['why']}. It is sent again, as the same request: if it was recorded "
                    "after all, it is not done twice.",
                    "warn",
                )
            case "failed":
                timeline.add("failed", "A turn failed", message["why"], "bad")

    def rewound(self, report: dict[str, Any]) -> None:
        """The agent has noticed a failover, and replayed."""
        replayed, threads = report["replayed"], len(report["rewound"])
        took_ms = round(report["duration_s"] * 1000)
        if not replayed and not report["incomplete"]:
            text = "It looked after all that was not known to be durable: nothing was missing."
        else:
            text = (
                f"{counted(replayed, 'entry').replace('entrys', 'entries')} of "
                f"{counted(threads, 'thread')} had been lost by the store, and were written back "
                f"from the agent's journal within {took_ms:,} ms."
            )
        level: Level = "bad" if report["incomplete"] else "good"
        if report["incomplete"]:
            text += f" {counted(len(report['incomplete']), 'thread')} could not be restored."
        self._stage.timeline.add(
            "replayed", "Noticed by the agent, and replayed", text, level,
            replayed=replayed, already_there=report["already_there"], threads=threads,
            took_ms=took_ms,
        )  # fmt: skip

    def recovery(self, report: dict[str, Any]) -> None:
        """The agent has looked for what others left."""
        timeline = self._stage.timeline
        if rerun := report.get("rerun"):
            timeline.add(
                "recovered",
                f"{counted(len(rerun), 'turn')} brought to an end",
                "Left by a process that died, and finished by this one, with the same keys.",
                "good",
                runs=len(rerun),
                took_s=round(report["duration_s"], 2),
            )
        for why in report.get("conflicts", ()):
            timeline.add("conflict", "A turn was left alone", f"{why}.", "warn")

    # --- the cluster, the books, the cache ----------------------------------------------

    def looked(self, shards: Sequence[ShardView]) -> None:
        """The cluster was looked at."""
        for each in shards:
            before = self._refusing.get(each.shard, "")
            if each.rejecting == before:
                continue
            self._refusing[each.shard] = each.rejecting
            if each.rejecting == "CLUSTERDOWN":
                self._stage.timeline.add(
                    "refusing",
                    f"Shard {each.shard} refuses writes",
                    "Its oldest write that is not persisted is older than the bound of 10 s. Reads "
                    "go on; the agent waits, and tries again.",
                    "warn",
                    lag_s=round(each.lag_s, 1),
                )
            elif before:
                self._stage.timeline.add(
                    "accepting", f"Shard {each.shard} accepts writes again",
                    "What waited for it goes on.", "good",
                )  # fmt: skip

    def books(self, ledger: dict[str, Any]) -> None:
        """The books have changed."""
        for wrong in ledger["wrong"]:
            if wrong not in self._wrong:
                self._wrong.add(wrong)
                self._stage.timeline.add("wrong", "The books are wrong", f"{wrong}.", "bad")

    def counted(self, total: dict[str, Any]) -> None:
        """The cache has counted something."""
        if total["stale_refused"] > self._stale:
            self._stale = total["stale_refused"]
            self._stage.timeline.add(
                "stale_refused",
                "A stale answer was refused",
                "The cache had an answer that fits, made from a version of a page that is not "
                "current any more. The model was asked instead.",
                "good",
                refused=self._stale,
            )
