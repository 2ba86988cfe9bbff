"""Running the scripts in this process: the server's own Lua 5.1, by `lupa`.

The very sources that go to a server run here, so what is tested is what runs.
Values pass between Lua and the commands by the server's rules: a null reply is
``false``, a status is a table, numbers become integers, and a list ends at its
first ``nil``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.testing.commands import Commands, StatusReply
from langgraph_valkey.testing.keyspace import ServerError

_SET_UP = b"""
local run = ...
local redis = {
  call = function(...) return run(true, ...) end,
  pcall = function(...) return run(false, ...) end,
  error_reply = function(text)
    if text:find('^-') then text = text:sub(2) end
    if not text:find(' ', 1, true) then text = 'ERR ' .. text end
    return {err = text}
  end,
  status_reply = function(text) return {ok = text} end,
}
local globals = {redis = redis, server = redis, KEYS = {}, ARGV = {}}
for _, name in ipairs{
  'assert', 'error', 'getmetatable', 'ipairs', 'math', 'next', 'pairs', 'pcall', 'rawequal',
  'rawget', 'rawset', 'select', 'setmetatable', 'string', 'table', 'tonumber', 'tostring',
  'type', 'unpack', 'xpcall', '_VERSION',
} do globals[name] = _G[name] end
setmetatable(globals, {
  __newindex = function() error('Attempt to modify a readonly table', 2) end,
  __index = function(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
})
local function enter(keys, argv)
  globals.KEYS, globals.ARGV = keys, argv
end
local function load(source)
  return setfenv(assert(loadstring(source, '=user_script')), globals)
end
return enter, load
"""


class Interpreter:
    """A Lua state, shared by all in-memory servers of the process, one call at a time."""

    def __init__(self) -> None:
        try:
            from lupa import lua51
        except ImportError as error:
            raise ConfigurationError(
                "the in-memory link runs the scripts by lupa, which is not installed: "
                "pip install 'langgraph-valkey[testing]'"
            ) from error
        self._type_of = lua51.lua_type
        self._lua_error: type[Exception] = lua51.LuaError
        self._lua = lua51.LuaRuntime(encoding=None, register_eval=False)
        self._table = self._lua.table_from
        self._enter, self._load = self._lua.execute(_SET_UP, self._command)
        self._scripts: dict[str, Any] = {}
        self._commands: Commands | None = None
        self._lock = threading.Lock()

    def run(self, source: str, keys: Sequence[bytes], args: Sequence[bytes], on: Commands) -> Any:
        """Run a script; its reply.

        Args:
            source: The Lua text; a first line ``#!lua ...`` is passed over.
            keys: KEYS.
            args: ARGV.
            on: What `redis.call` runs on.

        Raises:
            ServerError: The script failed, or returned an error.
        """
        with self._lock:
            script = self._scripts.get(source)
            self._commands = on
            try:
                if script is None:
                    script = self._scripts[source] = self._load(_without_shebang(source).encode())
                self._enter(self._table(keys), self._table(args))
                return self._reply(script())
            except self._lua_error as error:
                raise ServerError(f"ERR {_text(error)}") from None
            finally:
                self._commands = None

    def _command(self, raises: bool, *args: Any) -> Any:
        assert self._commands is not None
        try:
            return self._value(self._commands.run([_argument(arg) for arg in args]))
        except ServerError as error:
            if raises:
                raise
            return self._table({b"err": str(error).encode()})

    def _value(self, reply: Any) -> Any:
        """A command's reply, as a script sees it."""
        if reply is None:
            return False
        if isinstance(reply, list):
            return self._table([self._value(item) for item in reply])
        if isinstance(reply, StatusReply):
            return self._table({b"ok": reply.text})
        return reply

    def _reply(self, value: Any) -> Any:
        """What a script returns, as a client sees it."""
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, bytes):
            return value
        if isinstance(value, int | float):
            return int(value)
        if self._type_of(value) != "table":
            return None
        for name in (b"err", b"ok"):
            text = value[name]
            if isinstance(text, bytes):
                if name == b"err":
                    raise ServerError(text.decode("utf-8", "backslashreplace"))
                return text
        items: list[Any] = []
        while (item := value[len(items) + 1]) is not None:
            items.append(self._reply(item))
        return items


@cache
def interpreter() -> Interpreter:
    """The one of this process."""
    return Interpreter()


def _argument(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return b"%d" % int(value) if value == int(value) else repr(value).encode()
    raise ServerError("ERR Command arguments must be strings or integers")


def _without_shebang(source: str) -> str:
    """The text with an empty line in place of its shebang, so that lines keep their numbers."""
    return "\n" + source.partition("\n")[2] if source.startswith("#!") else source


def _text(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    text = said.decode("utf-8", "backslashreplace") if isinstance(said, bytes) else str(said)
    return text.partition("\n")[0]
