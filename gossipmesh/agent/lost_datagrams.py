"""What the log says when something drops UDP: between a member and this node, or of this node itself.

Ends at the words; what is found, and when, is `gossip.failure.ways`.
"""

import logging

from gossipmesh.agent.logs import fields
from gossipmesh.gossip.base.effects import DatagramsLost, WayChanged
from gossipmesh.model.member import Address

log = logging.getLogger("gossipmesh.agent")


def tell_datagrams(event: WayChanged | DatagramsLost, bind: Address) -> None:
    """Write a line for what began, or ended; `bind` is this node's own gossip address."""
    if isinstance(event, WayChanged):
        if event.is_tcp_only:
            text = (
                "member is reached by TCP only: something drops UDP between it and this node; its packets "
                "go by stream meanwhile"
            )
            log.warning(text, extra=fields(member=event.name))
        else:
            log.info("datagrams pass again", extra=fields(member=event.name))
    elif event.is_so:
        text = (
            "this node is reached by TCP only: its UDP is dropped; see that UDP of %s passes both ways: "
            "firewalls, security groups, NAT, routes"
        )
        log.error(text, bind)
    else:
        log.info("this node is reached by UDP again")
