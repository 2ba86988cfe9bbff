"""What is right to answer, by LangGraph's InMemoryStore: who answers otherwise is not timed.

Stores may order results as they like, and where there are more than are wanted they may give
any of them. So what is looked at is how many there are, and that each of them may be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, Result, SearchOp
from langgraph.store.memory import InMemoryStore

from benchmarks.faces import Opened
from benchmarks.figures import Case

_ALL = 10_000_000


class Oracle:
    """Knows what is right, as long as it is told of every batch.

    Args:
        ops: What the stores were filled with.
    """

    def __init__(self, ops: Iterable[PutOp]) -> None:
        self._store = InMemoryStore()
        self._store.batch(list(ops))

    def judgements(self, ops: Sequence[Op]) -> list[Judgement]:
        """What is right to answer to a batch, which is then run."""
        found = [Judgement(op, self._everything(op)) for op in ops]
        self._store.batch(ops)
        return found

    def _everything(self, op: Op) -> Any:
        """What may be answered, were there no limit."""
        if isinstance(op, GetOp):
            return self._store.get(op.namespace, op.key)
        if isinstance(op, SearchOp):
            whole = op._replace(limit=_ALL, offset=0)
            [found] = self._store.batch([whole])
            assert isinstance(found, list)
            return {(item.namespace, item.key): item.value for item in found}  # type: ignore[union-attr]
        if isinstance(op, ListNamespacesOp):
            [listed] = self._store.batch([op._replace(limit=_ALL, offset=0)])
            return {tuple(namespace): None for namespace in listed}  # type: ignore[union-attr, arg-type]
        return None


class Judgement:
    """What is right to answer to one operation.

    Args:
        op: The operation.
        everything: What may be answered, were there no limit.
    """

    def __init__(self, op: Op, everything: Any) -> None:
        self._op = op
        self._everything = everything

    def of(self, got: Result) -> str:
        """What is wrong with an answer; "" if nothing is."""
        op, everything = self._op, self._everything
        if isinstance(op, GetOp):
            same = getattr(got, "value", None) == getattr(everything, "value", None)
            return "" if same else f"a get gave {'nothing' if got is None else 'another value'}"
        if not isinstance(op, SearchOp | ListNamespacesOp):
            return ""
        assert isinstance(got, list)
        what = "search" if isinstance(op, SearchOp) else "listing"
        count = max(0, min(op.limit, len(everything) - op.offset))
        if len(got) != count:
            return f"a {what} gave {len(got)} results, not {count}"
        for each in got:
            name = tuple(each) if what == "listing" else (tuple(each.namespace), each.key)  # type: ignore[arg-type, union-attr]
            value = None if what == "listing" else each.value  # type: ignore[union-attr]
            if name not in everything or everything[name] != value:
                return f"a {what} gave {name!r}, which does not belong there"
        return ""


def fits(who: Opened, case: Case, asked: Sequence[tuple[Sequence[Op], list[Judgement]]]) -> bool:
    """Whether a store answers some batches as it should; if not, it has failed in this case."""
    if who.contender.role not in ("ours", "peer"):
        return True
    for ops, judgements in asked:
        wrong = who.run(_wrong(who.saver, ops, judgements))
        if wrong and who.contender.role == "ours":
            raise AssertionError(f"{case.name}: {wrong}")
        if wrong:
            case.failures[who.contender.name] = wrong
            return False
    return True


async def _wrong(store: Any, ops: Sequence[Op], judgements: Sequence[Judgement]) -> str:
    try:
        results = await store.batch(store.prepared(ops))
    except Exception as failure:  # noqa: BLE001 - whatever a rival raises is its failure
        text = " ".join(str(failure).split())[:120]
        return f"{type(failure).__name__}: {text}"
    found = (each.of(got) for each, got in zip(judgements, results, strict=True))
    return next(filter(None, found), "")
