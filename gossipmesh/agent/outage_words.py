"""What the log says when this node is cut off, or so many members went that they are not let go.

Ends at the words; what is found, and when, is `gossip.failure`'s.
"""

import logging

from gossipmesh.agent.logs import fields
from gossipmesh.gossip.base.effects import EndpointsRetained, Isolated

log = logging.getLogger("gossipmesh.agent")


def tell_outage(event: Isolated | EndpointsRetained) -> None:
    """Write a line for what began, or ended."""
    if isinstance(event, EndpointsRetained):
        text = (
            "many members went within a minute: their endpoints are kept for an hour; look at the "
            "network of this node, and when they are really gone, run `gossipmesh release` here"
        )
        log.error(text, extra=fields(members=event.gone_count))
    elif event.is_isolated:
        text = (
            "isolated: this node hears nobody and nobody answers it, so its own network is cut; look "
            "at its addresses, routes and firewall; other nodes' endpoints are the last resort now"
        )
        log.error(text)
    else:
        log.warning("not isolated any more: another node was heard")
