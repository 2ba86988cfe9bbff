"""From what somebody wrote to the home it means.

=============================  ==========================================================
``valkey://``, ``valkeys://``  ours, on a cluster (``redis://``, ``rediss://``: the same)
``postgresql://``              LangGraph's `PostgresSaver`
``sqlite:///file``             LangGraph's `SqliteSaver`
``aws+valkey://``              langchain-aws's `ValkeySaver` (``aws+valkeys://``: with TLS)
``module:attribute``           a checkpointer of the program's, its `StateTiers`, or a
                               function that returns one
``env:NAME``                   what stands in that variable: a process list shows the
                               arguments of a command, passwords too
=============================  ==========================================================

Behind a URL, objects are carried as closed packages; so they are behind a program's own
saver if it uses LangGraph's serializer (see `opaque`).
"""

from __future__ import annotations

import copy
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.moving.aws_home import AwsHome
from langgraph_valkey.moving.homes import Home, SaverHome, require_blocking
from langgraph_valkey.moving.opaque import Opaque, opaque
from langgraph_valkey.moving.our_homes import OurHome, RawHome
from langgraph_valkey.moving.sql_homes import PostgresHome, SqliteHome
from langgraph_valkey.saver import ValkeySaver
from langgraph_valkey.settings import Settings

_OURS = ("valkey", "valkeys", "redis", "rediss")
_FORMS = (
    "valkey://, valkeys://, postgresql://, sqlite:///file, aws+valkey://, module:attribute, or "
    "env:NAME for one in a variable"
)


def read(place: str) -> str:
    """What a place says, where it names a variable that does.

    Raises:
        ConfigurationError: There is no such variable.
    """
    if not place.startswith("env:"):
        return place
    name = place.removeprefix("env:")
    if not os.environ.get(name):
        raise ConfigurationError(f"the variable {name} is not set, though a place names it")
    return os.environ[name]


def open_home(place: str, named: Callable[[str], Any], *, writes: bool = False) -> SaverHome:
    """Open a home.

    Args:
        place: As described at the top of this module.
        named: Gives what ``module:attribute`` names.
        writes: Whether threads are going to be written there.

    Raises:
        ConfigurationError: It means nothing, or what it needs is not installed.
        Unreachable: It does not answer.
    """
    text = read(place)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return home_of(named(text), name=text, writes=writes)
    scheme = scheme.lower()
    if scheme in _OURS:
        return OurHome(Settings.from_url(text), Opaque(), writes=writes)
    if scheme in ("postgresql", "postgres"):
        return _postgres(text, writes=writes)
    if scheme == "sqlite":
        return _sqlite(text.removeprefix("sqlite:///"), writes=writes)
    if scheme in ("aws+valkey", "aws+valkeys", "aws+redis", "aws+rediss"):
        return _aws(text.removeprefix("aws+"))
    raise ConfigurationError(f"a place is written as {_FORMS}")


def pair(source: str, target: str, named: Callable[[str], Any]) -> tuple[Home, Home]:
    """Open a home to copy from, and one to copy to.

    Raises:
        ConfigurationError: As of `open_home`; also if they are the same one.
        Unreachable: One does not answer.
    """
    texts = read(source), read(target)
    if all(text.partition("://")[0].lower() in _OURS and "://" in text for text in texts):
        ours = [Settings.from_url(text) for text in texts]
        opened: list[SaverHome] = [
            RawHome(ours[0], Opaque(), writes=False),
            RawHome(ours[1], Opaque(), writes=True),
        ]
    else:
        opened = [open_home(source, named), open_home(target, named, writes=True)]
    if opened[0].identity == opened[1].identity:
        raise ConfigurationError("source and target are the same place: name two")
    _share_serializers(*opened)
    return opened[0], opened[1]


def _share_serializers(source: SaverHome, target: SaverHome) -> None:
    """See to it that one side stores what the other gives.

    Raises:
        ConfigurationError: One has a serializer of its own, and the other has not.
    """
    kinds = [type(home.serde) for home in (source, target)]
    closed = [opaque(home.serde) is not None for home in (source, target)]
    if closed[0] != closed[1] or (not closed[0] and kinds[0] is not kinds[1]):
        raise ConfigurationError(
            f"{source.name} has the serializer {kinds[0].__name__} and {target.name} has "
            f"{kinds[1].__name__}: objects that one of them makes are none that the other knows. "
            "Name savers of the program's for both, with the same serializer"
        )


