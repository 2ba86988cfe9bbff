"""The command line: ``python -m examples.rag_pipeline``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

QUESTIONS_LEAST = 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.rag_pipeline",
        description="Questions about this repository, answered with and without a cache.",
    )
    add = parser.add_argument
    model = os.environ.get("RAG_MODEL", "offline")
    add("--questions", type=int, default=90, help="how many are asked (default: 90)")
    add("--seed", type=int, default=1, help="of the draw who asks what (default: 1)")
    add("--model", default=model, help="offline, or e.g. openai:gpt-4o (needs its package)")
    add("--embedder", choices=("minilm", "wordllama"), default="wordllama")
    prices = add("--prices", type=float, nargs=2, default=(0.5, 1.5))
    prices.metavar = ("INPUT", "OUTPUT")
    prices.help = "USD for a million tokens (default: 0.5 1.5)"
    add("--plot", type=Path, help="draw what each answer took to this file")
    return parser


def main() -> int:
    """Run; returns the exit code."""
    parser = _parser()
    given = parser.parse_args()
    if given.questions < QUESTIONS_LEAST:
        parser.error(f"--questions must be at least {QUESTIONS_LEAST}")
    try:
        return _run(given)
    except ModuleNotFoundError as error:
        print(
            f"The package {error.name} is missing: "
            "pip install 'langgraph-valkey[local,plot,wordllama]'",
            file=sys.stderr,
        )
        return 1


def _run(given: argparse.Namespace) -> int:
    # Here, so that what is missing is said in a sentence, and --help is quick.
    from examples.agent.models import DemoError
    from examples.agent.show import Screen
    from examples.rag_pipeline.tour import Options, tour
    from langgraph_valkey import LanggraphValkeyError

    options = Options(
        questions=given.questions,
        seed=given.seed,
        model=given.model,
        embedder=given.embedder,
        prices=(given.prices[0], given.prices[1]),
        plot=given.plot,
    )
    try:
        tour(options, Screen())
    except (DemoError, LanggraphValkeyError) as error:
        Screen(sys.stderr).text(str(error), style="red")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
