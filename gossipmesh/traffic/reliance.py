"""How far the endpoints of a member are relied upon, by what gossip holds of it and for how long.

A status is a fact the group signed; what it is worth to a caller each node decides here for itself. Rules:
1. Alive is relied upon; dead and left are not, and their endpoints are not listed.
2. Unattended (the engine serves, nobody looks after it) is relied upon at half weight for ten minutes: long
   enough for a restart or a person. After that its health is hearsay and its rules may be old: it is the last
   resort.
3. The last resort is what a suspect is: used when nobody else is left, so that no service ends for want of an
   agent. So are a member that only we do not reach, and one that died with many others and is held.
"""

from typing import Final

from gossipmesh.model.instant import NEVER, SECOND_NS, Instant, after
from gossipmesh.model.member import MemberStatus

UNATTENDED_NS_MAX: Final = 600 * SECOND_NS  # docs/adr/0009 says why nothing is removed then

LAST_RESORT: Final = MemberStatus.SUSPECT
"""The status an endpoint of the last resort is compiled as."""


def reliance(
    status: MemberStatus, since: Instant, now: Instant, *, unreachable: bool, held: bool
) -> MemberStatus:
    """Return the status a member's endpoints are compiled as.

    Args:
        status: what the group holds of it.
        since: when this node came to hold it so; a start of this node is one.
        now: not before `since`.
        unreachable: this node alone does not hear it.
        held: it died with many others, and its endpoints are kept.
    """
    if status is MemberStatus.DEAD:
        return LAST_RESORT if held else status
    if status is MemberStatus.UNATTENDED:
        return LAST_RESORT if now >= changes_at(status, since) else status
    if status is MemberStatus.ALIVE and unreachable:
        return LAST_RESORT
    return status


def changes_at(status: MemberStatus, since: Instant) -> Instant:
    """Return when `reliance` changes by the passing of time alone, `NEVER` when it does not."""
    return after(since, UNATTENDED_NS_MAX) if status is MemberStatus.UNATTENDED else NEVER
