"""What is named on the command line: tiers, graphs, and what else a program has."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraph_valkey.cli import output
from langgraph_valkey.errors import ConfigurationError

if TYPE_CHECKING:
    from langgraph_valkey.moving.homes import Home, SaverHome
    from langgraph_valkey.tiers.state_tiers import StateTiers


def named(name: str) -> Any:
    """What ``module:attribute`` names.

    Raises:
        ConfigurationError: Nothing.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigurationError(
            f"{name!r} names nothing: write module:attribute, as in shop:agent"
        )
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigurationError(
            f"there is no module {module_name!r} on the path: start this where it can be imported"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"module {module_name!r} has no attribute {attribute!r}")
        found = getattr(found, part)
    return found


def names_primary() -> bool:
    """Whether the environment has a primary store, or the one that is there by default."""
    from langgraph_valkey.tiers.settings import PREFIX, PRIMARY

    return f"{PREFIX}PRIMARY" in os.environ or Path(PRIMARY.removeprefix("sqlite:///")).exists()


def tiers_of(name: str | None) -> StateTiers:
    """The `StateTiers` that is named; that of the environment if none is.

    Raises:
        ConfigurationError: It is none, no cluster is named, or LangGraph is not installed.
    """
    try:
        from langgraph_valkey.tiers.state_tiers import StateTiers
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("langgraph."):
            raise
        raise ConfigurationError(
            "tiers run graphs, and LangGraph is not installed here: pip install langgraph"
        ) from error

    if name is None:
        return StateTiers()
    tiers = named(name)
    if not isinstance(tiers, StateTiers):
        raise ConfigurationError(f"{name} is a {type(tiers).__name__}, not a StateTiers")
    return tiers


def graph_of(tiers: StateTiers, name: str) -> Any:
    """The compiled graph that is named, with the saver of the tiers."""
    found = named(name)
    if hasattr(found, "compile"):
        return found.compile(checkpointer=tiers.saver)
    if hasattr(found, "invoke") or not callable(found):
        return found
    return found(tiers)


@contextmanager
def home_at(place: str | None, tiers: str | None, *, writes: bool = False) -> Iterator[SaverHome]:
    """Where threads are: at a place, in the tiers that are named, or as the environment says.

    Raises:
        ConfigurationError: Nowhere.
        Unreachable: It does not answer.
    """
    from langgraph_valkey.moving.opaque import Opaque
    from langgraph_valkey.moving.opening import home_of, open_home
    from langgraph_valkey.moving.our_homes import OurHome
    from langgraph_valkey.settings import Settings

    if place is not None:
        home = open_home(place, named, writes=writes)
    elif tiers is not None:
        home = home_of(tiers_of(tiers), name=tiers, writes=writes)
    else:
        home = OurHome(Settings.from_env(), Opaque(), writes=writes)
    try:
        yield home
    finally:
        leave(home)


def leave(home: Home) -> None:
    """Close a home, once what was written there can't be lost any more."""
    if home.unsettled():
        output.complain(f"waiting until {home.name} can't lose what was written; Ctrl-C ends it")
    home.close()


def importable() -> None:
    """Let modules of the current directory be found, as a program's own would."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
