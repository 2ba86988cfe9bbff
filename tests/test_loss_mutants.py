"""Each rule of the loss window is needed: without it the model fails.

A mutant is a patch to the product's code (`loss_mutants`), applied for as long as its
stories are told. The story that catches it must be one that holds without the patch.
"""

from __future__ import annotations

import pytest

from langgraph_valkey import CorruptState
from tests.loss_mutants import MUTANTS, Mutant, applied
from tests.loss_story import tell
from tests.loss_truth import Broken
from tests.loss_world import World


def caught_by(mutant: Mutant) -> tuple[int, str] | None:
    """The seed of the story that broke, and what broke in it."""
    weights = {name.replace(" ", "_"): many for name, many in mutant.weights.items()}
    with applied(mutant) as patch:
        for seed in range(mutant.seeds):
            try:
                tell(seed, World(seed, many=2 + seed % 2, patch=patch, **mutant.world), **weights)
            except Broken as broken:
                found = seed, broken.check
                break
            except CorruptState:
                found = seed, "can't be loaded"
                break
        else:
            return None
    tell(found[0], World(found[0], many=2 + found[0] % 2, **mutant.world), **weights)
    return found


@pytest.mark.parametrize("name", MUTANTS)
def test_without_a_rule_the_model_fails(name: str) -> None:
    found = caught_by(MUTANTS[name])
    assert found is not None, f"{name}: {MUTANTS[name].seeds} stories did not notice"
    print(f"{name}: caught by seed {found[0]}: {found[1]}")
