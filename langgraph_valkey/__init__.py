"""LangGraph checkpoints on Valkey."""
