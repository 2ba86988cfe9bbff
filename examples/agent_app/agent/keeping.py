"""How the agent keeps its threads: as this package does it, or plainly, to compare.

`Guarded` is `StateTiers`: turns are recorded before they start, what a failover loses is
replayed, what a dead process has left is brought to its end, and tools commit.

`Plain` is what is left if all that is switched off: a checkpointer that stores and loads,
and tools that write to the database. Nobody replays, and nobody runs anything again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from pydantic import SecretStr

from examples.agent_app.agent.graph import Agent
from examples.agent_app.agent.tools import TURN, Work
from examples.agent_app.books import Books
from langgraph_valkey import (
    Health,
    Hooks,
    RecoveryReport,
    Settings,
    StateTiers,
    TierSettings,
    ValkeySaver,
)

OWNER_ALIVE_S = 2.0
"""After how long of silence a process counts as dead. Short, since people look on."""

WAIT_S = 20.0
"""How long a message waits for the one before it on its thread."""

REJECT_DEADLINE_S = 60.0
"""How long refused writes are tried: as long as somebody may want to look at that."""

DRAIN_S = 1.0
"""How long leaving may take; what is not settled by then is left to whoever recovers."""


class Keeping(Protocol):
    """What the agent's process needs of either.

    Attributes:
        saver: The checkpointer: compile graphs with it.
        replays: Whether anything is done about what a failover loses.
    """

    saver: BaseCheckpointSaver[Any]
    replays: bool

    def stream(self, graph: Agent, given: Any, thread: str, run: str) -> Iterator[Any]:
        """Execute a turn, step by step."""
        ...

    def commit(
        self, op: str, key: str, work: Work, given: dict[str, Any], config: RunnableConfig
    ) -> dict[str, Any]:
        """Do some work on the books, in a transaction."""
        ...

    def recover(self, graph: Agent) -> dict[str, Any]:
        """Bring to its end what others have left; what came of it."""
        ...

    def running(self) -> frozenset[str]:
        """Ids of runs that are executed now, whoever waits for them."""
        ...

    def health(self) -> Health:
        """The loss window."""
        ...

    def close(self) -> None:
        """Leave."""
        ...


class Guarded:
    """By `StateTiers`.

    Args:
        url: Of the cluster.
        primary: URL of the primary store.
        lag_bound_s: The cluster's.
        hooks: Are told of failovers.
    """

    replays = True

    def __init__(self, url: str, primary: str, lag_bound_s: float, hooks: Hooks) -> None:
        self._tiers = StateTiers(
            TierSettings(
                transient=_settings(url, lag_bound_s),
                primary=SecretStr(primary),
                owner_alive_s=OWNER_ALIVE_S,
            ),
            hooks=hooks,
        )
        self._tiers.setup()
        self.saver: BaseCheckpointSaver[Any] = self._tiers.saver

    def stream(self, graph: Agent, given: Any, thread: str, run: str) -> Iterator[Any]:
        """See `Keeping`."""
        return self._tiers.stream(
            graph, given, thread_id=thread, run_id=run, wait_s=WAIT_S, stream_mode="updates"
        )

    def commit(
        self, op: str, key: str, work: Work, given: dict[str, Any], config: RunnableConfig
    ) -> dict[str, Any]:
        """Once a turn, however often its steps are run again."""
        receipt = self._tiers.commit(
            op,
            key=key,
            payload=given,
            fn=lambda connection: work(connection, **given),
            on_mismatch="return_first",
            config=config,
        )
        done: dict[str, Any] = receipt.result
        return done

    def recover(self, graph: Agent) -> dict[str, Any]:
        """See `Keeping`. A conflict is told once, and then left for good."""
        report = self._tiers.recover(graph)
        for each in report.conflicts:
            self._tiers.cancel(each.run_id)
        return {
            "rerun": list(report.rerun),
            "busy": list(report.busy),
            "failed": [each.why for each in report.failed],
            "conflicts": [each.why for each in report.conflicts],
            "duration_s": report.duration_s,
        }

    def running(self) -> frozenset[str]:
        """See `Keeping`."""
        return frozenset(self._tiers.runs.health().running)

    def health(self) -> Health:
        """See `Keeping`."""
        return self._tiers.saver.health()

    def close(self) -> None:
        """See `Keeping`."""
        self._tiers.close(DRAIN_S)


class Plain:
    """A checkpointer, and nothing else.

    Args:
        url: Of the cluster.
        shop: Where tools write to.
        lag_bound_s: The cluster's.
    """

    replays = False

    def __init__(self, url: str, shop: Books, lag_bound_s: float) -> None:
        self._shop = shop
        self._saver = ValkeySaver(_settings(url, lag_bound_s, replay=False))
        self.saver: BaseCheckpointSaver[Any] = self._saver

    def stream(self, graph: Agent, given: Any, thread: str, run: str) -> Iterator[Any]:
        """See `Keeping`."""
        named = {"thread_id": thread, TURN: run}
        config: RunnableConfig = {"configurable": named, "metadata": {"run_id": run}}
        return graph.stream(given, config, stream_mode="updates", durability="sync")

    def commit(
        self,
        op: str,  # noqa: ARG002 - nobody remembers
        key: str,  # noqa: ARG002
        work: Work,
        given: dict[str, Any],
        config: RunnableConfig,  # noqa: ARG002
    ) -> dict[str, Any]:
        """As often as it is asked for."""
        with self._shop.engine.begin() as connection:
            return work(connection, **given)

    def recover(self, graph: Agent) -> dict[str, Any]:  # noqa: ARG002 - nobody does
        """See `Keeping`."""
        return {"rerun": [], "busy": [], "failed": [], "conflicts": [], "duration_s": 0.0}

    def running(self) -> frozenset[str]:
        """See `Keeping`. Those whose customers wait are known without it."""
        return frozenset()

    def health(self) -> Health:
        """See `Keeping`."""
        return self._saver.health()

    def close(self) -> None:
        """See `Keeping`."""
        self._saver.close(0)


def _settings(url: str, lag_bound_s: float, *, replay: bool = True) -> Settings:
    return Settings.from_url(
        url,
        durability="async",
        lag_bound_s=lag_bound_s,
        replay=replay,
        reject_deadline_s=REJECT_DEADLINE_S,
    )


def report_told(report: RecoveryReport) -> dict[str, Any]:
    """A recovery, as JSON has it."""
    return {
        "replayed": report.replayed,
        "already_there": report.already_there,
        "rewound": list(report.rewound),
        "incomplete": list(report.incomplete),
        "uncovered": report.uncovered,
        "forks": len(report.forks),
        "duration_s": report.duration_s,
    }
