"""What is told to the router as values, and concerns members and what this node signs.

Paper: none. Deviation: none.
"""

from typing import NamedTuple

from gossipmesh.gossip.membership.member import Member


class StateOutdated(NamedTuple):
    """What our state says of us is no longer so: it is to be signed anew."""


class PingsDue(NamedTuple):
    """Members that are to be pinged, because their sums tell whether they know more."""

    members: list[Member]
