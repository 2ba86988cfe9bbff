"""Every constant with a unit and a reason, in one place.

Relations between them are asserted at import, so that a change of one that
breaks another fails at once.
"""

from __future__ import annotations

# --- connection ---------------------------------------------------------------

REQUEST_TIMEOUT_MS = 1_000
"""How long one request may take. Failing over takes 1.5 s at best, so a longer
wait would only delay our own retry."""

CONNECTION_TIMEOUT_MS = 500
"""How long connecting to one node may take."""

REJECT_DEADLINE_S = 30.0
"""How long a refused write is tried again: three times the 10 s by which the
log of a cluster with async durability may lag before it refuses."""

REJECT_BACKOFF_FIRST_S = 0.05
REJECT_BACKOFF_MOST_S = 2.0
"""Bounds of the wait between two tries of a refused write; each wait is drawn
between 0 and the bound (full jitter), which doubles from try to try."""

READ_DEADLINE_S = 3.0
"""How long a call is tried again while no server answers: a failover takes
about 1.5 s; a server that stays away must become an error soon."""

UNKNOWN_RETRY_DEADLINE_S = 3.0
"""How long a write of unknown outcome is sent again."""

OUTER_DEADLINE_FACTOR = 3.0
"""Our own deadline on an await, in request timeouts: GLIDE's timeout does not
fire when the event loop that owns its replies stalls."""

IN_FLIGHT_MOST = 500
"""Requests under way at once on one client. GLIDE refuses the 1001st with an
error; below that a put waits its turn instead."""

LARGE_VALUE_BYTES = 100 * 1024
"""From this size on a call goes over a connection of its own: beside 1 MiB
values a small GET took 4-6 ms instead of 0.34 on a shared one."""

WORKER_THREADS_MOST = 16
"""Threads that run blocking calls for event loops which can't use GLIDE's
async client: other loops beside the one that owns its replies, and trio."""

SCAN_COUNT = 500
"""About how many keys the server looks at for one page of a scan."""

ROOT_PAUSE_FIRST_S = 0.01
ROOT_PAUSE_MOST_S = 1.0
"""Pauses, doubling, in which a write waits for the root of a thread that was
deleted before; about 1.3 s in all, then the thread counts as deleted."""

SCAN_ROUNDS_MOST = 5
"""How often a walk over all keys begins again because slots moved."""

CLOSE_DRAIN_BOUNDS = 2.4
"""How long `close` waits for calls under way, and until what was written is durable,
in lag bounds: by the watermark's conditions that is known 2.1 bounds after the last
write, and one or two heartbeats later."""

CLOSE_UNREACHABLE_S = 3.0
"""How long it waits while no server answers."""

DRAIN_POLL_S = 0.01
"""How often it looks."""

# --- layout -------------------------------------------------------------------

DIGEST_BYTES = 16
"""Length of a chunk's name: BLAKE2b cut to 128 bits."""

INLINE_BYTES = 128
"""Values up to this size stand in the record itself: a chunk of its own would
cost about 100 bytes for name, reference and table entry."""

GROUP_FAN_IN = 4
"""How many neighbouring groups of a list are merged into one: appending then
rewrites an element once a level, not once a step."""

GROUP_CLOSED_BYTES = 4 * 1024
"""A group of list elements of at least this size is closed: it is stored once
and never merged again, until the list outgrows `GROUPS_MOST` such groups."""

GROUPS_MOST = 16
"""Above this many groups the closing size grows with the list, so that neither
a record's references nor the pieces of a read grow with the thread."""

COMPRESS_BYTES = 1024
"""Records and writes from this size on are compressed: the version strings of a
larger graph shrink to a fifth, in 5 us."""

COMPRESS_CHUNK_BYTES = 32 * 1024
"""Chunks from this size on are compressed."""

PLAIN_BYTES_MAX = 512 * 1024 * 1024
"""What is larger is not compressed, and what would become larger is not decompressed: the
server takes no value of this size either, and a few bytes must not fill the memory."""

# --- keeping ------------------------------------------------------------------

TOMBSTONE_TTL_MS = 24 * 3600 * 1000
"""How long a deletion is remembered, so that a write or a replay that arrives
late can't bring the thread back."""

# --- the loss window ------------------------------------------------------------

LAG_BOUND_S = 10.0
"""By how much the log of a cluster with async durability may lag before it refuses
writes (ElastiCache, "Durability")."""

JOURNAL_BYTES_MAX = 64 * 1024 * 1024
JOURNAL_ENTRIES_MAX = 200_000
"""What the journal may hold: 20 s of 3 MB/s, or of 10,000 writes/s."""

SPOOL_BYTES_MAX = 1024 * 1024 * 1024
"""What one process may keep on disk."""

