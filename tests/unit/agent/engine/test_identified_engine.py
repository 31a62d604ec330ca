"""Which of this node's services have a key that its engine shows, or is about to."""

from types import SimpleNamespace
from typing import Any

import pytest

from gossipmesh.agent.engine.identified_engine import IdentifiedEngine

CART = "spiffe://mesh.test/ns/shop/svc/cart"


def engine(*, usable: tuple[str, ...], shown: tuple[str, ...]) -> IdentifiedEngine:
    """Return an engine whose node may use keys of some names, and which has confirmed others."""
    made: Any = IdentifiedEngine.__new__(IdentifiedEngine)
    made._keeper = SimpleNamespace(
        identity=SimpleNamespace(trust_domain="mesh.test"),
        keys=SimpleNamespace(usable=lambda: dict.fromkeys(usable)),
    )
    made.supervisor = SimpleNamespace(shown=tuple(SimpleNamespace(spiffe_id=name) for name in shown))
    found: IdentifiedEngine = made
    return found


@pytest.mark.parametrize(
    ("usable", "shown", "has", "is_due"),
    [
        ((), (), False, False),
        ((CART,), (), False, True),
        ((CART,), (CART,), True, False),
        ((), (CART,), True, False),
    ],
)
def test_a_key_in_use_is_due_until_the_engine_has_confirmed_it(
    usable: tuple[str, ...], shown: tuple[str, ...], has: bool, is_due: bool
) -> None:
    made = engine(usable=usable, shown=shown)
    assert made.service_has_identity("shop/cart") is has
    assert made.service_identity_is_due("shop/cart") is is_due
