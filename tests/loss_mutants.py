"""Rules of the loss window taken out one by one, as patches to the product's code.

A patch replaces a text that must stand exactly once in a file. Of a script it is
applied to what a call carries; of a module, the module is compiled anew and the code
of the one function that differs is put in place of the running one's, until the end of
the run. Nothing of this is in the product.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import langgraph_valkey
from langgraph_valkey.link import Script


@dataclass(frozen=True)
class Patch:
    """A text, and what stands there instead.

    Attributes:
        file: ``replay.lua``, or a module's name within the package.
        old: The text.
        new: The other one.
    """

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A rule taken out, and the stories in which that is likely to show.

    Attributes:
        patches: How.
        world: What the world is like.
        weights: What happens how often, where it differs.
        seeds: How many stories it may take.
    """

    patches: tuple[Patch, ...]
    world: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    seeds: int = 300


@contextmanager
def applied(mutant: Mutant) -> Iterator[Callable[[Script], Script]]:
    """The mutant at work; gives what becomes of a script."""
    sources: dict[str, str] = {}
    for patch in mutant.patches:
        text = sources.get(patch.file) or _path(patch.file).read_text("utf-8")
        assert text.count(patch.old) == 1, f"{patch.file} does not say {patch.old!r} once"
        sources[patch.file] = text.replace(patch.old, patch.new)
    scripts = [patch for patch in mutant.patches if patch.file.endswith(".lua")]

    def become(script: Script) -> Script:
        source = script.source
        for patch in scripts:
            source = source.replace(patch.old, patch.new)
        return script if source == script.source else Script(script.name, source)

    with ExitStack() as stack:
        for name, source in sources.items():
            if not name.endswith(".lua"):
                _patch_module(stack, name, source)
        yield become


def _path(name: str) -> Path:
    package = Path(langgraph_valkey.__file__).parent
    if name.endswith(".lua"):
        return package / "operations" / name
    return package.joinpath(*name.split(".")).with_suffix(".py")


def _patch_module(stack: ExitStack, name: str, source: str) -> None:
    """Give its functions the code they have in another source, until the stack ends."""
    path = _path(name)
    module = importlib.import_module(f"langgraph_valkey.{name}")
    was, now = (
        _codes(compile(text, str(path), "exec", dont_inherit=True))
        for text in (path.read_text("utf-8"), source)
    )
    changed = [at for at, code in now.items() if not _alike(code, was[at])]
    assert changed, name
    for at in changed:
        function = _function(module, at)
        stack.callback(setattr, function, "__code__", function.__code__)
        function.__code__ = now[at]


def _codes(code: CodeType, inside: str = "") -> dict[str, CodeType]:
    """All functions of a module by their qualified names; those in functions aside."""
    found: dict[str, CodeType] = {}
    for const in code.co_consts:
        if isinstance(const, CodeType) and not const.co_name.startswith("<"):
            at = f"{inside}{const.co_name}"
            if const.co_flags & 0x2:  # A function, which has fast locals; else a class.
                found[at] = const
            else:
                found.update(_codes(const, f"{at}."))
    return found


def _alike(one: CodeType, other: CodeType) -> bool:
    return (
        one.co_code == other.co_code
        and all(
            _alike(a, b) if isinstance(a, CodeType) and isinstance(b, CodeType) else a == b
            for a, b in zip(one.co_consts, other.co_consts, strict=False)
        )
        and one.co_names == other.co_names
        and len(one.co_consts) == len(other.co_consts)
    )


def _function(module: Any, at: str) -> FunctionType:
    holder: Any = module
    for part in at.split("."):
        holder = vars(holder)[part]
    holder = holder.fget if isinstance(holder, property) else holder
    holder = getattr(holder, "__wrapped__", holder)
    assert isinstance(holder, FunctionType), at
    return holder


STALLS = {"persist": 1, "advance": 14, "tend": 14, "delete": 0, "prune": 0}
HEALS = {"prune": 5, "put on": 30, "advance": 1, "persist": 1, "delete": 0}
TTL = {"ttl_s": 40.0}

