"""What the log says when this node's clock is held to be wrong, and when it is right again.

Ends at the words; when that is so is `gossip.base.civil_time`.
"""

import logging

from gossipmesh.agent.logs import fields
from gossipmesh.gossip.base.civil_time import PEERS_MIN
from gossipmesh.gossip.base.effects import ClockBelowRecords, ClockOff

log = logging.getLogger("gossipmesh.agent")


def tell_clock(event: ClockOff | ClockBelowRecords) -> None:
    """Write a line for what began, or ended."""
    if isinstance(event, ClockBelowRecords):
        _tell_records(event.by_s)
    elif event.by_s:
        _tell_peers(event.by_s, event.peers_count)
    else:
        log.info("this node's clock agrees with its peers' again", extra=fields(peers=event.peers_count))


def _tell_peers(by_s: int, peers_count: int) -> None:
    way = "behind" if by_s > 0 else "ahead of"
    if peers_count >= PEERS_MIN:
        text = (
            "this node's clock is %d s %s the median of %d peers: certificates are judged by civil time, and "
            "nobody is forgotten on its word alone; run NTP on this machine"
        )
    else:
        text = (
            "this node's clock is %d s %s what %d of its peers say, too few to tell whose is off: "
            "certificates are judged by civil time; run NTP on these machines"
        )
    log.error(text, abs(by_s), way, peers_count, extra=fields(skew_s=by_s, peers=peers_count))


def _tell_records(by_s: int) -> None:
    if by_s:
        text = (
            "this node's clock is %d s behind the newest date that the authority signed, which counts "
            "instead; run NTP on this machine"
        )
        log.error(text, by_s, extra=fields(below_s=by_s))
    else:
        log.info("this node's clock is past what the authority signed again")
