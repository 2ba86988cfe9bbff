"""The courier: brings a thread's checkpoints to the tier, so that a run can go on from them.

To go on, a run needs more than the checkpoint of its graph: those of subgraphs that are
in the middle of something, and of those that keep their state from run to run. They go
ahead of the graph's own, and with that it is written down that they are there; whoever
finds that in the tier finds all of it. A subgraph that is under way hangs on
checkpoints of the graphs around it, which its metadata names, so these go along, too.
"""

from __future__ import annotations

from langgraph_valkey.boundary import joining
from langgraph_valkey.boundary.acquaintance import Acquaintances
from langgraph_valkey.boundary.carrying import (
    Cargo,
    Label,
    Side,
    address,
    hang,
    lasting_heads,
    leaning,
    line_here,
    look,
    prove,
    send,
)
from langgraph_valkey.boundary.faces import TierFace
from langgraph_valkey.errors import ReplayIncomplete, ThreadDeleted
from langgraph_valkey.place import Place


class Courier:
    """Brings checkpoints to the tier.

    Args:
        known: What the tier is known to have.
    """

    def __init__(self, known: Acquaintances) -> None:
        self._known = known
        self._proven = False

    async def carry(self, side: Side, tier: TierFace, place: Place, cargo: Cargo) -> bool:
        """Bring a checkpoint to the tier, with all that it takes to go on from it.

        Returns:
            False if that is not stored yet: then it comes later, and this along with it.
        """
        label = await self._label(side, place)
        path = await self._path(side, place, cargo)
        root = path.pop()
        if root.namespace:
            return False
        for each in path:
            await self._send(side, tier, place, each, label)
        lasting = await self._send_lasting(side, tier, place, label)
        beside = {**lasting, **{each.namespace: each.id for each in path}}
        for namespace, at in beside.items():
            await hang(tier, place, root.id, namespace, at)
        await self._send(side, tier, place, root, label)
        known = self._known.of(place.thread)
        known.sent = {name: i for name, i in known.sent.items() if name in {"", *beside}}
        await self._require_alive(side, tier, place, root, label)
        return True

    async def _path(self, side: Side, place: Place, cargo: Cargo) -> list[Cargo]:
        """A checkpoint and those it is nested in, as far as they are stored; outwards."""
        path = [cargo]
        parents: dict[str, str] = dict(cargo.found.metadata.get("parents") or {})
        for namespace in sorted(parents, key=len, reverse=True) if cargo.namespace else ():
            at = place._replace(namespace=namespace, checkpoint_id=parents[namespace])
            above = await look(side, at)
            if above is None:
                break
            path.append(above)
        return path

    async def _send_lasting(
        self, side: Side, tier: TierFace, place: Place, label: Label
    ) -> dict[str, str]:
        """Bring the heads of subgraphs that keep their state, where they have changed."""
        heads = await lasting_heads(side, place)
        for namespace, head in heads.items():
            if self._known.of(place.thread).sent.get(namespace) != head:
                at = place._replace(namespace=namespace, checkpoint_id=head)
                cargo = await look(side, at)
                if cargo is not None:
                    await self._send(side, tier, place, cargo, label)
        return heads

    async def _send(
        self, side: Side, tier: TierFace, place: Place, cargo: Cargo, label: Label
    ) -> None:
        """Bring one checkpoint to the tier, with the ancestors it is rebuilt from."""
        known = self._known.of(place.thread)
        sent = known.sent.get(cargo.namespace, "")
        if leaning(cargo.found) and not sent:
            there = await tier.get_tuple(address(place.thread, cargo.namespace))
            sent = there.checkpoint["id"] if there is not None else ""
        for each in await line_here(side, place, cargo, sent):
            await send(tier, place, each, label)
        if not self._proven:
            self._proven = await prove(side, tier, place, cargo)
        known.sent[cargo.namespace] = cargo.id

    async def _label(self, side: Side, place: Place) -> Label:
        standing = side.core.known.standing(place.thread)
        if not standing.exists:
            await look(side, place._replace(namespace="", checkpoint_id=""))
            standing = side.core.known.standing(place.thread)
        if not standing.exists:
            raise ReplayIncomplete(
                f"thread {place.thread!r} vanished from the server (expired, evicted or deleted) "
                "while it was brought to the tier: run it again from its input",
                thread_ids=[place.thread],
            )
        return Label(standing.gen.decode(), standing.dead.decode(), standing.stamp.decode())

    async def _require_alive(
        self, side: Side, tier: TierFace, place: Place, cargo: Cargo, label: Label
    ) -> None:
        """Raise if the thread was deleted while it was carried, and take it away again."""
        standing = label.standing(bytes(16), label.stamp)
        at = place._replace(namespace=cargo.namespace, checkpoint_id=cargo.id)
        question = joining.question(side, at, standing)
        done = await joining.rejoin(side.core.window, side.link, place, [question], {})
        if done.outcome.deleted and question in done.unwanted:
            await tier.delete_thread(place.thread)
            self._known.forget(place.thread)
            raise ThreadDeleted(
                f"thread {place.thread!r} was deleted while this run was in the middle of it: "
                "start the thread anew",
                thread_id=place.thread,
            )