LINE_SLACK = 1_000
"""Dropped entries that may stand in the journal's lines before these are cleared."""

READS_SHARE = 2
"""One part in so many of it may be what was read."""

REPLAY_GRACE_S = 2.0
"""For how long after a promotion reads wait for other processes' replays."""

REPLAY_PAGE_BYTES = 256 * 1024
REPLAY_PAGE_ENTRIES = 200
"""A replay's script runs for a few milliseconds at most."""

REPLAY_THREADS = 32
"""Threads that are replayed side by side."""

REPLAY_TRIES = 5
"""How often a replay begins again because primaries kept changing."""

MISSING_S = 3.0
"""For how long a replay waits for another process to bring what an entry refers to:
longer than that process needs to notice and replay."""

DOUBTFUL_MOST = 10_000
"""Writes of unknown outcome that are remembered, so that one that is read in the end
is known to have been applied."""

SEEN_MOST = 64
"""Heads of other writers that are remembered in a namespace: a replay may move the
head on from these."""

FORMER_S = 3.0
"""How long a primary that was replaced is not believed: it may have been frozen, and
not know. Later, a slot may have been moved back to it."""

REFUSED_PAUSE_S = 0.2
"""Pause before a replay that was refused is tried again in the way of a read."""

VERIFY_PAGE = 500
"""Slots that are asked at once who has them, after one of them was taken over."""

FORMER_PAUSE_S = 0.1
"""Pause before asking again when a replaced primary answered."""

PROBE_S = 1.0
PROBE_IN_TROUBLE_S = 0.05
"""How often a shard is looked at, and how often while it does not answer."""

BEAT_BOUNDS = 0.1
"""How often an idle shard with undurable writes is written to, in lag bounds."""

REPLICA_FORGOTTEN_S = 60.0
"""How long a replica that is gone is waited for by the watermark."""

MONITOR_TIMEOUT_MS = 250
"""How long a request of the monitor may take: it has more than one shard to look at."""

REREAD_S = 30.0
"""How often it is asked which durability is in force: it can be switched."""

REREAD_LAG_S = 60.0
"""How often it is asked how far logs lag: there is one sample a minute, and each question
has its price."""

ADOPT_S = 30.0
"""How often the spool's directory is searched for what processes left behind."""

# --- committed transactions -----------------------------------------------------

OP_LENGTH_MAX = 256
KEY_LENGTH_MAX = 1024
"""Characters of a commit's operation (or a message's topic) and of its key: names, not
contents."""

PAYLOAD_BYTES_MAX = 1024 * 1024
"""JSON of a commit's payload. Only its digest is kept; the bound is there because the
digest is computed at each call."""

# --- the store ------------------------------------------------------------------

STORE_BUCKETS = 16
"""Parts of a store, each in one slot: enough for the shards of a cluster to share the
work, and few enough for a search to ask them all at once."""

TURN_ITEMS = 200
TURN_BYTES = 256 * 1024
"""What one call reads or writes in a bucket at most: its script runs for a few
milliseconds. A single item may be larger."""

MIRROR_ROWS = 100_000
MIRROR_BYTES = 256 * 1024 * 1024
"""What a process holds at hand of the items that it searches, in all."""

REFRESH_SHARE = 16
REFRESH_STEP_MS = 10_000
"""An expiry that a read put off is journaled anew once it has moved on by this part of
the item's time to live, or this far: so much may a failover take from it."""

# --- pages --------------------------------------------------------------------

PAGE_BYTES = 1024 * 1024
"""A page ends when it holds this much, so that no script runs for long."""

LIST_PAGE = 100
"""Checkpoints in one page of `list`."""

WALK_PAGE = 500
"""Entries in one page of a walk over a thread (copy, prune, delete, filter)."""

REMOVE_PAGE = 100
"""Checkpoints removed by one call."""

HISTORY_PAGE = 128
"""Ancestors in one page of a delta channel's history."""

SWEEP_MS = 10 * 60 * 1000
"""How long an open sweep is honoured after its last step: a sweeper that dies
leaves puts checking all they refer to until then."""

KNOWN_THREADS_MOST = 20_000
KNOWN_NAMESPACES_MOST = 16
"""Threads, and namespaces of each, of which the names of stored pieces are
remembered (a few KiB each): it spares sending what the server has."""

assert REJECT_BACKOFF_FIRST_S < REJECT_BACKOFF_MOST_S < REJECT_DEADLINE_S
assert CONNECTION_TIMEOUT_MS <= REQUEST_TIMEOUT_MS
assert INLINE_BYTES < GROUP_CLOSED_BYTES < LARGE_VALUE_BYTES
assert TOMBSTONE_TTL_MS > REJECT_DEADLINE_S * 1000
assert REPLAY_GRACE_S < FORMER_S
