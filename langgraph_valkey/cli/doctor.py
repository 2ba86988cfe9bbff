"""``doctor``: is the cluster set up right?"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from langgraph_valkey.cli import output
from langgraph_valkey.cli.options import AsJson
from langgraph_valkey.errors import ConfigurationError, LanggraphValkeyError, Unreachable

if TYPE_CHECKING:
    from langgraph_valkey.cli.findings import Finding, Level, Role
    from langgraph_valkey.settings import Settings

_STYLES = {
    "ok": "green",
    "note": "cyan",
    "warning": "yellow",
    "problem": "bold red",
}


def doctor(
    url: Annotated[
        str | None,
        typer.Argument(
            help="The cluster, or env:NAME for a URL in a variable; the environment's "
            "(LANGGRAPH_VALKEY_URL, ...) if not given."
        ),
    ] = None,
    role: Annotated[
        str, typer.Option(help="What it holds: checkpoints, locks or cache.")
    ] = "checkpoints",
    as_json: AsJson = False,
) -> int:
    """Look whether a cluster is set up right: each finding with why, and how to mend it."""
    from langgraph_valkey.cli.findings import verdict
    from langgraph_valkey.moving.opening import read
    from langgraph_valkey.settings import Settings

    roles: dict[str, Role] = {"checkpoints": "checkpoints", "locks": "locks", "cache": "cache"}
    if role not in roles:
        raise ConfigurationError(f"role must be checkpoints, locks or cache, not {role!r}")
    settings = Settings.from_env() if url is None else Settings.from_url(read(url))
    with _unlogged():
        found = list(_examined(settings, roles[role]))
    worst = verdict(found)
    where = ", ".join(f"{host}:{port}" for host, port in settings.addresses)
    if as_json:
        about = {"where": where, "role": role, "verdict": worst}
        output.emit({**about, "findings": [asdict(each) for each in found]}, indent=2)
    else:
        _show(where, found)
    if any(each.check == "connection" for each in found):
        return output.FAILED
    return output.LOOK if worst in ("warning", "problem") else output.OK


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without what a link warns of when it connects: here that is a finding, by its role."""
    log = logging.getLogger("langgraph_valkey")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _examined(settings: Settings, role: Role) -> Iterator[Finding]:
    from langgraph_valkey.cli import findings
    from langgraph_valkey.cli.probes import allowed, installed
    from langgraph_valkey.glide.clients import GLIDE_VERSION
    from langgraph_valkey.glide.survey import runs_in_cluster_mode, survey

    client = findings.of_glide(installed(), GLIDE_VERSION)
    yield client
    if client.level != "ok":
        return
    meant_cluster = settings.cluster_mode
    try:
        try:
            seen = survey(settings)
        except LanggraphValkeyError:
            # A client with cluster mode gets no further at a server that has none.
            if not meant_cluster or runs_in_cluster_mode(settings) is not False:
                raise
            settings = settings.model_copy(update={"cluster_mode": False})
            seen = survey(settings)
    except LanggraphValkeyError as error:
        why = "nothing else could be looked at"
        yield findings.Finding("connection", "problem", str(error), why, "start with this one")
        return
    yield findings.of_version(seen)
    yield findings.of_mode(seen, meant_cluster=meant_cluster)
    yield findings.of_tls(settings)
    slots = findings.of_slots(seen)
    if slots is not None:
        yield slots
    yield from findings.of_nodes(seen)
    yield from findings.of_replicas(seen, role)
    yield from _durability(settings, role)
    yield findings.of_eviction(seen, settings, role)
    yield findings.of_memory(seen)
    yield from allowed(settings, seen)
    yield findings.of_clocks(seen)
    yield findings.of_search(seen)


def _durability(settings: Settings, role: Role) -> Iterator[Finding]:
    from langgraph_valkey.aws import ElastiCache, NodeLag
    from langgraph_valkey.cli.findings import Finding, of_durability
    from langgraph_valkey.tiers.roles import durability_of

    trouble, lags = "", tuple[NodeLag, ...]()
    durability = settings.durability
    try:
        durability = durability_of(settings)
    except (ConfigurationError, Unreachable) as error:
        trouble = str(error)
    if settings.aws_replication_group is not None and not trouble:
        group = ElastiCache(settings.aws_replication_group, region=settings.aws_region)
        try:
            lags = group.lag()
        except (ConfigurationError, Unreachable) as error:
            yield Finding("lag", "note", "not known", "it is only for dashboards", str(error))
    yield from of_durability(settings, role, durability, trouble, lags)


def _show(where: str, found: list[Finding]) -> None:
    screen = output.console()
    screen.print(Text(f"Looking at {where}"), style="bold")
    for each in found:
        line = Text(f"{each.level:<8} ", _STYLES[each.level])
        screen.print(line + Text(f"{each.check:<11} {each.what}", ""))
        if each.why:
            screen.print(Text(f"{'':21}why: {each.why}", "dim"))
        if each.fix:
            screen.print(Text(f"{'':21}fix: {each.fix}"))
    levels: tuple[Level, ...] = ("problem", "warning", "note")
    counts = [(sum(each.level == level for each in found), level) for level in levels]
    told = ", ".join(output.plural(count, level) for count, level in counts if count)
    screen.print(Text(told or "All is well."), style="bold")
