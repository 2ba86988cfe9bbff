"""Versions of documents in DynamoDB: the items of a corpus stand under one key.

No lock is needed for the order that `primary.versions` asks for, since reads of the table
are consistent. A change writes versions, then reads partitions. An entering writes its
partition, then versions are read. Whichever writes later reads what the other has written.

A change is recorded as pending, with all it holds, before its first version is written. So
one whose maker died is finished by whoever looks for pending changes: it writes the
versions again, where none is newer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from langgraph_valkey.dynamodb.errors import Refused
from langgraph_valkey.dynamodb.items import (
    Item,
    corpus_key,
    number,
    plain,
    text,
    untext,
    word,
)
from langgraph_valkey.dynamodb.table import Part
from langgraph_valkey.primary.records import digest_of
from langgraph_valkey.primary.versions import (
    FORMER_MOST,
    Change,
    Entered,
    KeptPartition,
    PartitionKey,
    Standing,
    Version,
    check_versions,
)

_NEWER = "attribute_not_exists(#change) OR #change <= :change"
_LAST = "~"
"""Comes after whatever follows the name of a kind in `sk`."""


class Versions(Part):
    """The versions of a store; see `primary.versions.Versions`."""

    async def change_versions(self, corpus: str, versions: Mapping[str, str | None]) -> Change:
        """Record new versions; see `Versions`."""
        check_versions(versions)
        counted = await self._table.update(
            corpus_key(corpus, "corpus"),
            {"one": number(1), "zero": number(0)},
            "SET #number = if_not_exists(#number, :zero) + :one",
        )
        change_number = int(plain(counted)["number"])
        key = corpus_key(corpus, _change_sk(change_number))
        pending = {
            **key,
            "number": number(change_number),
            "versions": word(json.dumps(dict(versions))),
            "begun_s": number(self._table.now()),
        }
        await self._table.transact([self._table.putting(pending)])
        await self._write(corpus, versions, change_number)
        return await self._change(corpus, change_number, versions)

    async def settle_change(self, change: Change) -> None:
        """All who have to know of it do; see `Versions`."""
        key = corpus_key(change.corpus, _change_sk(change.number))
        await self._table.delete(key, {}, "")

    async def pending_changes(
        self, corpus: str, *, older_than_s: float, limit: int
    ) -> list[Change]:
        """Changes of a corpus that are pending for longer than this; see `Versions`."""
        before = self._table.now() - older_than_s
        found = []
        for row in map(plain, await self._items(corpus, "change#", limit=limit)):
            if float(row["begun_s"]) > before:
                continue
            versions = json.loads(row["versions"])
            await self._write(corpus, versions, row["number"])
            found.append(await self._change(corpus, row["number"], versions))
        return found

    async def versions(self, corpus: str, *, after: str | None, limit: int) -> list[Version]:
        """A page of all versions of a corpus; see `Versions`."""
        last = "" if after is None else digest_of(after)
        rows = await self._items(corpus, "version#", after=last, limit=limit)
        return [
            Version(
                untext(row["mark"]),
                untext(row["version"]) if "version" in row else None,
                row["change"],
            )
            for row in map(plain, rows)
        ]

    async def enter(self, key: PartitionKey, identity: str) -> Entered:
        """Have this primary's copy count from now on; see `Versions`."""
        place = partition_key(key)
        while True:
            now = self._table.now()
            row = plain(await self._table.get(place) or {})
            former = json.loads(row.get("former", "[]"))
            if row.get("identity") == identity:
                # Clocks may differ: rather wait for longer than for too short.
                since_s = max(0.0, now - row["entered_s"] - self._table.skew_s)
                return Entered(accepted=True, since_s=since_s if former else None)
            if identity in former:
                return Entered(accepted=False)
            values = {
                "tenant": text(key.tenant),
                "number": number(key.number),
                "identity": word(identity),
                "entered_s": number(now),
            }
            condition = "attribute_not_exists(#identity)"
            if row:
                former = [*former, row["identity"]][-FORMER_MOST:]
                values["was"] = word(row["identity"])
                condition = "#identity = :was"
            values["former"] = word(json.dumps(former))
            try:
                await self._table.update(
                    place,
                    values,
                    "SET #tenant = :tenant, #number = :number, #identity = :identity, "
                    "#entered_s = :entered_s, #former = :former",
                    condition,
                )
            except Refused:
                continue  # Somebody else entered one meanwhile.
            return Entered(accepted=True, since_s=0.0 if row else None)

    async def standing(self, keys: Sequence[PartitionKey]) -> list[Standing]:
        """How it stands with some partitions; see `Versions`."""
        pending = {corpus: await self._pending_s(corpus) for corpus in {key.corpus for key in keys}}
        places = {_place_of(partition_key(key)): partition_key(key) for key in keys}
        rows = await self._table.get_each(list(places.values()), ("identity",))
        found = {_place_of(row): plain(row).get("identity", "") for row in rows}
        return [
            Standing(found.get(_place_of(partition_key(key)), ""), pending[key.corpus])
            for key in keys
        ]

    async def forget_partition(self, key: PartitionKey) -> None:
        """It is gone; see `Versions`."""
        await self._table.delete(partition_key(key), {}, "")

    async def _write(
        self, corpus: str, versions: Mapping[str, str | None], change_number: int
    ) -> None:
        """Write versions, where none is newer."""
        for mark, version in versions.items():
            values = {"mark": text(mark), "change": number(change_number)}
            changes = "SET #mark = :mark, #change = :change"
            if version is None:
                changes += " REMOVE #version"
            else:
                values["version"] = text(version)
                changes += ", #version = :version"
            key = corpus_key(corpus, f"version#{digest_of(mark)}")
            try:
                await self._table.update(key, values, changes, _NEWER)
            except Refused:
                continue

    async def _change(
        self, corpus: str, change_number: int, versions: Mapping[str, str | None]
    ) -> Change:
        rows = [plain(each) for each in await self._items(corpus, "partition#")]
        partitions = tuple(
            KeptPartition(
                PartitionKey(corpus, untext(row["tenant"]), row["number"]), row["identity"]
            )
            for row in rows
        )
        return Change(corpus, change_number, dict(versions), partitions)

    async def _pending_s(self, corpus: str) -> float | None:
        """Age of a corpus' oldest pending change."""
        oldest = await self._items(corpus, "change#", limit=1)
        if not oldest:
            return None
        return max(0.0, self._table.now() - float(plain(oldest[0])["begun_s"]))

    async def _items(
        self, corpus: str, kind: str, *, after: str = "", limit: int | None = None
    ) -> list[Item]:
        """Items of one kind of a corpus, in order, as they are now."""
        found: list[Item] = []
        start: Item | None = None
        while limit is None or len(found) < limit:
            page, start = await self._table.page(
                corpus_key(corpus, kind + after),
                kind + _LAST,
                start=start,
                limit=None if limit is None else limit - len(found),
            )
            found += page
            if start is None:
                break
        return found


def _change_sk(change_number: int) -> str:
    return f"change#{change_number:016d}"


def partition_key(key: PartitionKey) -> Item:
    """Where a partition stands."""
    return corpus_key(key.corpus, f"partition#{digest_of(key.tenant, str(key.number))}")


def _place_of(key: Item) -> tuple[str, str]:
    return key["pk"]["S"], key["sk"]["S"]
