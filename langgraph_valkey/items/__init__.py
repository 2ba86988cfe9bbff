"""Items of the store: memory across threads, in buckets that are kept as threads are."""
