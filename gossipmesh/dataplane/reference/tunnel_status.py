"""What a callee says of its workload before the first byte of a TCP connection (ALPN `gm-tcp/2`).

After the handshake the callee connects to its workload and sends one byte; the caller keeps its client's
bytes until it came, so that a connection nobody took can be made elsewhere. Codes not known are refusals.
"""

from enum import IntEnum
from typing import Final

from gossipmesh.traffic.outcomes import Outcome


class TunnelStatus(IntEnum):
    """The byte."""

    CONNECTED = 0
    REFUSED = 1  # no connection to the workload, or not in time
    GONE = 2  # the registration is not here any more
    DENIED = 3  # the caller may not; no other endpoint will say otherwise
    OVERLOADED = 4  # the callee lacks a place, descriptors or memory


_OUTCOMES: Final = {
    TunnelStatus.CONNECTED: (Outcome.SUCCESS, ""),
    TunnelStatus.REFUSED: (Outcome.CONNECT_REFUSED, "UF"),
    TunnelStatus.GONE: (Outcome.CONNECT_REFUSED, "UH"),
    TunnelStatus.DENIED: (Outcome.SUCCESS, "UAEX"),
    TunnelStatus.OVERLOADED: (Outcome.OVERLOADED, "UO"),
}


def read_status_untrusted(byte: int) -> TunnelStatus:
    """Return what a byte says; one this version does not know is a refusal."""
    try:
        return TunnelStatus(byte)
    except ValueError:
        return TunnelStatus.REFUSED


def meaning(status: TunnelStatus) -> tuple[Outcome, str]:
    """Return how a try that met this status ended, and its response flag."""
    return _OUTCOMES[status]
