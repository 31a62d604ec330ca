"""What this room tells the router, as values: it calls nobody.

Paper: none. Deviation: none.
"""

from typing import NamedTuple

from gossipmesh.gossip.membership.catalog import Checks
from gossipmesh.gossip.sessions.session import Session
from gossipmesh.model.records import SignedRecord


class RecordArrived(NamedTuple):
    """A record came on a stream; `is_quiet`: what it says is news to nobody but ourselves."""

    session: Session
    record: SignedRecord
    checks: Checks
    is_quiet: bool


class ViewWhole(NamedTuple):
    """A comparison, or a first table, was gone through to its end: we once held all that a peer holds."""


class PolicyFetched(NamedTuple):
    """What came of fetching a scope's set; None: the stream failed."""

    member_id: bytes
    scope: str
    data: bytes | None


class TrustFetched(NamedTuple):
    """What came of fetching newer Trust; None: the stream failed."""

    member_id: bytes
    data: bytes | None
