"""Host names to addresses, by the system's resolver, off the loop.

The resolver blocks for as long as it likes. So it runs in threads, as many at once as the caller's limiter
has places; one that is given up keeps its place until the resolver lets go of it.
"""

import ipaddress
import socket
from typing import Final

import trio

from gossipmesh.model.member import Address

IPV4: Final = int(socket.AF_INET)
IPV6: Final = int(socket.AF_INET6)
ANY_FAMILY: Final = int(socket.AF_UNSPEC)


async def resolve(
    host: str, port: int, family: int, limiter: trio.CapacityLimiter, timeout_s: float
) -> list[Address]:
    """Return the addresses of a host name, in the resolver's order, no duplicates, at least one.

    Addresses nobody can be reached at (0.0.0.0, ::, multicast) are left out: filtering resolvers tell such.

    Raises:
        OSError: the name does not resolve, to nothing usable, or not in time; `strerror` is the reason.
    """
    try:
        with trio.fail_after(timeout_s):
            told = await trio.to_thread.run_sync(
                lambda: socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM),
                abandon_on_cancel=True,
                limiter=limiter,
            )
    except trio.TooSlowError:
        raise OSError(0, f"no answer within {timeout_s:g} s") from None
    except (UnicodeError, RuntimeError) as error:  # no host name after all, or no thread is to be had
        raise OSError(0, str(error)) from None
    literals = [ipaddress.ip_address(entry[4][0]) for entry in told]
    usable = [str(literal) for literal in literals if not (literal.is_unspecified or literal.is_multicast)]
    if not usable:
        raise OSError(0, f"only addresses nobody can be reached at: {', '.join(map(str, literals))}")
    return [Address(text, port) for text in dict.fromkeys(usable)]
