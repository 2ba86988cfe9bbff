"""Random faults, round after round, and a verdict.

    python -m examples.agent_app.rounds --rounds 10 --seed 1

In each round a customer orders or asks something, or answers what is asked, and at a random
moment something is broken. At the end every message that was accepted must be in its
conversation and have its answer, each order must have been made once, and be paid once
where it was approved, and no conversation may be stuck. With ``--without-replay`` the same
is done to a plain checkpointer: to see what the verdict would say.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.agent_app.visitor import RefusedError, Visitor

THREADS = ("c-ada", "c-ben", "c-eve")
GOODS = {"lamp": "desk lamps", "chair": "office chairs", "arm": "monitor arms"}
QUESTIONS = (
    "How many days do I have to return something?",
    "How long does delivery take?",
    "Is there a warranty on the standing desk?",
)
LOSING = ("kill_primary", "kill_both", "freeze_primary")
DECK = ("kill_both", "kill_primary", "kill_both", "kill_agent", "freeze_primary", "reject_writes")
"""Faults, drawn until none is left, and again; agent and primary at once is the hardest."""

LATEST_S = 1.0
"""A fault comes so long after the customer at the latest."""

HELD_MOST_S = 2.0
REFUSED_S = 1.5


@dataclass(slots=True)
class Wish:
    """An order that a customer wants.

    Attributes:
        thread: The conversation.
        sku: What is wanted.
        count: How many.
        approved: What the customer said when asked; None if not asked yet.
    """

    thread: str
    sku: str
    count: int
    approved: bool | None = None


class Rounds:
    """Rounds under way.

    Args:
        visitor: Who does it all.
        seed: Of what is drawn.
        say: Called with a line about each round.
    """

    def __init__(self, visitor: Visitor, seed: int, say: Callable[[str], None]) -> None:
        self._visitor = visitor
        self._chance = random.Random(seed)  # noqa: S311
        self._say = say
        self._deck: list[str] = []
        self._wishes: dict[str, Wish] = {}
        self._asked: dict[str, str] = {}

    def run(self, rounds: int) -> list[str]:
        """Do them all; what is wrong in the end."""
        # A first message each, so that it is known where they live.
        for thread in THREADS:
            self._ask(thread)
            self._visitor.settled(thread)
        for number in range(1, rounds + 1):
            began_s = time.monotonic()
            what = self._round()
            self._say(f"round {number}: {what}, {time.monotonic() - began_s:.1f} s")
        self._finish()
        return self._verdict()

    # --- a round --------------------------------------------------------------------------

    def _round(self) -> str:
        visitor, chance = self._visitor, self._chance
        if not self._deck:
            self._deck = chance.sample(DECK, len(DECK))
        thread, fault = chance.choice(THREADS), self._deck.pop()
        shards = {each["thread"]: each["shard"] for each in visitor.state()["threads"]}
        shard = shards[thread] if chance.random() < 0.8 else chance.randrange(3)
        held = fault in LOSING and chance.random() < 0.7
        found = visitor.settled(thread)
        if held:
            visitor.press("hold_log", shard)
            time.sleep(chance.uniform(0, HELD_MOST_S))
        said = self._act(thread, found)
        time.sleep(chance.uniform(0, LATEST_S))
        mark = visitor.mark()
        visitor.press(fault, shard)
        if fault == "reject_writes":
            time.sleep(REFUSED_S)
            visitor.press("accept_writes", shard)
            came = "accepted again"
        else:
            came = visitor.judged(mark)["title"]
        if fault == "freeze_primary":
            visitor.press("resume", shard)
        visitor.settled(thread)
        return f"{said}; {'log held, ' if held else ''}{fault} on shard {shard}: {came}"

    def _act(self, thread: str, found: dict[str, Any]) -> str:
        if found["pending"]:
            approve = self._chance.random() < 0.8
            self._decide(thread, approve=approve)
            return f"{thread} {'approves' if approve else 'declines'}"
        if self._chance.random() < 0.25:
            return self._ask(thread)
        sku, count = self._chance.choice(list(GOODS)), self._chance.randint(1, 3)
        run = self._visitor.say(thread, f"I'd like {count} {GOODS[sku]}")
        self._wishes[run] = Wish(thread, sku, count)
        return f"{thread} orders {count} x {sku}"

    def _ask(self, thread: str) -> str:
        question = self._chance.choice(QUESTIONS)
        self._asked[self._visitor.say(thread, question)] = thread
        return f"{thread} asks"

    def _decide(self, thread: str, *, approve: bool) -> None:
        open_wishes = [
            each
            for each in self._wishes.values()
            if each.thread == thread and each.approved is None
        ]
        self._visitor.decide(thread, approve=approve)
        open_wishes[-1].approved = approve

    # --- the verdict ----------------------------------------------------------------------

    def _finish(self) -> None:
        """Answer what is asked still."""
        for thread in THREADS:
            if self._visitor.settled(thread)["pending"]:
                self._decide(thread, approve=True)
                self._visitor.settled(thread)

    def _verdict(self) -> list[str]:
        wrong: list[str] = []
        orders = self._visitor.orders()
        turns: dict[str, bool] = {}
        for thread in THREADS:
            found = self._visitor.settled(thread)
            turns |= found["turns"]
            if found["next"] or found["pending"]:
                wrong.append(f"{thread} is stuck before {found['next']}")
        for run in [*self._wishes, *self._asked]:
            if run not in turns:
                wrong.append(f"{run} is gone from its conversation")
            elif not turns[run]:
                wrong.append(f"{run} has no answer")
        for run, wish in self._wishes.items():
            made = [each for each in orders if each["request"] == run]
            state = "paid" if wish.approved else "cancelled"
            found_states = [(each["sku"], each["count"], each["state"]) for each in made]
            if found_states != [(wish.sku, wish.count, state)]:
                wrong.append(f"{run} should have one order, {state}: {found_states}")
        wrong += self._visitor.state()["ledger"]["wrong"]
        paid = sum(each["state"] == "paid" for each in orders)
        self._say(
            f"{len(self._wishes) + len(self._asked)} messages, {len(orders)} orders, {paid} paid, "
            f"{sum(each['charges'] for each in orders)} charges"
        )
        return wrong


def main() -> int:
    """Run; returns the exit code: 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m examples.agent_app.rounds")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-replay", action="store_true", help="see what is lost then")
    given = parser.parse_args()
    print(f"Seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, Visitor(Path(folder, "data")) as visitor:
        if given.without_replay:
            visitor.ask("POST", "replay", {"on": False})
        try:
            wrong = Rounds(visitor, given.seed, lambda line: print(line, flush=True)).run(
                given.rounds
            )
        except (TimeoutError, RefusedError) as error:
            wrong = [str(error)]
    print("\n".join(f"WRONG: {each}" for each in wrong) or "Nothing is wrong.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
