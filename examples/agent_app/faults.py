"""The page's buttons: each breaks something, sees it mended, and says what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from examples.agent_app.agent_process import AgentAwayError, OutageError
from examples.agent_app.lab import SHARDS, Promotion, Strike
from examples.agent_app.stage import Stage
from examples.agent_app.timeline import counted, size
from langgraph_valkey import LanggraphValkeyError

CALM_DEADLINE_S = 60.0
"""How long turns and recoveries may take after a fault before it is compared all the same."""

POLL_S = 0.1

STRIKES = ("kill_primary", "freeze_primary", "kill_both")
"""What takes a shard its primary: a replica must be there to follow it."""


class BusyError(Exception):
    """Something else is under way there; the text says what."""


class Faults:
    """What can be broken.

    Args:
        stage: What it is broken on.

    Attributes:
        names: What each button is called.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._lab = stage.lab
        self._mending = stage.watch.mending
        self._doing: dict[str, Callable[[int], Awaitable[dict[str, Any]]]] = {
            "hold_log": self._hold_log,
            "release_log": self._release_log,
            "kill_primary": self._kill_primary,
            "freeze_primary": self._freeze_primary,
            "resume": self._resume,
            "reject_writes": self._reject_writes,
            "accept_writes": self._accept_writes,
            "kill_agent": self._kill_agent,
            "kill_both": self._kill_both,
        }
        self.names = tuple(self._doing)

    async def do(self, name: str, shard: int) -> dict[str, Any]:
        """Press a button; returns when it is broken. It is mended, and judged, beside this.

        Raises:
            KeyError: There is no such button.
            ValueError: There is no such shard.
            BusyError: The shard is being mended.
        """
        doing = self._doing[name]
        if not 0 <= shard < SHARDS:
            raise ValueError(f"there is no shard {shard}: give 0 to {SHARDS - 1}")
        if shard in self._mending and name not in ("kill_agent", "resume"):
            raise BusyError(f"shard {shard} is being mended: wait until it is whole")
        known = self._stage.watch.shard(shard)
        if name in STRIKES and not (known and known.is_whole):
            raise BusyError(f"shard {shard} has no replica that runs: resume what is frozen first")
        return await doing(shard)

    # --- the log, and refusals ----------------------------------------------------------

    async def _hold_log(self, shard: int) -> dict[str, Any]:
        await asyncio.to_thread(self._lab.hold_log, shard)
        self._stage.timeline.add(
            "held",
            f"The log of shard {shard} is held",
            "What it accepts from now on is acknowledged, and not persisted. If its primary "
            "crashes, that is lost; in 10 s it refuses writes.",
            "warn",
        )
        return {}

    async def _release_log(self, shard: int) -> dict[str, Any]:
        if not self._lab.is_held(shard):
            return {}
        await asyncio.to_thread(self._lab.release_log, shard)
        self._stage.timeline.add(
            "released", f"The log of shard {shard} goes on", "Everything accepted is persisted."
        )
        return {}

    async def _reject_writes(self, shard: int) -> dict[str, Any]:
        await asyncio.to_thread(self._lab.reject_writes, shard)
        self._stage.timeline.add(
            "refusing",
            f"Shard {shard} refuses writes",
            "Reads go on. The agent tries each write again until it is accepted.",
            "warn",
        )
        return {}

    async def _accept_writes(self, shard: int) -> dict[str, Any]:
        await asyncio.to_thread(self._lab.accept_writes, shard)
        return {}

    # --- primaries ------------------------------------------------------------------------

    async def _kill_primary(self, shard: int) -> dict[str, Any]:
        self._mending.add(shard)
        try:
            strike = await asyncio.to_thread(self._lab.kill_primary, shard)
        except BaseException:
            self._mending.discard(shard)
            raise
        self._tell_strike(strike, "killed", "killed (SIGKILL)")
        self._stage.soon(self._mend(strike))
        return {"pid": strike.pid, "port": strike.node.port}

    async def _freeze_primary(self, shard: int) -> dict[str, Any]:
        self._mending.add(shard)
        try:
            strike = await asyncio.to_thread(self._lab.freeze_primary, shard)
        except BaseException:
            self._mending.discard(shard)
            raise
        self._tell_strike(strike, "frozen", "halted (SIGSTOP), its connections open")
        self._stage.soon(self._mend(strike))
        return {"pid": strike.pid, "port": strike.node.port}

    async def _resume(self, shard: int) -> dict[str, Any]:
        if not self._lab.is_frozen(shard):
            return {}
        await asyncio.to_thread(self._lab.resume, shard)
        self._stage.timeline.add(
            "resumed",
            f"Shard {shard} is whole again",
            "What was frozen goes on, has learned of the new primary, and follows it.",
            "good",
        )
        return {}

    async def _kill_agent(self, shard: int) -> dict[str, Any]:
        del shard
        pid = self._strike_agent()
        self._stage.soon(self._judge(time.monotonic()))
        return {"agent": pid}

    async def _kill_both(self, shard: int) -> dict[str, Any]:
        agent = self._strike_agent()
        return {**await self._kill_primary(shard), "agent": agent}

    def _strike_agent(self) -> int | None:
        under_way = len(self._stage.running)
        is_in_journal = self._stage.watch.health.get("journal_entries") or 0
        pid = self._stage.agent.kill()
        if pid is None:
            return None
        text = f"Process {pid} is gone, with {counted(under_way, 'turn')} under way"
        if self._stage.agent.place["replay"]:
            text += f" and a journal of {is_in_journal:,} entries that nobody can replay now"
        self._stage.timeline.add(
            "agent_killed", "The agent was killed (SIGKILL)", f"{text}.", "warn",
            pid=pid, turns=under_way, journal_entries=is_in_journal,
        )  # fmt: skip
        return pid

    def _tell_strike(self, strike: Strike, kind: str, how: str) -> None:
        told = self._stage.watch.health_of(strike.shard)
        text = f"Process {strike.pid} on port {strike.node.port}."
        if entries := told.get("journal_entries"):
            text += (
                f" The agent holds {entries:,} entries that this primary has acknowledged and "
                "that are not known to be durable."
            )
        self._stage.timeline.add(
            kind, f"The primary of shard {strike.shard} was {how}", text, "warn",
            pid=strike.pid, journal_entries=entries or 0,
        )  # fmt: skip

    async def _mend(self, strike: Strike) -> None:
        try:
            promotion = await asyncio.to_thread(self._lab.promoted, strike)
            self._tell_promotion(strike, promotion)
            await asyncio.to_thread(self._lab.mend, strike)
        except (TimeoutError, LanggraphValkeyError) as error:
            self._stage.timeline.add("trouble", "The shard is not whole", f"{error}.", "bad")
        finally:
            self._mending.discard(strike.shard)
        await self._judge(strike.at_s)

    def _tell_promotion(self, strike: Strike, promotion: Promotion) -> None:
        lost = promotion.lost_bytes
        self._stage.timeline.add(
            "promoted",
            "A replica was promoted",
            f"Port {promotion.node.port} leads shard {strike.shard} after {promotion.took_s:.2f} s "
            "without a primary.",
            took_s=round(promotion.took_s, 2),
        )
        text = (
            f"The old primary's stream of writes was {size(lost)} ahead of where the new one "
            "began: accepted, acknowledged, and gone."
            if lost
            else "The new primary began where the old one's stream of writes had ended."
        )
        title = f"Lost by the store: {size(lost)}" if lost else "Lost by the store: nothing"
        self._stage.timeline.add("lost", title, text, "warn" if lost else "plain", bytes=lost)

    # --- the verdict --------------------------------------------------------------------

    async def _judge(self, struck_s: float) -> None:
        """Wait until nothing is under way any more, and compare."""
        stage = self._stage
        try:
            found = await self._turns_when_calm(time.monotonic() + CALM_DEADLINE_S)
        except (AgentAwayError, OutageError) as error:
            stage.timeline.add("unjudged", "Not compared", f"{error}.", "warn")
            return
        verdict = stage.witness.compare(found)
        took_s = time.monotonic() - struck_s
        numbers = {
            "threads": verdict.threads,
            "accepted": verdict.accepted,
            "answered": verdict.answered,
            "gone": len(verdict.gone),
            "unanswered": len(verdict.unanswered),
            "took_s": round(took_s, 1),
        }
        if verdict.is_right:
            text = (
                f"{counted(verdict.accepted, 'message')} had been accepted and "
                f"{verdict.answered:,} answered, in {counted(verdict.threads, 'conversation')}: "
                f"all are there, {took_s:.1f} s after the fault."
            )
            stage.timeline.add("kept", "Nothing is missing", text, "good", **numbers)
        else:
            gone = [f"the message “{each}”, with all that followed" for each in verdict.gone]
            gone += [f"the answer to “{each}”" for each in verdict.unanswered]
            text = f"Acknowledged, shown, and gone for good: {'; '.join(gone)}."
            title = f"Lost: {counted(len(gone), 'message')}"
            stage.timeline.add("missing", title, text, "bad", **numbers)
        if verdict.is_right:
            self._tell_books()
        stage.hub.tell("refresh", {})

    async def _turns_when_calm(self, until_s: float) -> dict[str, dict[str, bool]]:
        """The turns of all conversations, as the store has them; after `until_s` come what may.

        Raises:
            AgentAwayError, OutageError: They can't be read, by then.
        """
        while True:
            is_late = time.monotonic() > until_s
            if is_late or self._is_calm():
                threads = self._stage.witness.threads
                try:
                    return {each: (await self._stage.thread(each))["turns"] for each in threads}
                except (AgentAwayError, OutageError):
                    if is_late:
                        raise
            await asyncio.sleep(POLL_S)

    def _is_calm(self) -> bool:
        stage = self._stage
        is_up = stage.agent.pid is not None and stage.is_recovered
        return is_up and not stage.running and not stage.is_waiting and not self._mending

    def _tell_books(self) -> None:
        ledger = self._stage.watch.ledger
        paid = [each for each in ledger["orders"] if each["state"] == "paid"]
        if not paid or ledger["wrong"]:
            return
        title = "Charged once"
        text = f"{counted(len(paid), 'paid order')}, {counted(ledger['charges'], 'charge')}."
        self._stage.timeline.add(
            "charged", title, text, "good", orders=len(paid), charges=ledger["charges"]
        )
