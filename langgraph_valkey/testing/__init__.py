"""Test your agent against a Valkey in memory that fails when you say so.

`memory_saver` is a `ValkeySaver` over a `MemoryLink`: the same logic, the same
server-side scripts, no server, no network, no waiting. So a test can say "the
third checkpoint is refused", "the failover loses the last two writes" or "the
server is away from here on", and see what the agent makes of it, in milliseconds
and the same way each time.

```python
from langgraph_valkey import Unreachable
from langgraph_valkey.testing import MemoryLink, memory_saver

link = MemoryLink()
graph = builder.compile(checkpointer=memory_saver(link))
graph.invoke({"question": "..."}, config)

link.go_down()
with pytest.raises(Unreachable):  # never an empty thread
    graph.get_state(config)
link.come_up()
assert graph.get_state(config).values["question"] == "..."
```

`memory_store` is a `ValkeyStore` in the same manner.

A fault reaches the agent as it does when this package's own retries have run
out. To have them in between, wrap the link: ``memory_saver(Retrying(link,
Settings()))`` with `langgraph_valkey.retry.Retrying`; its waits are virtual, too.
"""

from __future__ import annotations

from typing import Any

from langgraph_valkey.link import Link
from langgraph_valkey.saver import ValkeySaver
from langgraph_valkey.store import ValkeyStore
from langgraph_valkey.testing.memory_link import MemoryLink

__all__ = ["MemoryLink", "memory_saver", "memory_store"]


def memory_saver(link: Link | None = None, **options: Any) -> ValkeySaver:
    """A saver over a server in memory.

    Two savers over one link are two processes on one server.

    Args:
        link: The link; a new `MemoryLink` if not given.
        **options: As `ValkeySaver.over` takes them: ``serde`` and the fields of
            `Settings`, such as ``ttl_s``.

    Raises:
        ConfigurationError: The ``testing`` extra is not installed, or an option
            can't be used.
    """
    return ValkeySaver.over(MemoryLink() if link is None else link, **options)


def memory_store(link: Link | None = None, **options: Any) -> ValkeyStore:
    """A store over a server in memory.

    Args:
        link: The link; a new `MemoryLink` if not given. A saver may share it.
        **options: As `ValkeyStore` takes them: ``index``, ``ttl``, ``serde`` and the fields
            of `Settings`.

    Raises:
        ConfigurationError: The ``testing`` extra is not installed, or an option
            can't be used.
    """
    return ValkeyStore(link=MemoryLink() if link is None else link, **options)
