"""Which chat model the agent thinks with."""

from __future__ import annotations

from langchain_core.language_models import BaseChatModel

from examples.agent.scripted_model import ScriptedModel

OFFLINE = "offline"


class DemoError(Exception):
    """Something that the person at the terminal can put right; the text says how."""


def first_line(error: Exception) -> str:
    """What an error says first; some go on for pages."""
    return str(error).strip().partition("\n")[0]


def chat_model(name: str, pause_s: float = 0.0) -> BaseChatModel:
    """The model of that name.

    Args:
        name: `OFFLINE`, or what `langchain.chat_models.init_chat_model` takes, such
            as ``openai:gpt-4o``.
        pause_s: How long the offline one takes to say a word.

    Raises:
        DemoError: It can't be made: a package, a key or the name is wrong.
    """
    if name == OFFLINE:
        return ScriptedModel(pause_s=pause_s)
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise DemoError(
            f"--model {name} needs the package langchain: pip install 'langgraph-valkey[demo]'"
        ) from error
    try:
        return init_chat_model(name)
    except Exception as error:
        raise DemoError(
            f"the chat model {name} can't be made: {first_line(error)}\nInstall its package, "
            "set its key, or leave out --model for the offline one."
        ) from error
