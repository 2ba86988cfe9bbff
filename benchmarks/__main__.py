"""``python -m benchmarks [--only NAME] [--quick]``: measure, print, write, draw.

``ONLY`` and ``QUICK`` in the environment do the same, for ``make bench``. A
quick run writes its results to a temporary folder, unless told where, so that a
glance never replaces real figures.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from types import FrameType

from benchmarks import (
    commits,
    delta,
    graph,
    history,
    journal,
    machine,
    plot,
    rag_flight,
    rag_keeping,
    rag_latency,
    rag_pairs,
    rag_plot,
    rag_prompts,
    rag_stream,
    report,
    roundtrips,
    steps,
    storage,
    store,
    store_batch,
    store_namespaces,
    store_search,
)
from benchmarks.servers import Servers
from benchmarks.session import Session

GROUPS = {
    "steps": steps.measure,
    "storage": storage.measure,
    "graph": graph.measure,
    "history": history.measure,
    "delta": delta.measure,
    "roundtrips": roundtrips.measure,
    "journal": journal.measure,
    "commits": commits.measure,
    "store": store.measure,
    "store-batch": store_batch.measure,
    "store-search": store_search.measure,
    "store-namespaces": store_namespaces.measure,
    "rag-latency": rag_latency.measure,
    "rag-flight": rag_flight.measure,
    "rag-keeping": rag_keeping.measure,
    "rag-prompts": rag_prompts.measure,
    "rag-pairs": rag_pairs.measure,
    "rag-stream": rag_stream.measure,
}
RESULTS = Path(__file__).parent / "results"
SEED = 20_260


def _arguments() -> argparse.Namespace:
    only = [name for name in os.environ.get("ONLY", "").replace(",", " ").split() if name]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(GROUPS), default=only or list(GROUPS))
    parser.add_argument(
        "--quick", action="store_true", default=os.environ.get("QUICK", "") not in ("", "0")
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--results", type=Path, help="folder for JSON files and plots")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(GROUPS):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    return arguments


def _stop(number: int, _frame: FrameType | None) -> None:
    """Leave by an exception, so that the servers are stopped on the way."""
    sys.exit(128 + number)


def main() -> None:
    """Run the chosen groups one after the other."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    # A peer's dependency warns about the environment; it changes nothing here.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    # Failures are counted and shown in the tables; this peer logs each of them too.
    logging.getLogger("langgraph_checkpoint_aws").setLevel(logging.CRITICAL)
    folder = arguments.results
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="bench-quick-")) if arguments.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    with Servers() as servers, asyncio.Runner() as runner:
        session = Session(servers, runner, arguments.quick, arguments.seed)
        about = {
            "quick": arguments.quick,
            "seed": arguments.seed,
            "machine": machine.describe(),
            "versions": machine.versions(servers),
        }
        for name in arguments.only:
            for figure in GROUPS[name](session):
                session.progress(f"{figure.name}: done\n")
                print(report.table(figure), flush=True)
                report.write(figure, about, folder)
    for drawn in plot.draw(folder, {**plot.PLOTS, **rag_plot.PLOTS}):
        print(f"drew {drawn}")
    print(f"results are in {folder}")


if __name__ == "__main__":
    main()
