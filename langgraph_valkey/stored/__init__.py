"""The stored form of a thread's state.

`codec` makes bytes of values; `pieces` cuts them so that each is stored once;
`records` and `writes` are a checkpoint and its pending writes.
"""
