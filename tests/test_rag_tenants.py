"""Nobody is served another tenant's entry, whatever tenants are called, and whatever collides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey.link import Script, finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.scripts import assemble
from rag_cache import Scope, SemanticCache, lookup, partitions, within
from rag_cache.asking import Asking
from rag_cache.entries import Record
from rag_cache.operations import calls
from rag_cache.scope import digest_of
from rag_cache.shelves import NOWHERE
from tests.rag_ground import SCOPE, Caches
from tests.rag_tenants import NAMES, fuzz

QUESTION = "how do i reset my password"
THEIRS = Scope(tenant="other", corpus="handbook")
LOOKUPS = 1500


class Anyone(str):
    """A tenant's name that passes for any other."""

    __slots__ = ()

    def __eq__(self, _: object) -> bool:
        return True

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = str.__hash__


def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the last check out: whose a record is."""

    class Blind(Record):
        @classmethod
        def unpack(cls, raw: bytes) -> Record:
            found = Record.unpack(raw)
            object.__setattr__(found, "tenant", Anyone(found.tenant))
            return found

    monkeypatch.setattr(lookup, "Record", Blind)


def careless(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """Take one check of an entry's digests out of the script that serves."""

    def broken(package: str, script: str, shared: tuple[str, ...], flags: str) -> Script:
        whole = assemble(package, script, shared, flags)
        if script != "serve":
            return whole
        assert check in whole.source
        return Script(script, whole.source.replace(check, "false"))

    monkeypatch.setattr(calls, "assemble", broken)


def colliding(*parts: str) -> bytes:
    """Digests of which all tenants have the same one."""
    return digest_of(*parts) if parts[0] == "entry" else bytes(16)


def collide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all tenants share one partition, one digest and one key of a scope."""
    for module in (partitions, within):
        monkeypatch.setattr(module, "digest_of", colliding)


def leaks(counts: Counter[str]) -> int:
    return counts["leaked"] + counts["misplaced"]


def test_no_tenant_is_served_anothers(valkey: LocalValkey, prefix: str, tmp_path: Path) -> None:
    counts = fuzz(valkey, prefix, tmp_path, LOOKUPS, seed=2)
    assert leaks(counts) == counts["mistaken"] == 0
    assert min(counts["hit exact"], counts["hit process"], counts["moved"]) > LOOKUPS // 60


def test_not_even_where_all_digests_collide(
    valkey: LocalValkey, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collide(monkeypatch)
    counts = fuzz(valkey, prefix, tmp_path, LOOKUPS // 3, seed=2)
    assert counts["leaked"] == 0
    assert counts["hit exact"] > 0


def test_without_a_look_at_the_record_something_leaks(
    valkey: LocalValkey, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind(monkeypatch)
    assert leaks(fuzz(valkey, prefix, tmp_path, LOOKUPS // 2, seed=2)) > 0


def asked(cache: SemanticCache, scope: Scope) -> Asking:
    return cache._answers.asking(cache._blocking, QUESTION, scope, None)


def served(cache: SemanticCache, valkey: LocalValkey, *forged: str) -> Any:
    """What the script says of another tenant's entry under one's own key.

    Args:
        cache: The cache.
        valkey: Its server.
        forged: Fields that say that it is one's own: "s" of the scope, "t" of the tenant.
    """
    assert cache.store(QUESTION, THEIRS, "theirs")
    mine, theirs = asked(cache, SCOPE), asked(cache, THEIRS)
    source, target = (
        each.home.entries(each.within.key) + each.entry_id.encode() for each in (theirs, mine)
    )
    dumped = valkey.command("DUMP", source)
    assert isinstance(dumped, bytes)
    valkey.command("RESTORE", target, 0, dumped, "REPLACE")
    digests: dict[str, str | bytes] = {"s": mine.within.key, "t": mine.home.tenant}
    for field in forged:
        valkey.command("HSET", target, field, digests[field])
    assert cache.lookup(QUESTION, SCOPE).reason != "unverified"  # type: ignore[union-attr]
    ids = [mine.entry_id]
    call = calls.serve(mine.home, mine.within.key, mine.within.marks, ids, NOWHERE, 0)
    [[status, _, _, _, which, record, _, _, verdicts, _]] = finish(
        cache._blocking.writes.send([call])
    )
    assert status == b"ok"
    return which, record, verdicts


@pytest.mark.parametrize("forged", ["", "s", "t"])
def test_the_server_itself_refuses_anothers_entry(
    forged: str, caches: Caches, valkey: LocalValkey
) -> None:
    assert served(caches(), valkey, *forged) == (0, b"", b"o")


@pytest.mark.parametrize(
    ("check", "forged"), [("entry[1] ~= ARGV[1]", "t"), ("entry[2] ~= ARGV[2]", "s")]
)
def test_without_either_check_it_would_not(
    check: str, forged: str, caches: Caches, valkey: LocalValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    careless(monkeypatch, check)
    cache = caches()
    which, record, verdicts = served(cache, valkey, forged)
    assert (which, verdicts) == (1, b"k")
    assert Record.unpack(record).tenant == "other"
    # What the record says is looked at all the same.
    assert not cache.lookup(QUESTION, SCOPE)
    blind(monkeypatch)
    assert cache.lookup(QUESTION, SCOPE)


def test_every_name_has_a_place_of_its_own(caches: Caches) -> None:
    cache = caches(lookup_deadline_ms=5000)
    names = [*NAMES, *(f"tenant {n}" for n in range(500))]
    places = [asked(cache, Scope(tenant=name, corpus="handbook")) for name in names]
    assert len({each.home.versions for each in places}) == len(names)
    assert len({each.home.tenant for each in places}) == len(names)
    assert len({each.entry_id for each in places}) == len(names)
    # Neither does a tenant share one with a corpus of its name, or with another split of both.
    swapped = [("a", "b"), ("b", "a"), ("ab", ""), ("", "ab"), ("a,b", ""), ("", '","')]
    scopes = [Scope(tenant=tenant, corpus=corpus) for tenant, corpus in swapped]
    assert len({asked(cache, scope).home.versions for scope in scopes}) == len(swapped)
    # A key's slot is that of its braces, whatever a tenant puts into its name.
    for name in ("{a}", "}{", "{"):
        tag = asked(cache, Scope(tenant=name)).home.tag
        assert (tag.count(b"{"), tag.count(b"}")) == (1, 1)
