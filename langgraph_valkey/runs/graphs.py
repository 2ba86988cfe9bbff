"""The graphs that can be executed here, by the names under which runs are recorded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.base import SerializerProtocol

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.runs.receipts_note import WithReceipts
from langgraph_valkey.saver import ValkeySaver

LANGGRAPH_OLDEST = (1, 2, 20)
"""What the tests of interrupted runs pass on."""

_UNNAMED = "LangGraph"
"""What LangGraph calls a graph that was given no name."""


@dataclass(frozen=True, slots=True)
class Known:
    """A graph, and what it takes to execute a run of it again.

    Attributes:
        name: Under which its runs are recorded.
        graph: The compiled graph.
        with_receipts: How it is told what its turn has committed; None for a message.
        config: What a re-run's config has beside what was recorded: callbacks, handles.
        options: What a re-run is given beside what was recorded: a context, say.
    """

    name: str
    graph: Any
    with_receipts: WithReceipts | None = None
    config: RunnableConfig | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether it has what could not be recorded of a run, by its name."""
        folder, _, within = name.rpartition(".")
        config: Mapping[str, Any] = self.config or {}
        return within in (config.get(folder, {}) if folder else {**config, **self.options})

    @property
    def serde(self) -> SerializerProtocol:
        """The serializer that knows the types of its state."""
        return self.graph.checkpointer.serde  # type: ignore[no-any-return]


class Graphs:
    """Those of one `Runs`.

    Args:
        saver: The checkpointer that all of them have.
    """

    def __init__(self, saver: ValkeySaver) -> None:
        self._saver = saver
        self._known: dict[str, Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(
        self,
        graph: Any,
        name: str | None = None,
        *,
        with_receipts: WithReceipts | None = None,
        config: RunnableConfig | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Known:
        """Know a graph, also in place of one of the same name.

        Raises:
            ConfigurationError: It is no compiled graph with this saver.
        """
        self._check(graph)
        known = Known(name or graph.get_name(), graph, with_receipts, config, options or {})
        self._known[known.name] = known
        return known

    def of(self, graph: Any) -> Known:
        """A graph that is to be executed; under its own name, if it was not given one.

        Raises:
            ConfigurationError: It is no compiled graph with this saver, or another one
                has its name.
        """
        for known in tuple(self._known.values()):
            if known.graph is graph:
                return known
        there = self._known.get(graph.get_name()) if hasattr(graph, "get_name") else None
        if there is None:
            return self.add(graph)
        self._check(graph)
        if not _is_same(there, graph):
            raise ConfigurationError(
                f"two graphs are named {there.name!r}, so a re-run could take the wrong one: give "
                "them names by compile(name=...) or register(graph, name)"
            )
        known = self._known[there.name] = replace(there, graph=graph)
        return known

    def find(self, name: str, given: Mapping[str, Known]) -> Known | None:
        """The graph of this name; those that are given come first."""
        return given.get(name) or self._known.get(name)

    def given(self, graphs: Any) -> dict[str, Known]:
        """What was handed to `recover`: nothing, a graph, or graphs by name."""
        if graphs is None:
            return {}
        if isinstance(graphs, Mapping):
            for graph in graphs.values():
                self._check(graph)
            return {name: self._like(name, graph) for name, graph in graphs.items()}
        self._check(graphs)
        known = self._like(graphs.get_name(), graphs)
        return {known.name: known}

    def _like(self, name: str, graph: Any) -> Known:
        there = self._known.get(name)
        return replace(there, graph=graph) if there is not None else Known(name, graph)

    def _check(self, graph: Any) -> None:
        require_langgraph()
        saver = getattr(graph, "checkpointer", None)
        # Compiling may clone the saver, to tell its serializer of the state's types.
        if not isinstance(saver, ValkeySaver) or saver._session is not self._saver._session:  # noqa: SLF001
            raise ConfigurationError(
                f"{type(graph).__name__} is not compiled with the saver that runs are kept by: "
                "compile it with checkpointer= that saver"
            )


@cache
def require_langgraph() -> None:
    """Raise unless LangGraph is new enough for runs to be executed again.

    Raises:
        ConfigurationError: It is older, or not there.
    """
    try:
        found = version("langgraph")
    except PackageNotFoundError:
        found = "0"
    if tuple(int(number) for number in re.findall(r"\d+", found)[:3]) < LANGGRAPH_OLDEST:
        wanted = ".".join(map(str, LANGGRAPH_OLDEST))
        raise ConfigurationError(
            f"runs need LangGraph {wanted} or newer: an older one gives an answer to an interrupt "
            f"to the next question as well, when a run is executed again. Installed is {found}: "
            f"pip install 'langgraph>={wanted}'"
        )


def _is_same(there: Known, graph: Any) -> bool:
    """Whether a graph is one that is known, compiled anew, as some do for each request.

    The name that all have who were given none says nothing.
    """
    if there.name == _UNNAMED:
        return getattr(there.graph, "builder", None) is getattr(graph, "builder", there)
    return set(there.graph.nodes) == set(graph.nodes)
