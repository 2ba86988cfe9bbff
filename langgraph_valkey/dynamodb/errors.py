"""What DynamoDB refuses, and what went wrong on the way there, by what to do next.

A request that can't have been applied may be sent again as it is; so may one that was
perhaps applied, since each of ours is written so that a second one finds the first.
What is not transient ends in one of two ways: a condition did not hold (`Refused`,
`Cancelled`: only the caller knows what that means), or the set-up is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph_valkey.errors import ConfigurationError, OutcomeUnknown, Unreachable

READS = {"get_item", "batch_get_item", "query", "transact_get_items", "describe_table"}

_FAILED = "ConditionalCheckFailed"
_BUSY_REASONS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
_BUSY = {
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "ThrottlingException",
    "TransactionConflictException",
}
_UNDER_WAY = "TransactionInProgressException"
_ADVICE = {
    "ResourceNotFoundException": "this table, its index, or another one that a commit writes to is "
    "not there: call setup(), and look at their names and the region",
    "ValidationException": "the table is not of the form that setup() makes: give another name",
}
_ADVICE_ELSE = "allow it in IAM, and look at this process's credentials and region"


class Refused(Exception):
    """The condition of a single write does not hold.

    Attributes:
        old: The item as it stands, in typed form; empty if it is not there.
    """

    def __init__(self, old: dict[str, Any]) -> None:
        super().__init__()
        self.old = old


class Cancelled(Exception):
    """A transaction was cancelled, and would be again.

    Attributes:
        error: botocore's error.
        may_be_done: An answer was lost before, so what is in its way may be itself.
    """

    def __init__(self, error: Exception, reasons: list[Mapping[str, Any]]) -> None:
        super().__init__()
        self.error = error
        self.may_be_done = False
        self._reasons = reasons

    def failed(self, place: int | None) -> bool:
        """Whether the condition of the action at this place did not hold."""
        return place is not None and self._reasons[place].get("Code") == _FAILED

    def old(self, place: int) -> dict[str, Any]:
        """The item that this action found, in typed form; empty if there was none."""
        return dict(self._reasons[place].get("Item") or {})


def raised() -> tuple[type[Exception], ...]:
    """What botocore raises."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return BotoCoreError, ClientError, ResponseParserError


def failure_of(error: Exception, operation: str, table: str, *, sent_once: bool) -> Exception:
    """What an error of botocore means.

    Args:
        error: The error.
        operation: The client's method.
        table: The table's name.
        sent_once: Whether the client sends each request once only. One that tries again
            by itself tells of the last time, and nothing of those before.

    Returns:
        `Unreachable` or `OutcomeUnknown` if sending it again may help; `Refused`,
        `Cancelled` or `ConfigurationError` if not; the error itself if it is about what
        the caller gave.
    """
    from botocore import exceptions

    failed: Exception = error  # botocore's types are unknown to the checker, and narrow to none
    if isinstance(error, exceptions.ClientError):
        return _refusal(failed, operation, table)
    if isinstance(error, exceptions.ParamValidationError):
        return failed
    not_sent = (
        exceptions.EndpointConnectionError,
        exceptions.ConnectTimeoutError,
        exceptions.ProxyConnectionError,
        exceptions.SSLError,
    )
    is_broken = isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError)
    if isinstance(error, exceptions.BotoCoreError) and not is_broken:
        return ConfigurationError(
            f"DynamoDB could not be asked for {operation} ({type(error).__name__}): give this "
            "process a region and AWS credentials that allow it"
        )
    what = f"({type(error).__name__}, {operation}, table {table!r})"
    if operation in READS or (sent_once and isinstance(error, not_sent)):
        return Unreachable(f"DynamoDB can't be reached {what}: look at the network, call again")
    return _unknown(what)


def _unknown(what: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"DynamoDB gave no answer {what}: it may have been done; call again")


def _refusal(error: Exception, operation: str, table: str) -> Exception:
    response: Mapping[str, Any] = error.response  # type: ignore[attr-defined]
    code = str(response.get("Error", {}).get("Code", "?"))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    what = f"({code}, {operation}, table {table!r})"
    if code == "ConditionalCheckFailedException":
        return Refused(dict(response.get("Item") or {}))
    if code == "TransactionCanceledException":
        reasons = list(response.get("CancellationReasons") or ())
        if not _BUSY_REASONS & {reason.get("Code") for reason in reasons}:
            return Cancelled(error, reasons)
    elif code == _UNDER_WAY:
        return _unknown(what)
    elif code == "ValidationException" and operation == "transact_write_items":
        return error  # It is about the writes of a commit's function.
    elif status >= 500:
        return _unknown(what) if operation not in READS else _busy(what)
    elif code not in _BUSY:
        return ConfigurationError(
            f"DynamoDB refused {operation} on table {table!r} ({code}): "
            f"{_ADVICE.get(code, _ADVICE_ELSE)}"
        )
    return _busy(what)


def _busy(what: str) -> Unreachable:
    return Unreachable(
        f"DynamoDB is busy, or others change the same items {what}: nothing was done; call again"
    )
