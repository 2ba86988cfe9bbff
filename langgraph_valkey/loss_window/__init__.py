"""The loss window: what an async-durability cluster may still forget, and bringing it back.

A write is acknowledged before it is durable. Until it is, this process keeps it:
the `journal` holds what was sent and what was read, the `watermark` says up to
when it is durable by now, `shards` notices that another primary answers, and
`replay` joins what the journal holds into what the new primary has. `guard` puts
the four together; `spool` keeps a journal on disk.
"""
