"""Building the calls of locks, and the one that asks what a server may evict.

They touch no thread: each has one key of its own.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from langgraph_valkey.keys import thread_keys
from langgraph_valkey.link import Call
from langgraph_valkey.operations.calls import Kind, script

Step: TypeAlias = Literal["acquire", "renew", "release"]

_LOCKS = Kind("flags=allow-oom", (), 1, writes=True)
"""A lock takes a few bytes once; a full server must go on with those it has."""

_ASKS = Kind("flags=no-writes", (), 1, writes=False)


def lease(
    prefix: str, name: str, step: Step, holder: str, ttl_s: float = 0.0, token: int = 0
) -> Call:
    """Take, hold on, or give back a lease.

    Args:
        prefix: What all keys begin with.
        name: Of what; any characters.
        step: What to do.
        holder: Who asks; the same when it asks again.
        ttl_s: For how long; with "acquire" and "renew".
        token: The lease's token; with "renew" and "release".

    Returns:
        A call whose reply is the token, or 0 if the holder has not got the lease. It is
        not patient: a refusal goes to the caller, since a lease's time runs meanwhile.
    """
    keys = thread_keys(prefix, name)
    key = keys.state.removesuffix(b"state") + b"lock"
    ttl_ms = max(1, round(ttl_s * 1000))
    args = [step.encode(), holder.encode(), b"%d" % ttl_ms, b"%d" % token]
    return Call(script("lock", _LOCKS), (key,), args, writes=True, patient=step == "release")


def policy(prefix: str) -> Call:
    """Ask a shard for its maxmemory-policy; the reply is b"" where that is hidden."""
    return Call(script("policy", _ASKS), (thread_keys(prefix, "").beat,), [], writes=False)
