"""Moving threads whole from one checkpointer to another: ours, LangGraph's, or a file."""
