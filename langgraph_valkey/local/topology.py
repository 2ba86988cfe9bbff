"""Who owns which hash slots, and how a server is told before it starts.

A server in cluster mode keeps what it knows of its cluster in a file
(``nodes.conf``) and reads it at start. A server that reads there that it is a
*primary* with slots refuses writes for its first two seconds, lest it rejoin a
cluster that has moved on. A *replica* has no such delay, and stays ready when it
takes over. So each primary here is born as the replica of a **ghost**: a node that
does not exist and owns the shard's slots. It takes over the ghost's slots by
``CLUSTER FAILOVER TAKEOVER`` at once, forgets it, and is a ready primary after
0.05 s instead of 2 s. All other nodes stand in the file too, so no node has to
meet another: a cluster of six is whole after about 0.3 s instead of 2-3.

Everything here is pure: text in, text out.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

SLOTS = 16384
"""Hash slots of a cluster, by the protocol."""

GHOST_ADDRESS = "127.0.0.1:1@1"
"""Where a ghost is said to live: a port on which nothing listens, so that the
attempt to replicate from it is refused at once."""

_ID = re.compile(r"^([0-9a-f]{40}) \S+ \S*myself", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Member:
    """A node as its cluster knows it.

    Attributes:
        node_id: 40 hex digits.
        shard: Index of its shard.
        leads: Whether it is born as the shard's primary.
        port: Where its replicas find it, and its clients too unless `client_port` is set.
        bus_port: Port for the other nodes.
        client_port: Where its clients find it, if elsewhere.
    """

    node_id: str
    shard: int
    leads: bool
    port: int
    bus_port: int
    client_port: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of ``CLUSTER NODES``: a node as another one sees it."""

    node_id: str
    flags: frozenset[str]
    epoch: int
    linked: bool
    slots: tuple[str, ...]

    @property
    def owns_slots(self) -> bool:
        """Whether it is a primary that is not known to have failed."""
        return "master" in self.flags and "fail" not in self.flags and bool(self.slots)


def slot_of(key: bytes | str) -> int:
    """The hash slot of a key: CRC16 of its hash tag, or of all of it if it has none."""
    data = key.encode() if isinstance(key, str) else key
    start = data.find(b"{")
    if start >= 0:
        end = data.find(b"}", start + 1)
        if end > start + 1:
            data = data[start + 1 : end]
    return binascii.crc_hqx(data, 0) % SLOTS


def slot_range(shard: int, shards: int) -> tuple[int, int]:
    """First and last slot of a shard, when slots are dealt evenly."""
    return shard * SLOTS // shards, (shard + 1) * SLOTS // shards - 1


def shard_of_slot(slot: int, shards: int) -> int:
    """The shard whose `slot_range` holds the slot."""
    return next(s for s in range(shards) if slot <= slot_range(s, shards)[1])


def ghost_id(shard: int) -> str:
    """The id of the ghost whose slots the shard's first primary takes over."""
    return f"{0xDEAD0000 + shard:040x}"


def birth_file(me: Member, members: Sequence[Member], shards: int) -> str:
    """The ``nodes.conf`` with which a node starts for the first time.

    Args:
        me: The node.
        members: All nodes, `me` included.
        shards: How many shards there are.
    """
    leaders = {member.shard: member.node_id for member in members if member.leads}
    lines = []
    for member in members:
        address = f"127.0.0.1:{member.port}@{member.bus_port}{_details(member)}"
        epoch = member.shard + 1
        first, last = slot_range(member.shard, shards)
        if member is me and me.leads:
            ghost = ghost_id(me.shard)
            lines.append(f"{me.node_id} {address} myself,slave {ghost} 0 0 {epoch} connected")
            place = f"{GHOST_ADDRESS},{_shard_id(me.shard)}"
            lines.append(f"{ghost} {place} master - 0 0 {epoch} connected {first}-{last}")
        elif member.leads:
            lines.append(
                f"{member.node_id} {address} master - 0 0 {epoch} connected {first}-{last}"
            )
        else:
            role = "myself,slave" if member is me else "slave"
            leader = leaders[member.shard]
            lines.append(f"{member.node_id} {address} {role} {leader} 0 0 {epoch} connected")
    # Above every shard's epoch, so that a take-over outranks what the file says.
    lines.append(f"vars currentEpoch {shards + me.shard + 1} lastVoteEpoch 0")
    return "\n".join(lines) + "\n"


def _details(member: Member) -> str:
    client = f",client-tcp-port={member.client_port}" if member.client_port else ""
    return f",{client}{_shard_id(member.shard)}"


def _shard_id(shard: int) -> str:
    return f",tls-port=0,shard-id={0x5AD0000 + shard:040x}"


def own_id(nodes_conf: str) -> str | None:
    """The id of the node that wrote this file, or None if the file does not say."""
    found = _ID.search(nodes_conf)
    return found.group(1) if found else None


def parse_nodes(reply: bytes) -> dict[str, Seen]:
    """Read the reply to ``CLUSTER NODES``: node id -> how it is seen."""
    seen = {}
    for line in reply.decode().splitlines():
        words = line.split(" ")
        if len(words) < 8:
            continue
        seen[words[0]] = Seen(
            node_id=words[0],
            flags=frozenset(words[2].split(",")),
            epoch=int(words[6]),
            linked=words[7] == "connected",
            slots=tuple(word for word in words[8:] if word),
        )
    return seen


def parse_info(reply: bytes) -> dict[str, str]:
    """Read the reply to ``INFO`` or ``CLUSTER INFO``: field -> value."""
    pairs = (line.partition(":") for line in reply.decode().splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}
