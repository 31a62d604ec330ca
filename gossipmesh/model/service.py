"""Services as their nodes publish them.

Endpoint health comes from the owner's checks and is never mixed with member status.
"""

from enum import IntEnum, StrEnum

import msgspec


class Protocol(StrEnum):
    """What a workload speaks; `http` is HTTP/1.1."""

    HTTP = "http"
    TCP = "tcp"


class EndpointHealth(IntEnum):
    """What the owner's checks say of a workload."""

    UNKNOWN = 0
    PASSING = 1
    FAILING = 2

    @property
    def label(self) -> str:
        """Return the word an operator reads."""
        return self.name.lower()


class ServiceEntry(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=False):
    """One registration as gossip carries it, inside its owner's `ServiceSet`.

    `registration` is unique on its node and is a DNS label; `service` is `namespace/name`;
    `labels` are sorted by key, no key twice; `weight` is 1..65535, 100 by default.
    """

    registration: str
    service: str
    protocol: str
    health: int
    draining: bool
    weight: int
    labels: tuple[tuple[str, str], ...]
