"""What an engine of this node must have: a snapshot, identities, listeners; the same for each attached.

Ends at values; giving them to an engine is `engine_session`'s. The listeners' duplicates are owned here.
"""

import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import trio

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.traffic.sections import Snapshot


class WantedIdentities(NamedTuple):
    """What an engine is to show, and whom it is to believe."""

    identities: tuple[Identity, ...]
    bundle_pem: bytes
    carrier_root_pem: bytes

    def certified_only(self) -> "WantedIdentities":
        """Return what an engine takes that knows the authority's certificates alone."""
        certified = (one for one in self.identities if one.chain_pem)
        plain = tuple(Identity(one.spiffe_id, one.chain_pem, one.key_pem) for one in certified)
        return WantedIdentities(plain, self.bundle_pem, b"")


class Wanted:
    """What is wanted now; `changed` is another event after each change."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.taken_last: Snapshot | None = None
        """The last one that an engine took: for one that has nothing yet and refuses what is wanted."""
        self.identities: WantedIdentities | None = None
        self.listeners: dict[str, socket.socket] = {}
        self.given = trio.Event()
        """Set once it was said which listeners there are: nothing is pushed, and nothing started, before."""
        self.changed = trio.Event()

    def note(self) -> None:
        """Wake whoever brings an engine up to date."""
        self.changed.set()
        self.changed = trio.Event()

    def set_snapshot(self, snapshot: Snapshot) -> None:
        """Want another snapshot."""
        self.snapshot = snapshot
        self.note()

    def set_identities(
        self, identities: Sequence[Identity], bundle_pem: bytes, carrier_root_pem: bytes
    ) -> None:
        """Want exactly these identities and roots."""
        self.identities = WantedIdentities(tuple(identities), bundle_pem, carrier_root_pem)
        self.note()

    def set_listeners(self, listeners: Mapping[str, socket.socket]) -> None:
        """Want these, owned from now on by this; those no longer wanted are closed."""
        for name, sock in self.listeners.items():
            if listeners.get(name) is not sock:
                sock.close()
        self.listeners = dict(listeners)
        self.given.set()
        self.note()

    def close_listeners(self) -> None:
        """Close this agent's duplicates; engines keep theirs."""
        for name in list(self.listeners):
            self.listeners.pop(name).close()
