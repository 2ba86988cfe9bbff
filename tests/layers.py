"""The order of modules that the rules of the code go by; see `test_architecture`."""

from __future__ import annotations

LAYERS = [
    *("errors", "limits", "fork", "quiet", "closing"),
    *("link", "scripts"),
    "keys",
    *("stored", "stored.codec", "stored.pieces", "stored.records", "stored.writes"),
    *("operations.answer", "operations.calls", "operations.replaying"),
    *("operations.leases", "operations"),
    *("loss_window", "loss_window.report", "loss_window.watermark", "loss_window.durability"),
    *("loss_window.spool_file", "loss_window.spool_adoption", "loss_window.spool"),
    *("loss_window.entries", "loss_window.journal", "loss_window.shards"),
    *("loss_window.pulse", "loss_window.replay"),
    *("loss_window.recovery", "loss_window.vitals", "loss_window.window"),
    "loss_window.recovering",
    "loss_window.tending",
    *("place", "known", "reads", "storing"),
    *("drafts", "loading", "checkpoints", "listing", "upkeep"),
    *("primary", "primary.json_text", "primary.records", "primary.versions", "primary.memories"),
    "primary.contract",
    *("commits", "commits.turns", "commits.commit", "commits.committed"),
    *("commits.handlers", "commits.outbox"),
    *("settings", "breaker"),
    *("vectors", "vectors.matrix", "vectors.index", "vectors.server_index", "retry"),
    *("items", "items.names", "items.records", "items.calls", "items.replaying"),
    *("items.filters", "items.embedding", "items.namespaces", "items.batch"),
    *("items.telling", "items.fields", "items.mirror", "items.updating", "items.ranking"),
    *("items.walking", "items.asking", "items.indexed", "items.searching", "items.listing"),
    *("items.memories", "items.durable", "items.buckets", "items.committing", "items.tending"),
    *("items.reads", "items.reading", "items.keeping", "items.serving", "items.lasting"),
    *("glide", "glide.errors", "glide.clients", "glide.exchange", "glide.scan"),
    *("glide.search", "glide.survey"),
    *("glide.health", "glide.blocking_lane", "glide.native_lane", "glide.link"),
    *("local.resp", "local.watchdog", "local.topology", "local.node", "local.health"),
    *("local.lifecycle", "local.proxy", "local.framing", "local.log", "local.tunnel"),
    *("local.replication", "local.gate", "local.front", "local.durable", "local.nodes"),
    *("local.faults", "local.single", "local.cluster", "local", "local.fixtures"),
    *("sql", "sql.schema", "sql.answers", "sql.errors", "sql.transactions", "sql.messages"),
    *("sql.database", "sql.faces", "sql.engines", "sql.migrations"),
    *("sql.commits", "sql.runs", "sql.leases", "sql.outbox", "sql.versions", "sql.memories"),
    "sql.store",
    *("dynamodb", "dynamodb.items", "dynamodb.errors", "dynamodb.client", "dynamodb.sizes"),
    *("dynamodb.table", "dynamodb.run_items", "dynamodb.commits", "dynamodb.runs"),
    *("dynamodb.leases", "dynamodb.outbox", "dynamodb.versions", "dynamodb.memories"),
    *("dynamodb.upkeep", "dynamodb.schema", "dynamodb.store", "primary.opening"),
    *("keeper", "aws", "telemetry", "monitor", "session", "saver", "store"),
    *("boundary", "boundary.faces", "boundary.acquaintance", "boundary.carrying"),
    *("boundary.joining", "boundary.courier", "boundary.burials", "boundary.boundary"),
    "boundary.tiered_saver",
    *("runs", "runs.report", "runs.inputs", "runs.rerun", "runs.receipts_note", "runs.heads"),
    *("runs.owner", "runs.rewinds", "runs.home_loop", "runs.graphs", "runs.faces"),
    *("runs.bygone", "runs.settling", "runs.attempts", "runs.redoing", "runs.orders"),
    *("runs.admitting", "runs.outcomes", "runs.cancelling", "runs.leaving", "runs.recovering"),
    "runs.registry",
    *("tiers", "tiers.settings", "tiers.roles", "tiers.locks", "tiers.prepared"),
    *("tiers.lock_places", "tiers.commits", "tiers.state_tiers"),
    *("testing.keyspace", "testing.sorted_sets", "testing.commands", "testing.interpreter"),
    "testing.memory_link",
    "testing",
    *("moving", "moving.opaque", "moving.cargo", "moving.homes", "moving.our_homes"),
    *("moving.sql_homes", "moving.aws_home", "moving.opening", "moving.thread_file"),
    *("moving.ledger", "moving.copying"),
    *("cli.output", "cli.naming", "cli.options", "cli.findings", "cli.probes", "cli.doctor"),
    *("cli.tending", "cli.watching", "cli.threads", "cli.showing", "cli.files", "cli.migrate"),
    *("cli.local_servers", "cli.program", "cli", "__main__"),
]
"""Every module of `langgraph_valkey`; each may import only what stands before it."""

EDGES = {"boundary.faces", "runs.faces", "runs.home_loop", "runs.registry", "items.embedding"}
"""Where boundary, runs and items meet event loops and threads."""

CORE = [
    *LAYERS[LAYERS.index("link") : LAYERS.index("commits.committed") + 1],
    *(m for m in LAYERS if m.startswith(("boundary", "runs", "items")) and m not in EDGES),
]
"""The logic: written once for both faces, so it knows neither event loops nor GLIDE."""

MAY_LOCK = {
    "stored.codec": "zstd contexts must not be shared between threads",
    "loss_window.spool_file": "SQLite is used from many threads",
    "loss_window.vitals": "it looks at the parts of a window under its lock",
    "loss_window.window": "one saver serves many threads, and the monitor looks after it",
    "known": "one saver serves many threads, and they share what it knows",
    "boundary.acquaintance": "one saver serves many threads, and they share what it knows",
    "items.durable": "one store serves many threads, and they share what it knows",
    "items.mirror": "one store serves many threads, and they share what it has at hand",
    "items.listing": "one store serves many threads, and they share what it has at hand",
    "runs.owner": "a heartbeat tells of it, beside the calls that begin and end attempts",
    "runs.rewinds": "the monitor tells it of failovers",
    "runs.settling": "the keeper settles what calls have left",
}
"""Core modules that may import `threading`, and why."""
