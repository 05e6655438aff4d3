"""Why a request is not answered with a result, in terms that no transport owns."""

from enum import Enum
from reprlib import Repr

_short = Repr()
_short.maxstring = _short.maxother = 60


class Reason(Enum):
    """The kinds of refusal; the value is the ``outcome`` label of metrics and log."""

    INVALID = "invalid"
    """The request itself is wrong."""
    NOT_FOUND = "not_found"
    """No such model, version, output or path."""
    UNSUPPORTED = "unsupported"
    """Something of the protocol that this server does not do."""
    ENCODING = "encoding"
    """The body is compressed in a way that is not known here."""
    TOO_LARGE = "too_large"
    """The body has more bytes than is allowed."""
    SLOW = "slow_body"
    """The body did not arrive in time."""
    OVERLOADED = "overloaded"
    """As many requests wait as may wait."""
    STOPPING = "stopping"
    """The server is shutting down."""
    DEADLINE = "deadline"
    """The answer would have come too late. Not the client's fault, nor that of its request."""


class RefusalError(Exception):
    """A request that gets no result, with the text that its client is told."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_logged = False


def invalid(message: str) -> RefusalError:
    """Return the refusal of a request that is wrong."""
    return RefusalError(Reason.INVALID, message)


def quoted(value: object) -> str:
    """Return what a client sent, shortened, fit for an error message."""
    return _short.repr(value)
