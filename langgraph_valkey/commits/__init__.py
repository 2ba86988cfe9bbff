"""Commits: what an agent does to a database, exactly once, and what it sends, at least once."""
