"""How one try at one endpoint ended; the word every decision here starts from."""

from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """The end of a try. `SUCCESS` is any answer below 500, and a TCP connection that was made."""

    SUCCESS = "success"
    SERVER_ERROR = "server_error"  # an answer of 500..599
    CONNECT_REFUSED = "connect_refused"  # RST to our SYN: nobody listens there
    CONNECT_FAILED = "connect_failed"  # no connection in time, no route, or TLS said no
    RESET = "reset"  # the connection ended before the answer did
    TIMEOUT = "timeout"  # the per-try timeout ran out
    OVERLOADED = "overloaded"  # there or here something ran short before the workload was reached
    MOVED = "moved"  # ended by us, to be made elsewhere
    CANCELLED = "cancelled"  # our side stopped waiting


UNSENT: Final = (
    Outcome.CONNECT_REFUSED,
    Outcome.CONNECT_FAILED,
    Outcome.OVERLOADED,
    Outcome.MOVED,
)
"""The workload was not reached, or doing it twice is doing it once: any method may be tried again."""
NEUTRAL: Final = (Outcome.OVERLOADED, Outcome.MOVED, Outcome.CANCELLED)
"""What says nothing about the endpoint."""
FAILURES: Final = (
    Outcome.SERVER_ERROR,
    Outcome.CONNECT_REFUSED,
    Outcome.CONNECT_FAILED,
    Outcome.RESET,
    Outcome.TIMEOUT,
)
