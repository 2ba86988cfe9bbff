"""The primary store on SQLite and PostgreSQL."""
