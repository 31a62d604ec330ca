"""News of the machine's addresses: the kernel tells when one comes or goes.

Ends at "something changed": what is there now is asked by who is told (`has_address`). Rules:
1. News comes in bursts: who waits is told once, after a moment without more of it, and not for ever later.
2. Where the kernel tells nothing (a sandbox without AF_NETLINK), `is_told` is false: whoever waits polls.
3. Only the kernel's own messages count, and what was lost for want of room is news as well.
Spec: rtnetlink(7). Deviation: no message is read; which addresses there are is asked by binding and routing.
"""

import errno
import socket
from typing import Final

import trio

from gossipmesh.model.member import Address

_GROUP_IPV4_ADDRESSES: Final = 0x10  # linux/rtnetlink.h, RTMGRP_IPV4_IFADDR
_GROUP_IPV6_ADDRESSES: Final = 0x100  # RTMGRP_IPV6_IFADDR
_MESSAGE_BYTES: Final = 8_192
_MESSAGES_PER_READ_MAX: Final = 256
_KERNEL: Final = 0  # the port id it sends from
_SETTLE_S: Final = 0.05
_SETTLE_S_MAX: Final = 0.5


class AddressNews:
    """One subscription; `why_not` is None, or the kernel's reason for telling nothing."""

    def __init__(self) -> None:
        self.why_not: str | None = None
        self._socket: socket.socket | None = None
        try:
            self._socket = _subscribe()
        except (OSError, AttributeError) as error:  # AttributeError: no Linux, so no such family
            self.why_not = str(error)

    @property
    def is_told(self) -> bool:
        """Tell whether the kernel tells."""
        return self._socket is not None

    async def wait(self, at_most_s: float) -> None:
        """Return once something changed, or after so many seconds."""
        if self._socket is None:
            await trio.sleep(at_most_s)
            return
        with trio.move_on_after(at_most_s):
            while not self._read(self._socket):
                await trio.lowlevel.wait_readable(self._socket)
        await self._settle(self._socket)

    async def _settle(self, told: socket.socket) -> None:
        """Wait until no more comes for a moment: a change of address is several messages."""
        with trio.move_on_after(_SETTLE_S_MAX):
            is_quiet = False
            while not is_quiet:
                with trio.move_on_after(_SETTLE_S) as moment:
                    await trio.lowlevel.wait_readable(told)
                is_quiet = moment.cancelled_caught
                self._read(told)

    def _read(self, told: socket.socket) -> bool:
        """Empty the socket; tell whether there was news."""
        is_news = False
        for _ in range(_MESSAGES_PER_READ_MAX):
            try:
                _, (port_id, _) = told.recvfrom(_MESSAGE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                port_id = _KERNEL
            is_news = is_news or port_id == _KERNEL
        return is_news

    def close(self) -> None:
        """End the subscription."""
        if self._socket is not None:
            self._socket.close()


def _subscribe() -> socket.socket:
    """Return a socket that the kernel tells of addresses.

    Raises:
        OSError: the kernel, or a sandbox, does not allow it. State: nothing is left open.
    """
    told = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        told.setblocking(False)
        told.bind((0, _GROUP_IPV4_ADDRESSES | _GROUP_IPV6_ADDRESSES))
    except OSError:
        told.close()
        raise
    return told


def has_address(host: str) -> bool:
    """Tell whether a socket could be bound to `host`; whatever else may be wrong is found by binding."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            trial.bind(Address(host, 0).socket_address())
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True
