"""The kill loop: real graphs on a real cluster whose primaries are broken all the time.

24 writers in processes of their own (`crew`) hold conversations (`talks`) with
LangGraph graphs and with the saver itself, over savers that note in a ledger what
was acknowledged (`recorded`, `ledger`). Faults drawn from a seed break one shard
after the other (`faults`, `watch`). After each, once every saver has told of it, all
that was acknowledged lately is looked for by a saver that replays nothing
(`search`), and at the end everything is, by a fresh one (`loop`, `report`).

How much the store itself lost is what the savers' reports say they had to replay.
That this is no fiction shows without replay (``--no-replay``): then it is missing.
"""
