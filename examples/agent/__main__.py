"""The command line: ``python -m examples.agent``."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
from pathlib import Path

INTERRUPTED = 130
"""Exit code of a program that ended by Ctrl-C, as shells have it."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.agent",
        description="A LangGraph agent whose threads live in Valkey. Without options: a tour.",
    )
    add = parser.add_argument
    add("--interactive", action="store_true", help="you ask and approve, rather than a tour")
    add("--thread", default=None, help="the thread to talk on (default: me)")
    add("--question", help="what to ask; in the tour, its first question")
    add("--model", default="offline", help="offline, or e.g. openai:gpt-4o (needs its package)")
    add("--data-dir", type=Path, default=Path("demo-data"), help="default: demo-data")
    add("--keep", action="store_true", help="keep the data directory that the tour made")
    add("--url", help="use this Valkey rather than an embedded one")
    add("--tell", type=int, help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """Run; returns the exit code."""
    given = _parser().parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        return _run(given)
    except ModuleNotFoundError as error:
        print(
            f"The package {error.name} is missing: pip install 'langgraph-valkey[demo]'",
            file=sys.stderr,
        )
        return 1


def _run(given: argparse.Namespace) -> int:
    # Here, so that what is missing is said in a sentence, and --help is quick.
    from examples.agent.chat import Options, chat
    from examples.agent.models import DemoError
    from examples.agent.show import Screen
    from examples.agent.tour import tour
    from langgraph_valkey import LanggraphValkeyError

    chatting = given.interactive or given.thread is not None or given.url is not None
    options = Options(
        model=given.model,
        data_dir=given.data_dir,
        keep=given.keep,
        question=given.question,
        interactive=given.interactive,
        thread=given.thread or "me",
        url=given.url,
        tell=given.tell,
    )
    screen = Screen()
    # A step that ends just after Ctrl-C finds its executor closed, and a stack trace of
    # that would be logged; the step is run again when the thread goes on.
    logging.getLogger("concurrent.futures").setLevel(logging.CRITICAL)
    try:
        if given.interactive and sys.stdin.isatty():
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - makes input() editable
        (chat if chatting else tour)(options, screen)
    except KeyboardInterrupt:
        screen.line("\n")
        told = "What was done is kept; start again to go on." if chatting else "Nothing still runs."
        screen.line(f"  Stopped. {told}", "dim")
        return INTERRUPTED
    except BrokenPipeError:  # nobody reads on, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (DemoError, LanggraphValkeyError) as error:
        screen.line()
        Screen(sys.stderr).text(str(error), style="red")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
