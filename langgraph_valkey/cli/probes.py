"""What this user may do on a cluster, found out by doing it.

What is done changes nothing that lasts: the one key that is written, in the saver's own key
space, is gone after a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from itertools import count

from langgraph_valkey import operations
from langgraph_valkey.cli.findings import Finding
from langgraph_valkey.errors import ConfigurationError, LanggraphValkeyError
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.glide.survey import Shard, Survey
from langgraph_valkey.keys import ThreadKeys, thread_keys, thread_pattern
from langgraph_valkey.link import finish
from langgraph_valkey.settings import Settings

WHEELS = ("valkey-glide", "valkey-glide-sync")


def installed() -> dict[str, str]:
    """The versions of the client's wheels."""
    found = {}
    for wheel in WHEELS:
        try:
            found[wheel] = metadata.version(wheel)
        except metadata.PackageNotFoundError:
            found[wheel] = "missing"
    return found


def keys_in(prefix: str, shard: Shard) -> ThreadKeys:
    """Keys of a thread that would live in a shard."""
    for number in count():
        keys = thread_keys(prefix, str(number))
        if not shard.slots or any(first <= keys.slot <= last for first, last in shard.slots):
            return keys
    raise AssertionError("a shard has slots")


def rejection_of(link: BlockingLink, prefix: str, shard: Shard) -> LanggraphValkeyError | None:
    """Why a shard takes no write now; None if it takes one."""
    try:
        finish(link.send([operations.beat(keys_in(prefix, shard))]))
    except LanggraphValkeyError as error:
        return error
    return None


def allowed(settings: Settings, survey: Survey) -> Iterator[Finding]:
    """What is to be said of this user's permissions, and of shards that refuse writes."""
    link = BlockingLink(settings)
    try:
        yield from _writing(link, settings, survey)
        yield from _reading(link, settings)
    finally:
        link.close()


def _writing(link: BlockingLink, settings: Settings, survey: Survey) -> Iterator[Finding]:
    refusals = {
        shard.primary.address: error
        for shard in survey.shards
        if (error := rejection_of(link, settings.key_prefix, shard)) is not None
    }
    forbidden = next((e for e in refusals.values() if isinstance(e, ConfigurationError)), None)
    if forbidden is not None:
        yield _forbidden("scripts", f"this user may not write by scripts: {forbidden}", settings)
    elif refusals:
        what = "; ".join(f"{address}: {error}" for address, error in refusals.items())
        why = "no step of a thread there can be stored now"
        fix = "if it lasts, look at the shard's health, its replicas and its durability lag"
        yield Finding("writes", "problem", what, why, fix)
    else:
        yield Finding("writes", "ok", "each shard takes writes, by scripts")


def _reading(link: BlockingLink, settings: Settings) -> Iterator[Finding]:
    keys = thread_keys(settings.key_prefix, "")
    try:
        answer = operations.read(finish(link.send([operations.look(keys)]))[0])
    except LanggraphValkeyError as error:
        yield _forbidden("scripts", f"this user may not read by scripts: {error}", settings)
        return
    yield _of_identity(answer.identity)
    try:
        finish(link.scan(None, thread_pattern(settings.key_prefix)))
    except LanggraphValkeyError as error:
        yield _forbidden("scan", f"this user may not list keys: {error}", settings)
    else:
        yield Finding("scan", "ok", "keys can be listed")


def _of_identity(identity: bytes) -> Finding:
    """How a primary is known, and so how a failover is noticed."""
    if not identity:
        why = "a failover is noticed only by the next call on a thread, and nothing is let go of"
        fix = "allow this user INFO, within scripts too: +info, or CLUSTER MYID: +cluster|myid"
        return Finding("failovers", "warning", "INFO and CLUSTER MYID are hidden", why, fix)
    if identity[:1] == b"n":
        why = "a node that comes back empty, or fails back, is not told from itself"
        return Finding(
            "failovers", "note", "INFO is hidden; CLUSTER MYID is not", why, "allow +info"
        )
    return Finding("failovers", "ok", "scripts are told which primary runs them")


def _forbidden(check: str, what: str, settings: Settings) -> Finding:
    why = "the saver does everything by scripts on keys of its prefix"
    fix = f"give the ACL user +@all ~{settings.key_prefix}:*, at most"
    return Finding(check, "problem", what, why, fix)
