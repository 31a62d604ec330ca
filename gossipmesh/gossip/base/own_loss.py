"""Whose datagrams are lost: judged here for the core, which tells of it, and for checks, which explain it.

Paper: none. Deviation: none.
"""

from typing import Final

from gossipmesh.model.instant import SECOND_NS

DATAGRAMS_QUIET_NS: Final = 5 * SECOND_NS  # of several members, each of whom tries twice a second
_MOST_MAX: Final = 8  # of many, a node finds out about its monitors, and whom it watches


def is_own_loss(tcp_only_count: int, others_count: int, *, is_quiet: bool) -> bool:
    """Tell whether it is this node's own datagrams that are lost, by how many members it reaches by TCP only.

    `is_quiet`: no datagram of anybody came lately.
    """
    return tcp_only_count > 0 and (is_quiet or tcp_only_count >= min(_MOST_MAX, others_count // 2 + 1))
