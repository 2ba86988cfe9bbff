"""LangGraph checkpoints, and memory across threads, on Valkey.

`ValkeySaver` is the checkpointer and `ValkeyStore` the store; `Settings` says where the
server is; `Hooks` are told what a failover lost and what was replayed. Servers for
development and tests are in `langgraph_valkey.local`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langgraph_valkey.errors import (
        CommitConflict,
        ConfigurationError,
        CorruptState,
        ForkDetected,
        LanggraphValkeyError,
        LockLost,
        LockUnavailable,
        OutcomeUnknown,
        ReplayIncomplete,
        RunInProgress,
        RunTakenOver,
        StoreFull,
        ThreadDeleted,
        Unreachable,
        WriteRejected,
    )
    from langgraph_valkey.items.batch import DurablePut
    from langgraph_valkey.loss_window.report import (
        Fork,
        Health,
        Hooks,
        RecoveryReport,
        ShardHealth,
    )
    from langgraph_valkey.primary.records import Outgoing, Receipt
    from langgraph_valkey.saver import AsyncValkeySaver, ValkeySaver
    from langgraph_valkey.settings import Settings
    from langgraph_valkey.store import ValkeyStore
    from langgraph_valkey.tiers.settings import TierSettings
    from langgraph_valkey.tiers.state_tiers import StateTiers

__version__ = "0.1.0"

__all__ = [
    "AsyncValkeySaver",
    "CommitConflict",
    "ConfigurationError",
    "CorruptState",
    "DurablePut",
    "Fork",
    "ForkDetected",
    "Health",
    "Hooks",
    "LanggraphValkeyError",
    "LockLost",
    "LockUnavailable",
    "OutcomeUnknown",
    "Outgoing",
    "Receipt",
    "RecoveryReport",
    "ReplayIncomplete",
    "RunInProgress",
    "RunTakenOver",
    "Settings",
    "ShardHealth",
    "StateTiers",
    "StoreFull",
    "ThreadDeleted",
    "TierSettings",
    "Unreachable",
    "ValkeySaver",
    "ValkeyStore",
    "WriteRejected",
]

_HOMES = {
    "AsyncValkeySaver": "saver",
    "ValkeySaver": "saver",
    "ValkeyStore": "store",
    "DurablePut": "items.batch",
    "Settings": "settings",
    "StateTiers": "tiers.state_tiers",
    "TierSettings": "tiers.settings",
    "Outgoing": "primary.records",
    "Receipt": "primary.records",
} | dict.fromkeys(
    ("Fork", "Health", "Hooks", "RecoveryReport", "ShardHealth"), "loss_window.report"
)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: one part never pays for another."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value
