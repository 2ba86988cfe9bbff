"""Every wording GLIDE uses for a failure, in one table, and what it means to us.

GLIDE hands over a failure as text: the class is ``RequestError`` for nearly
everything, and known server codes are respelt (``CLUSTERDOWN`` arrives as ``An
error was signalled by the server: - ClusterDown: ...``, ``NOREPLICAS`` as
``NOREPLICAS: ...``). So wordings are matched here and nowhere else. The two
native faces use the same texts.

Only the *start* of a text is matched, where GLIDE puts its own words and the
server's code: what follows may quote a script's error and must not be able to
pass for an outage.

Three questions sort a failure: was it sent, was it applied, does a later try
help? A text that is not known was raised by the server or by a script on
purpose. It is passed on as `LanggraphValkeyError`, cut to its code and its
first words, with anything quoted left out.
"""

from __future__ import annotations

import re
from enum import Enum

from glide_shared.exceptions import (
    ClosingError,
    GlideError,
)
from glide_shared.exceptions import ConfigurationError as GlideConfigurationError
from glide_shared.exceptions import ConnectionError as GlideConnectionError
from glide_shared.exceptions import TimeoutError as GlideTimeoutError

from langgraph_valkey.errors import (
    ConfigurationError,
    LanggraphValkeyError,
    OutcomeUnknown,
    StoreFull,
    Unreachable,
    WriteRejected,
)


class Kind(Enum):
    """What a failure means for the call."""

    NO_SCRIPT = "the server does not know the script yet"
    REFUSED = "the server answered that it can't serve this now"
    NOT_SENT = "no server could be asked"
    BROKEN = "the connection broke after the call was sent"
    TIMED_OUT = "no answer came in time"
    MOVED = "the client asks the wrong node, and does not find the right one"
    STALE = "this node is a replica now"
    FULL = "the server is out of memory"
    SETUP = "the set-up is wrong"
    OTHER = "something else"


_SIGNALLED = "An error was signalled by the server: - "

_WORDINGS: tuple[tuple[str, Kind], ...] = (
    # The server's codes, as GLIDE spells them.
    ("NoScriptError:", Kind.NO_SCRIPT),
    ("ClusterDown:", Kind.REFUSED),
    ("TryAgain:", Kind.REFUSED),
    ("BusyLoadingError:", Kind.REFUSED),
    ("MasterDown:", Kind.REFUSED),
    ("Moved:", Kind.MOVED),
    ("Ask:", Kind.REFUSED),
    ("NOREPLICAS:", Kind.REFUSED),
    ("MISCONF:", Kind.REFUSED),
    ("BUSY:", Kind.REFUSED),
    ("ReadOnly:", Kind.STALE),
    ("OOM:", Kind.FULL),
    ("NOAUTH:", Kind.SETUP),
    ("WRONGPASS:", Kind.SETUP),
    ("NOPROTO:", Kind.SETUP),
    ("DENIED:", Kind.SETUP),
    ("PermissionDenied:", Kind.SETUP),
    ("CrossSlot:", Kind.SETUP),
    # The same codes unspelt, as they arrive from inside nested errors.
    ("NOSCRIPT", Kind.NO_SCRIPT),
    ("CLUSTERDOWN", Kind.REFUSED),
    ("TRYAGAIN", Kind.REFUSED),
    ("LOADING", Kind.REFUSED),
    ("MASTERDOWN", Kind.REFUSED),
    ("READONLY", Kind.STALE),
    ("NOPERM", Kind.SETUP),
    # GLIDE's own words.
    ("IAM authentication error", Kind.SETUP),
    ("Failed to create initial connections", Kind.NOT_SENT),
    ("Standalone connect failed", Kind.NOT_SENT),
    ("Received error for address", Kind.NOT_SENT),
    ("Connection in recovery", Kind.NOT_SENT),
    ("ClientError: Connection in recovery", Kind.NOT_SENT),
    ("Reached maximum inflight requests", Kind.NOT_SENT),
    ("All connections are unavailable", Kind.NOT_SENT),
    ("ConnectionNotFoundForRoute", Kind.NOT_SENT),
    ("Unable to execute requests; the client is closed", Kind.NOT_SENT),
    ("Client is closed", Kind.NOT_SENT),
    ("Cannot use a client created before fork", Kind.NOT_SENT),
    ("BrokenPipe", Kind.BROKEN),
    ("FatalReceiveError", Kind.BROKEN),
    ("FatalSendError", Kind.BROKEN),
    ("ParseError", Kind.BROKEN),
    ("IoError", Kind.BROKEN),
    ("timed out", Kind.TIMED_OUT),
)

