"""Putting scripts together from files of Lua: what several share stands in a file of its own.

``identity.lua``, beside this module, finds out which primary runs the script. Every
script of which the answer depends on that begins with it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from langgraph_valkey.link import Script


@cache
def assemble(package: str, name: str, shared: tuple[str, ...], flags: str) -> Script:
    """A script with what it shares with others before it.

    Args:
        package: The package whose folder holds the files.
        name: The script's own file, without ``.lua``.
        shared: Files of that folder to put before it; "identity" is this module's.
        flags: What it may do: the flags of its ``#!lua`` line, such as ``flags=no-writes``.
    """
    texts = [text_of(__package__ if each == "identity" else package, each) for each in shared]
    return Script(name, f"#!lua {flags}\n" + "\n".join([*texts, text_of(package, name)]))


def text_of(package: str, name: str) -> str:
    """A file of Lua, as it is.

    Args:
        package: The package whose folder holds it.
        name: The file, without ``.lua``.
    """
    return (files(package) / f"{name}.lua").read_text("utf-8")
