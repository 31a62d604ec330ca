"""Which services a change of a member's entries touches."""

from typing import Any

import msgspec
import pytest

from gossipmesh.model.service import services_differing, services_of
from gossipmesh.testing.builders import service_entry

CART, PAY = service_entry("shop/cart"), service_entry("shop/pay", registration="pay")


def test_a_service_is_named_once() -> None:
    other = service_entry("shop/cart", registration="other")
    assert services_of((CART, other, PAY)) == ("shop/cart", "shop/pay")


@pytest.mark.parametrize(
    ("entries", "touched"),
    [
        ((CART, PAY), ()),
        ((CART,), ("shop/pay",)),
        ((CART, msgspec.structs.replace(PAY, weight=7)), ("shop/pay",)),
        ((CART, PAY, service_entry("shop/web", registration="web")), ("shop/web",)),
        ((msgspec.structs.replace(CART, registration="x"), PAY), ("shop/cart",)),
        ((), ("shop/cart", "shop/pay")),
    ],
)
def test_an_entry_touches_its_own_service(entries: tuple[Any, ...], touched: tuple[str, ...]) -> None:
    assert services_differing((CART, PAY), entries) == touched
    assert sorted(services_differing(entries, (CART, PAY))) == sorted(touched)
