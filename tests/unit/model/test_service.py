"""Which services a change of a member's endpoints touches."""

from typing import Any

import msgspec
import pytest

from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.service import EndpointsDelta
from gossipmesh.testing.builders import node_endpoints, service_entry

CART, PAY = service_entry("shop/cart"), service_entry("shop/pay", registration="pay")
BEFORE = node_endpoints("n1", CART, PAY)


def test_what_comes_or_goes_touches_all_a_member_serves() -> None:
    assert EndpointsDelta(None, BEFORE).services == ["shop/cart", "shop/pay"]
    assert EndpointsDelta(BEFORE, None).services == ["shop/cart", "shop/pay"]
    assert EndpointsDelta(None, None).services == []


@pytest.mark.parametrize(
    "changes",
    [
        {"address": Address("10.0.0.9", 15008)},
        {"draining": True},
        {"status": MemberStatus.UNATTENDED},
        {"unreachable": True},
        {"retained": True},
        {"since": 7},
    ],
)
def test_what_they_share_touches_all_of_them(changes: dict[str, Any]) -> None:
    after = msgspec.structs.replace(BEFORE, **changes)
    assert EndpointsDelta(BEFORE, after).services == ["shop/cart", "shop/pay"]


@pytest.mark.parametrize(
    ("entries", "touched"),
    [
        ((CART, PAY), []),
        ((CART,), ["shop/pay"]),
        ((CART, msgspec.structs.replace(PAY, weight=7)), ["shop/pay"]),
        ((CART, PAY, service_entry("shop/web", registration="web")), ["shop/web"]),
        ((msgspec.structs.replace(CART, registration="x"), PAY), ["shop/cart"]),
        ((), ["shop/cart", "shop/pay"]),
    ],
)
def test_an_entry_touches_its_own_service(entries: tuple[Any, ...], touched: list[str]) -> None:
    assert EndpointsDelta(BEFORE, msgspec.structs.replace(BEFORE, entries=entries)).services == touched
