"""What a callee says of its workload before the first byte of a TCP connection (ALPN `gm-tcp/2`).

After the handshake the callee connects to its workload and sends one byte; the caller keeps its client's
bytes until it came, so that a connection nobody took can be made elsewhere. Codes not known are refusals.
"""

from enum import IntEnum
from typing import Final

from gossipmesh.traffic import endings
from gossipmesh.traffic.endings import Ending


class TunnelStatus(IntEnum):
    """The byte."""

    CONNECTED = 0
    REFUSED = 1  # no connection to the workload, or not in time
    GONE = 2  # the registration is not here any more
    DENIED = 3  # the caller may not; no other endpoint will say otherwise
    OVERLOADED = 4  # the callee lacks a place, descriptors or memory


_ENDINGS: Final = {
    TunnelStatus.REFUSED: endings.WORKLOAD_REFUSED,
    TunnelStatus.GONE: endings.WORKLOAD_GONE,
    TunnelStatus.DENIED: endings.DENIED,
    TunnelStatus.OVERLOADED: endings.WORKLOAD_OVERLOADED,
}


def read_status_untrusted(byte: int) -> TunnelStatus:
    """Return what a byte says; one this version does not know is a refusal."""
    try:
        return TunnelStatus(byte)
    except ValueError:
        return TunnelStatus.REFUSED


def ending_of(status: TunnelStatus) -> Ending | None:
    """Return why a try that met this status ended; None: it did not, the workload is reached."""
    return _ENDINGS.get(status)


def status_of(ending: Ending) -> TunnelStatus:
    """Return what a callee says that did not reach its workload, and why it did not."""
    if ending is endings.DENIED:
        return TunnelStatus.DENIED
    if ending is endings.REGISTRATION_GONE:
        return TunnelStatus.GONE
    return TunnelStatus.OVERLOADED if ending.flag == "UO" else TunnelStatus.REFUSED
