"""The command line: what an operator does without a program.

::

    langgraph-valkey doctor valkeys://...              # is the cluster set up right?
    langgraph-valkey setup                             # make tables, check all clusters
    langgraph-valkey health --watch                    # what is at risk now
    langgraph-valkey recover --graph shop:agent        # run again what was lost
    langgraph-valkey dead-letters; ... revive ID       # messages that were given up
    langgraph-valkey threads; ... history THREAD; ... show CHECKPOINT [--diff OTHER]
    langgraph-valkey export THREAD; ... import FILE; ... prune THREAD; ... delete THREAD
    langgraph-valkey migrate --from URL --to URL       # also between clusters, live
    langgraph-valkey local                             # a server for development

``python -m langgraph_valkey`` is the same program. It needs the extra ``cli``.

Settings come from the environment (see `tiers.settings`), or from the `StateTiers` that
``--tiers module:attribute`` names. What works on threads takes a place by ``--at``, too: see
`moving.opening`.

Exit status: 0 if all is well; 1 if something is left to be looked at (conflicts, findings,
failures, a primary store that does not answer); 2 if it could not be done.

What destroys something asks first, or wants ``--yes``; where nobody can be asked it refuses.
State is shown by ``show`` and written by ``export``, and by nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_PARTS = ("typer", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        arguments: Those after the program's name; the process's own if not given.

    Returns:
        The exit status.

    Raises:
        SystemExit: The command line is not understood (2), or help was asked for (0).
    """
    try:
        from langgraph_valkey.cli.program import run
    except ModuleNotFoundError as error:
        if error.name not in _PARTS:
            raise
        sys.stderr.write(
            f"the command needs {error.name}, of the extra `cli`: "
            "pip install 'langgraph-valkey[cli]'\n"
        )
        return 2
    return run(sys.argv[1:] if arguments is None else arguments)
