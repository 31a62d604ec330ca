"""Members of the group: addresses, order, status.

Paper: SWIM section 4.2. Deviation: one total order (generation, epoch, sequence, status)
instead of SWIM's special case for confirm, so that merging is a maximum and every order of
arrival ends alike; `unattended` (the engine serves, the agent is gone) stands between
suspect and dead.
"""

import ipaddress
from enum import IntEnum
from typing import Any

import msgspec

from gossipmesh.model.errors import MalformedInput


class Address(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """A transport address; `host` is an IPv4 or IPv6 literal without brackets, never a name."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `1.2.3.4:80` or `[::1]:80`; IPv6 becomes its one short form, as the kernel tells it.

        Raises:
            MalformedInput: not a literal address with a port in 0..65535. State unchanged.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        try:
            literal = ipaddress.ip_address(host)
            number = int(port) if port.isascii() and port.isdigit() else -1
        except ValueError:
            raise MalformedInput(f"{text[:100]!r} is not ADDRESS:PORT, such as 10.0.0.1:7948") from None
        if not colon or not 0 <= number <= 65_535 or bracketed != (literal.version == 6):
            raise MalformedInput(f"{text[:100]!r} is not ADDRESS:PORT, such as 10.0.0.1:7948, [fd00::1]:7948")
        return cls(str(literal), number)

    def socket_address(self) -> Any:
        """Return the tuple the socket module wants for this address."""
        return (self.host, self.port)


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """When a record was signed, by its owner's own count; later is greater.

    `generation` is issued at enrolment, `epoch` raised and fsynced at each start, `sequence`
    raised at each change signed. (generation, epoch) is what SWIM calls incarnation.
    """

    generation: int
    epoch: int
    sequence: int


class MemberStatus(IntEnum):
    """What the group holds of a member, ordered: with equal `Order` the greater one wins."""

    ALIVE = 0
    SUSPECT = 1
    UNATTENDED = 2
    DEAD = 3
    LEFT = 4

    @property
    def label(self) -> str:
        """Return the word an operator reads."""
        return self.name.lower()


class NodePhase(IntEnum):
    """What a node says of itself."""

    SERVING = 0
    DRAINING = 1
    LEFT = 2
