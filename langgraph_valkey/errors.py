"""Errors, sorted by what the caller does next.

Two questions decide what a caller can do after a failed call: *was anything
applied?* and *will the same call succeed later?* Each class below answers both.
``None`` or an empty list is never an error in disguise: they mean that the
server answered and had nothing (an outage always raises).

==================  =================  =======================================
class               applied?           what to do
==================  =================  =======================================
ConfigurationError  no                 fix the set-up; the text says how
WriteRejected       no                 wait and call again
Unreachable         no                 wait and call again
OutcomeUnknown      maybe              call again: every write is idempotent
StoreFull           no                 delete or prune, raise maxmemory
CorruptState        -                  inspect the key named in the error
ThreadDeleted       no                 start the thread anew
ForkDetected        yes, as a fork     pick a branch by its checkpoint id
ReplayIncomplete    partly             re-run the threads named in the error
CommitConflict      by the first one   use another key, or the first one's result
RunTakenOver        no                 stop: another process goes on with the run
RunInProgress       no                 wait until the thread's run has ended
LockUnavailable     no                 wait and call again
LockLost            -                  stop: another one may hold the lock now
==================  =================  =======================================

Texts and attributes name keys and ids, never state: what users keep in their
threads must not reach a log through an exception.
"""

from __future__ import annotations

from collections.abc import Sequence


class LanggraphValkeyError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigurationError(LanggraphValkeyError):
    """The set-up is wrong: a URL, a credential, a missing extra, a server option."""


class WriteRejected(LanggraphValkeyError):
    """The server refused the write; nothing was applied.

    A cluster with async durability refuses writes while its log lags; so does a
    cluster without enough replicas or in the middle of a failover.

    Attributes:
        rejected_s: For how many seconds the write was tried before giving up.
    """

    def __init__(self, message: str, *, rejected_s: float = 0.0) -> None:
        super().__init__(message)
        self.rejected_s = rejected_s


class Unreachable(LanggraphValkeyError):
    """No server answered; nothing was applied."""


class OutcomeUnknown(LanggraphValkeyError):
    """The connection broke or the time ran out after the call was sent.

    It may have been applied, and may still be. Sending it again is safe.
    """


class StoreFull(LanggraphValkeyError):
    """The server is out of memory and evicts nothing.

    Threads stay readable, and deleting and pruning work.
    """


class CorruptState(LanggraphValkeyError):
    """Something stored can't be read back whole, so it is not returned at all.

    Attributes:
        thread_id: The thread, as the caller named it.
        checkpoint_id: The checkpoint, where one is concerned.
        key: The server key that holds the damage.
    """

    def __init__(
        self, message: str, *, thread_id: str, checkpoint_id: str | None = None, key: str
    ) -> None:
        super().__init__(message)
        self.thread_id = thread_id
        self.checkpoint_id = checkpoint_id
        self.key = key


class ThreadDeleted(LanggraphValkeyError):
    """The thread was deleted while this writer was in the middle of it.

    Attributes:
        thread_id: The deleted thread.
    """

    def __init__(self, message: str, *, thread_id: str) -> None:
        super().__init__(message)
        self.thread_id = thread_id


class ForkDetected(LanggraphValkeyError):
    """Two writers continued the same thread apart; both branches are kept.

    Attributes:
        thread_id: The forked thread.
        checkpoint_ids: The heads of the branches, newest first.
    """

    def __init__(self, message: str, *, thread_id: str, checkpoint_ids: Sequence[str]) -> None:
        super().__init__(message)
        self.thread_id = thread_id
        self.checkpoint_ids = tuple(checkpoint_ids)


class ReplayIncomplete(LanggraphValkeyError):
    """Part of a thread was lost by the server and can't be restored from here.

    Attributes:
        thread_ids: The threads concerned.
    """

    def __init__(self, message: str, *, thread_ids: Sequence[str]) -> None:
        super().__init__(message)
        self.thread_ids = tuple(thread_ids)


class CommitConflict(LanggraphValkeyError):
    """The key was committed before, with another payload.

    Attributes:
        op: What was to be done.
        key: Its key.
    """

    def __init__(self, message: str, *, op: str, key: str) -> None:
        super().__init__(message)
        self.op = op
        self.key = key


class RunTakenOver(LanggraphValkeyError):
    """Another process has taken this run over, so this one may commit nothing more.

    Attributes:
        run_id: The run.
    """

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunInProgress(LanggraphValkeyError):
    """A run of the thread is under way.

    Attributes:
        thread_id: The thread.
        run_id: The run that is under way.
    """

    def __init__(self, message: str, *, thread_id: str, run_id: str) -> None:
        super().__init__(message)
        self.thread_id = thread_id
        self.run_id = run_id


class LockUnavailable(LanggraphValkeyError):
    """Another one holds the lock.

    Attributes:
        name: The lock's name.
    """

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class LockLost(LanggraphValkeyError):
    """The lock's time ran out before it was renewed.

    Attributes:
        name: The lock's name.
    """

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name