MUTANTS: dict[str, Mutant] = {
    "no last-writer-wins": Mutant(
        (Patch("stored.writes", "                cells[cell] = write",
               "                cells.setdefault(cell, write)"),),
        weights={"special": 20},
    ),
    "no last-writer-wins in a replay": Mutant(
        (Patch("replay.lua", "'w' .. entry, format('%016.0f', stamp) .. writes",
               "'w' .. entry, format('%016.0f', now) .. writes"),),
        weights={"special": 20},
    ),
    "no tombstone": Mutant(
        (Patch("replay.lua", "call('ZADD', GRAVES, format('%.0f', dead), '')", ""),
         Patch("delete.lua", "call('ZADD', GRAVES, format('%.0f', at), '')", "")),
        weights={"delete": 5},
    ),
    "gen check off": Mutant(
        (Patch("replay.lua", "if tonumber(GEN) <= dead then", "if false then"),),
        weights={"delete": 5},
    ),
    "reads not journaled": Mutant(
        (Patch("reads", "    if foreign:", "    if False:"),), weights={"put loaded": 20, "die": 4}
    ),
    "relative TTL": Mutant(
        (Patch("replay.lua", "  local at = call('PEXPIRETIME', STATE)",
               "  DEADLINE = math.floor(now / 1000) + 40000\n  local at = 0"),),
        TTL,
    ),
    "expiry check off": Mutant(
        (Patch("replay.lua", "DEADLINE * 1000 <= now and not lives then", "false then"),),
        TTL, {"advance": 25},
    ),
    "no heal": Mutant(
        (Patch("put.lua", "if #lacking > 0 then return", "if false then return"),),
        weights={"prune": 6},
    ),
    "no heal in a replay": Mutant(
        (Patch("replay.lua", "call('HEXISTS', STATE, 'c' .. names[i]) == 0 then return true",
               "call('HEXISTS', STATE, 'c' .. names[i]) == 0 then return false"),),
        weights=HEALS,
    ),
    "no second try with all chunks": Mutant(
        (Patch("loss_window.replay", "if self._page is None and self._again and",
               "if False and"),),
        weights=HEALS,
    ),
    "age-based trimming": Mutant(
        (Patch("loss_window.window", "return durable_s(entry.identity, now_s)",
               "return now_s - 20.0"),),
        weights=STALLS,
    ),
    "no identity check in trimming": Mutant(
        (Patch("loss_window.window", "if primary_of(entry.slot) != entry.identity:", "if False:"),
         Patch("loss_window.window", "return durable_s(entry.identity, now_s)",
               "return durable_s(primary_of(entry.slot), now_s)")),
        weights={"advance": 20, "tend": 25, "persist": 20, "stick": 8, "delete": 0, "prune": 0,
                 "after": 60},
    ),
    "no re-stamping": Mutant(
        (Patch("loss_window.journal", "        if had is not None:\n",
               "        if had is not None:\n            now_s = had\n"),),
        weights=STALLS,
    ),
    "no writer seq": Mutant(
        (Patch("put.lua", "if not late then", "if true then"),),
        weights={"put again": 15, "late": 8, "doubt": 15},
    ),
    "no writer seq in a replay": Mutant(
        (Patch("replay.lua", "if not same or not above(newer, sub(here, 10, 17)) then return",
               "if false then return"),),
        weights={"put again": 15, "put loaded": 15},
    ),
    "no writer seq of special writes": Mutant(
        (Patch("stored.writes", 'if newest.get(by_writer, b"") <= entry:', "if True:"),),
        weights={"special": 40, "late": 4, "put on": 3, "put loaded": 3, "doubt": 20},
    ),
    "head derived from the id alone": Mutant(
        (Patch("replay.lua", "local wins = up and (kin or", "local wins = up and (true or"),)
    ),
    "zombie rule off": Mutant(
        (Patch("loss_window.shards", "now_s - replaced_s < limits.FORMER_S", "False"),)
    ),
    "reads after a promotion not held": Mutant(
        (Patch("checkpoints", "if not await not_yet(", "if True or await not_yet("),)
    ),
    "no grace for other processes": Mutant(
        (Patch("loss_window.window", "return max(own_s, taken_over_s + self._grace_s)",
               "return own_s"),)
    ),
}  # fmt: skip
