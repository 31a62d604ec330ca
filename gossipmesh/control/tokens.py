"""What may be asked of `token create`. Ends at the order; making the token is `control.issuing`'s."""

from collections.abc import Sequence
from dataclasses import dataclass

from gossipmesh.model.enrolment import (
    AUTHORITIES_MAX,
    PATTERNS_PER_NODE_MAX,
    TOKEN_TTL_MAX_S,
    is_service_pattern,
)
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.host_port import is_host_port, split_host_port
from gossipmesh.model.identity import is_label
from gossipmesh.model.member import Address


@dataclass(frozen=True)
class TokenOrder:
    """What `token create` was asked for; `services` are patterns, `more` are further HOST:PORT.

    `format` 1 is what agents of 0.2 read: one address, no pin of Trust.
    """

    address: Address | str
    node: str
    services: Sequence[str]
    ttl_s: int
    more: Sequence[str] = ()
    format: int = 2


def check_order(order: TokenOrder) -> None:
    """Check that a token can be made so.

    Raises:
        OperatorError: words that cannot be. State unchanged.
    """
    if not is_label(order.node):
        raise OperatorError(f"{order.node!r} cannot be a node's name; use a-z, 0-9 and '-', at most 63")
    for pattern in order.services:
        if not is_service_pattern(pattern):
            raise OperatorError(
                f"{pattern!r} is not a service; write it as shop/cart, shop/* or '*/*' (quoted)"
            )
    if len(order.services) > PATTERNS_PER_NODE_MAX:
        raise OperatorError(f"{len(order.services)} services in one token, {PATTERNS_PER_NODE_MAX} allowed")
    places = [str(order.address), *order.more]
    if not all(is_host_port(place) for place in places):
        raise OperatorError(f"{', '.join(places)}: not HOST:PORT, such as authority.example.com:8443")
    if len(places) > AUTHORITIES_MAX:
        raise OperatorError(f"{len(places)} addresses in one token, {AUTHORITIES_MAX} allowed")
    if order.format == 1 and (order.more or split_host_port(places[0]) is not None):
        raise OperatorError("a token of format 1 has one address and no name: agents of 0.2 read no other")
    if not 1 <= order.ttl_s <= TOKEN_TTL_MAX_S:
        raise OperatorError("a token lives between 1s and 168h; the default, 10m, is enough to copy it")
