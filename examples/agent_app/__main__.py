"""The command line: ``python -m examples.agent_app``."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path
from types import FrameType

HOST = "127.0.0.1"
WORD_S = 0.035
GRACE_S = 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.agent_app",
        description="A support agent on a page, and a cluster to break under it.",
    )
    add = parser.add_argument
    port = int(os.environ.get("PORT", "0"))
    add("--port", type=int, default=port, help="default: PORT, else a free one")
    model = os.environ.get("AGENT_MODEL", "offline")
    add("--model", default=model, help="offline, or e.g. openai:gpt-4o (default: AGENT_MODEL)")
    add("--data-dir", type=Path, default=Path("demo-data/agent-app"), help="emptied at the start")
    add("--word-s", type=float, default=WORD_S, help="how long the offline model takes for a word")
    return parser


def main() -> int:
    """Run; returns the exit code."""
    given = _parser().parse_args()
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
    import uvicorn

    from examples.agent_app.server import Page
    from examples.agent_app.stage import Options, Stage

    stage = Stage(Options(given.data_dir, given.model, given.word_s))
    page = Page(stage)

    class Server(uvicorn.Server):
        """Says where the page is, and lets pages go before it waits for them."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """See `uvicorn.Server.startup`."""
            await super().startup(sockets)
            if self.started and sockets:
                port = sockets[0].getsockname()[1]
                print(f"The page is at http://{HOST}:{port}  (Ctrl-C ends it)", flush=True)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """See `uvicorn.Server.handle_exit`."""
            stage.hub.close()
            super().handle_exit(sig, frame)

    try:
        listening = socket.create_server((HOST, given.port))
    except OSError as error:
        told = f"Port {given.port} can't be used: {error.strerror}. Choose another one with --port."
        print(told, file=sys.stderr)
        return 1
    config = uvicorn.Config(
        page.application(), log_level="critical", timeout_graceful_shutdown=GRACE_S
    )
    print("Starting a cluster of six servers, a cache, and the agent ...", flush=True)
    server = Server(config)
    try:
        asyncio.run(server.serve([listening]))
    except KeyboardInterrupt:
        print("\nStopped: nothing still runs.")
        return 0
    except SystemExit:
        print(page.trouble or "The server did not start.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
