"""Words about opening: what a node says of itself, what it keeps, and how one came to be open."""

from enum import StrEnum
from typing import Final

import msgspec

CLOSED: Final = "closed"  # among the features of a signed state: it answers no call yet
OPENED_BY_HAND: Final = "opened-by-hand"
OPENING: Final = "opening"  # this build knows these words
PEERS_MAX: Final = 3  # members that a joiner compares with, where there are as many
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
