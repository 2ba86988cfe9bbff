"""The kill loop of the store: items that are put, deleted and expire while primaries are broken.

It is the loop of `tests.kill_loop` with other crews. Writers, half of them threads and half
tasks of an event loop, put, replace and delete items in several namespaces over stores that
each count as a process (`crew`); many of them write the same items, and some items expire.
Each item has a history of what it was told and when (`history`), which says what may be read
of it at any later time. After each failover, once every store has told of it, what was
written lately is read by a store that replays nothing, and at the end everything is, by a
fresh one: by gets, by searches, and by the list of namespaces.

How much the servers lost is what the stores' reports say they had to replay. Without replay
(``--no-replay``) that is missing, so it is looked for.
"""
