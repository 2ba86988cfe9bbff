"""The double fault: agents move money while their processes and Valkey's primaries die together.

Jepsen's `bank`, for agents. What makes it hard is not one death but two at once: the
primary takes the last acknowledged checkpoints with it, and the process that could have
replayed them from its journal dies in the same instant. Then only the run registry knows
that there was a turn, and only the primary store knows what it has already done.

The parties
    *Clients* (`clients`), in the process that breaks things, hold conversations with
    agents. They send each turn once and never again: finishing is the business of
    `recover()`. A turn is *accepted* if its run stands in the primary store.
    *Crews* (`crew`), processes of their own, run the turns through `StateTiers`, on both
    faces, as many at a time as they are sent.
    *Agents* (`agent`) are graphs whose model takes another path at each execution: other
    order, other steps, other tool call ids, other nodes. A careful agent chooses the same
    business key for the same intent, whenever asked. Forgetful ones make up another key
    each time, and rely on the receipts of the turn: they ask for them, or read what they
    are told when they are run again.
    The *bank* (`bank`) is what tools write to, in the transaction of their commit: two
    accounts and a line in a ledger that refuses nothing, so that it shows everything.

The faults (`loop`)
    A shard's log is held, so that what it acknowledges is not durable. After a random
    moment the shard's primary and one or more crews are killed (SIGKILL), together or
    one of both. A replica is promoted, fresh crews start, and one or two processes call
    `recover()` until nothing is left to do.

The verdict (`judge`)
    The sum over all accounts is what it was. Each intent of each accepted turn was
    applied exactly once, and under a key that was committed exactly once. Each accepted
    turn has its answer in its thread, which is whole. No run was executed by two living
    processes, nor again when it was fine (`trace` notes who executed what, and when).

That the harness can fail is shown by controls: ``--control registry`` has agents that
are run plainly, with a list of requests that are re-submitted if they were not answered,
and commits whose keys are the tool calls'; with ``--control receipts``
forgetful agents do not heed what was done. Both must find money moved twice.
"""