_CONNECTING = frozenset({Kind.NOT_SENT, Kind.BROKEN})
_SETUP_INSIDE = re.compile(r"WRONGPASS|NOAUTH|NOPERM|AuthenticationFailed|InvalidClientConfig")
_TLS_INSIDE = re.compile(r"certificate|InvalidCertificate|UnknownIssuer|tls handshake", re.I)
_REASON = re.compile(
    r"Connection refused|timed out|failed to lookup address|unexpectedly terminated|"
    r"Connection in recovery|maximum inflight|client is closed"
)
_ADDRESS = re.compile(r"(?:ReadyToDialAddress\(\"|address `)([^\"`]+)[\"`]")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|\{[^}]*\}|\([^)]*\)")
_TEXT_MOST = 120


def kind_of(error: BaseException) -> Kind:
    """Sort a failure by its class and its first words."""
    text = str(error).removeprefix(_SIGNALLED)
    found = Kind.OTHER
    for wording, kind in _WORDINGS:
        if text.startswith(wording):
            found = kind
            break
    else:
        if isinstance(error, GlideTimeoutError):
            found = Kind.TIMED_OUT
        elif isinstance(error, GlideConnectionError | ClosingError):
            found = Kind.BROKEN
        elif isinstance(error, GlideConfigurationError):
            found = Kind.SETUP
    if found in _CONNECTING and (_SETUP_INSIDE.search(text) or _TLS_INSIDE.search(text)):
        # Refused while connecting: trying again can't help.
        return Kind.SETUP
    return found


def translate(error: BaseException, *, writes: bool) -> Exception:
    """Make our error of what GLIDE raised; GLIDE's becomes its cause.

    Args:
        error: What GLIDE raised, or returned in a batch's list.
        writes: Whether the call may have changed data.

    Returns:
        The error to raise. One that is no failure of GLIDE's at all (a
        programming error, say) is returned as it is.
    """
    if not isinstance(error, GlideError):
        assert isinstance(error, Exception)
        return error
    kind = kind_of(error)
    ours = _error_of(kind, error, writes=writes)
    ours.__cause__ = error
    return ours


def _error_of(kind: Kind, error: GlideError, *, writes: bool) -> LanggraphValkeyError:
    code = _code_of(error)
    if kind in {Kind.REFUSED, Kind.MOVED, Kind.STALE}:
        if writes:
            return WriteRejected(
                f"the server refused the write ({code}); nothing was applied: call again later"
            )
        return Unreachable(f"the server can't answer now ({code}): call again later")
    if kind is Kind.NOT_SENT:
        return Unreachable(
            f"no server could be reached{_reason_of(str(error))}; nothing was applied: check that "
            "the server runs, that the address is right, and that both sides or neither use TLS, "
            "then call again"
        )
    if kind in {Kind.BROKEN, Kind.TIMED_OUT}:
        what = "no answer came in time" if kind is Kind.TIMED_OUT else "the connection broke"
        if writes:
            return OutcomeUnknown(
                f"{what} after the write was sent; it may have been applied: call again, which "
                "is safe"
            )
        return Unreachable(f"{what}; nothing was changed: call again")
    if kind is Kind.FULL:
        return StoreFull(
            "the server is out of memory and refuses writes; delete or prune threads, or raise "
            "maxmemory"
        )
    if kind is Kind.SETUP:
        return ConfigurationError(_setup_text(code, str(error)))
    return LanggraphValkeyError(f"the server answered with an error: {code}{_words_of(error)}")


def _reason_of(text: str) -> str:
    """Where and why a connection could not be made, as far as GLIDE tells."""
    address, reason = _ADDRESS.search(text), _REASON.search(text)
    where = f" at {address.group(1)}" if address else ""
    return where + (f" ({reason.group().lower()})" if reason else "")


def _setup_text(code: str, text: str) -> str:
    if _TLS_INSIDE.search(text):
        return (
            "the server's TLS certificate is not accepted; name its authority with tls_ca_file, "
            "or check the host name"
        )
    if code == "IAM":
        return (
            "signing in with IAM failed: AWS credentials must be available to this process (from "
            "its environment, its profile or its role)"
        )
    inside = _SETUP_INSIDE.search(text)
    code = inside.group() if inside else code
    if code == "CrossSlot":
        return "the keys of one call lie in several hash slots: the key prefix must not hold { or }"
    return (
        f"the server does not let this user do this ({code}); check user name, password and the "
        "user's ACL (it needs scripts, scan, info and the keys of this prefix)"
    )


def _code_of(error: GlideError) -> str:
    """The first word of the text, where GLIDE and the server put the code."""
    text = str(error).removeprefix(_SIGNALLED)
    code = re.match(r"[A-Za-z]{1,40}", text)
    return code.group() if code else type(error).__name__


def _words_of(error: GlideError) -> str:
    """What follows the code, without anything quoted and cut short."""
    text = str(error).removeprefix(_SIGNALLED)
    _, colon, words = text.partition(":")
    if not colon:
        return ""
    return ":" + _QUOTED.sub("...", words.splitlines()[0] if words else "")[:_TEXT_MOST]
