"""Words about opening: what a node says of itself and keeps, how it came to be open, with what it begins."""

from enum import StrEnum
from typing import Final

import msgspec

from gossipmesh.model.instant import WallSeconds

CLOSED: Final = "closed"  # among the features of a signed state: it answers no call yet
OPENED_BY_HAND: Final = "opened-by-hand"
PEERS_MAX: Final = 3  # members that a joiner compares with, where there are as many
FOUNDER_S: Final = 600  # for so long after its enrolment a founder may come to serve
PEERS_UNKNOWN: Final = PEERS_MAX  # where nobody said how many are enrolled


class HowOpened(StrEnum):
    """What a node was opened by."""

    FOUNDER = "founder"
    ALONE = "alone"
    BY_PEERS = "by peers"
    BY_FEWER = "by fewer"
    BY_HAND = "by hand"
    AS_BEFORE = "as before"  # state of a build that knew no opening


class Enrolled(msgspec.Struct, frozen=True):
    """What an authority says to a node that it enrols: how many nodes there are now, and whether none serves.

    None: an authority of a build that knows no opening.
    """

    enrolled_count: int | None = None
    is_founder: bool | None = None


class KeptOpening(msgspec.Struct, frozen=True, array_like=True):
    """What stands on the disk: `how` it was confirmed, empty before that; then what the authority told.

    `enrolled_at` is when it did, in wall seconds.
    """

    how: str
    enrolled_count: int = 0
    is_founder: bool = False
    enrolled_at: int = 0


class Unconfirmed(msgspec.Struct, frozen=True):
    """What is known at the start of a node that has confirmed nothing: see `dissemination.opening`.

    `enrolled_count` nodes are enrolled, itself among them, 0 for unknown; `is_founder`: none of them serves.
    """

    enrolled_count: int = 0
    is_founder: bool = False


def unconfirmed_at_start(
    kept_value: KeptOpening | None,
    enrolled: Enrolled | None,
    now: WallSeconds,
    *,
    has_run: bool,
    is_damaged: bool,
) -> Unconfirmed | None:
    """Return what a node begins with; None: what is on its disk is confirmed, so it is open.

    State without a word about it is of a build that had none, and counts; so does that of a node enrolled by
    an authority that had none. What is left of a damaged disk may be older than what was confirmed. What the
    authority told holds for a while: then another has founded the mesh, and more nodes are enrolled.

    Args:
        kept_value: what stands on the disk.
        enrolled: what the authority said at this very start; None: it was enrolled before.
        has_run: its epoch is on the disk.
        is_damaged: something that was on the disk is not there any more.
    """
    told = kept_value or KeptOpening("")
    if is_damaged:
        return Unconfirmed()
    if told.how or (kept_value is None and has_run):
        return None
    if enrolled is not None:
        if enrolled.enrolled_count is None:
            return None
        return Unconfirmed(enrolled.enrolled_count, bool(enrolled.is_founder))
    is_recent = 0 <= now - told.enrolled_at <= FOUNDER_S
    return Unconfirmed(told.enrolled_count, told.is_founder) if is_recent else Unconfirmed()
