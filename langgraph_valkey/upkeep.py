"""Copying, pruning and removing: what an owner does to threads as a whole.

All of it goes in pages, may be stopped at any page and begun again, and leaves
each checkpoint that it keeps whole. What is removed frees its chunks by a
mark-and-sweep over the thread's records, during which writers go on.

**Delta channels.** LangGraph's `DeltaChannel` stores its value now and then; in
between, a checkpoint's value is rebuilt from the writes on its ancestors. So an
ancestor may be removed only if no kept checkpoint is rebuilt from it. Which
channels are of that kind is not stored; `_delta_chain` tells by their traces.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from langgraph_valkey import limits, operations, records
from langgraph_valkey.checkpoints import Checkpoints, Place
from langgraph_valkey.keys import namespace_of, to_text
from langgraph_valkey.link import Call, Link
from langgraph_valkey.listing import _grouped, ancestry, metadata_of, threads
from langgraph_valkey.operations import Status
