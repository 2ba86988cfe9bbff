"""A shop's support agent on a page of its own, and a cluster to break under it.

    make demo                                     http://127.0.0.1:<port>, no network needed
    python -m examples.agent_app --port 8000      on a port of your choice
    AGENT_MODEL=openai:gpt-4o make demo           any chat model of LangChain

Left on the page is the chat, right the cluster, live, with buttons that break it. The
agent is a process of its own, so that it can be killed like one. Everything that is shown
was measured while you looked on. It needs ``langgraph-valkey[demo]``.

====================  ================================================================
`__main__`            the command line
`server`, `hub`       what the page asks for, and what it is told live
`stage`, `faults`     all that stands behind it; and what its buttons do
`watch`               how cluster and books are, several times a second
`lab`, `shards`       the cluster: what breaks it, and how it is
`agent_process`,      the agent's process, seen from the server; and how they talk
`wire`
`books`               the shop's database: stock, orders, payments
`witness`             what customers were told, held against what is left of it
`timeline`,           what happened, in plain words and with what was measured
`telling`
`tally`               what the cache has spared
`visitor`, `rounds`   somebody without a browser; random faults, and a verdict:
                      ``python -m examples.agent_app.rounds``
`agent`               what runs in the agent's process
`shop`, `page`        the shop's documents; the page
====================  ================================================================
"""
