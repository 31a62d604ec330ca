"""One member as this core holds it: beside what it signed, the claim that stands against it.

Paper: SWIM section 4.2. Deviation: see `gossip.membership.catalog`.
"""

from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import NodeCredential
from gossipmesh.testing.swim.claims import CLAIM, Claim


class SwimMember(Member):
    """Owned by the catalog. `claim` stands while `state` does not beat it; `held` waits to take effect."""

    __slots__ = ("claim", "held")

    def __init__(self, credential: NodeCredential, now: Instant) -> None:
        super().__init__(credential, now)
        self.claim: Claim | None = None
        self.held: Claim | None = None

    @property
    def opaque(self) -> list[int]:
        """Return of which unknown kinds there are records; a claim is none."""
        return [kind for kind in super().opaque if kind != CLAIM]

    @property
    def verdict_message(self) -> bytes | None:
        """Return the claim that stands against the member, encoded; None when none does."""
        return None if self.claim is None else self.messages.get(CLAIM)

    def settle(self) -> MemberStatus:
        """Return the status that the records held amount to."""
        signed = super().settle()
        if self.claim is None or signed is not MemberStatus.ALIVE:
            return signed
        return MemberStatus(self.claim.status)


def claimed(member: Member) -> SwimMember:
    """Return the same member: a catalog of this core holds no others."""
    assert isinstance(member, SwimMember)
    return member