def home_of(found: Any, *, name: str, writes: bool) -> SaverHome:
    """The home that something of a program's is.

    Args:
        found: A checkpointer, a `StateTiers`, or a function that returns one.
        name: What it is called.
        writes: Whether threads are going to be written there.

    Raises:
        ConfigurationError: It is none of these.
    """
    if not isinstance(found, BaseCheckpointSaver) and not hasattr(found, "saver"):
        found = found() if callable(found) else found
    saver = getattr(found, "saver", found)
    if not isinstance(saver, BaseCheckpointSaver):
        raise ConfigurationError(
            f"{name} is a {type(found).__name__}: name a checkpointer, a StateTiers, or a function "
            "that returns one"
        )
    serde = opaque(saver.serde) or saver.serde
    if isinstance(saver, ValkeySaver):
        return OurHome(saver.settings, serde, writes=writes)
    require_blocking(saver)
    theirs = copy.copy(saver)  # The program's own goes on with its serializer.
    theirs.serde = serde
    kinds: dict[str, type[SaverHome]] = {
        "langgraph.checkpoint.postgres PostgresSaver": PostgresHome,
        "langgraph.checkpoint.sqlite SqliteSaver": SqliteHome,
        "langgraph_checkpoint_aws.checkpoint.valkey.saver ValkeySaver": AwsHome,
    }
    classes = (f"{each.__module__} {each.__name__}" for each in type(saver).__mro__)
    kind = next((kinds[each] for each in classes if each in kinds), SaverHome)
    return kind(theirs, name, f"saver {name}")


def _postgres(url: str, *, writes: bool) -> PostgresHome:
    try:
        import psycopg
        from langgraph.checkpoint.postgres import PostgresSaver
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise _missing("langgraph-checkpoint-postgres psycopg[binary]", error) from error
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        # Not even as a cause: its text quotes the URL.
        raise ConfigurationError(
            "the URL is none that PostgreSQL takes: postgresql://user:password@host:5432/database, "
            "with / ? # @ : percent-encoded in a password"
        ) from None
    where = f"{given.get('host', 'localhost')}:{given.get('port', 5432)}/{given.get('dbname', '')}"
    opening = PostgresSaver.from_conn_string(url)
    try:
        saver = opening.__enter__()
    except psycopg.Error as error:
        raise Unreachable(
            f"PostgreSQL at {where} does not let this in ({type(error).__name__}): check that it "
            "runs, user, password and database"
        ) from None
    saver.serde = Opaque()
    scope = given.get("options", "")
    home = PostgresHome(saver, f"postgresql://{where}", f"postgresql {where} {scope}")
    home.closing.push(opening)
    if writes:
        saver.setup()
    elif not home.rows("SELECT to_regclass('checkpoints')")[0][0]:
        home.close()
        raise ConfigurationError(f"{home.name} has no threads of PostgresSaver: no such table")
    return home


def _sqlite(path: str, *, writes: bool) -> SqliteHome:
    try:
        from langgraph.checkpoint.sqlite import SqliteSaver
    except ImportError as error:
        raise _missing("langgraph-checkpoint-sqlite", error) from error
    file = Path(path).expanduser().absolute()
    mode = "rwc" if writes else "ro"
    try:
        connection = sqlite3.connect(
            f"{file.as_uri()}?mode={mode}", uri=True, check_same_thread=False
        )
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"{file} can't be opened as a SQLite database ({type(error).__name__}): name a file "
            f"that {'can be written' if writes else 'is there'}"
        ) from error
    saver = SqliteSaver(connection, serde=Opaque())
    home = SqliteHome(saver, f"sqlite:///{file}", f"sqlite {file}")
    home.closing.enter_context(closing(connection))
    if not writes:
        if not {"checkpoints", "writes"} <= tables:
            home.close()
            raise ConfigurationError(f"{file} has no threads of SqliteSaver: no such table")
        saver.is_setup = True  # Which would change the file.
    return home


def _aws(url: str) -> AwsHome:
    try:
        from importlib import import_module

        kind = import_module("langgraph_checkpoint_aws").ValkeySaver
        opening = kind.from_conn_string(url)
        saver = opening.__enter__()
    except ImportError as error:
        raise _missing("langgraph-checkpoint-aws[valkey]", error) from error
    except ValueError:
        raise ConfigurationError(
            "the URL is none that valkey-py takes: aws+valkey://user:password@host:6379/0"
        ) from None
    saver.serde = Opaque()
    made = saver.client.connection_pool.connection_kwargs
    where = f"{made.get('host', 'localhost')}:{made.get('port', 6379)}/{made.get('db', 0)}"
    home = AwsHome(saver, f"aws+valkey://{where}", f"aws {where}")
    home.closing.push(opening)
    return home


def _missing(what: str, error: ImportError) -> ConfigurationError:
    return ConfigurationError(
        f"this place needs what is not installed here ({error.name}): pip install '{what}'"
    )
