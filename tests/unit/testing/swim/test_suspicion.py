"""How long a suspicion runs."""

from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Order
from gossipmesh.testing.swim.settings import LAN
from gossipmesh.testing.swim.suspicion import Suspicion, suspicion_min_ns, suspicion_timeout_ns


def test_suspicion_shortens_with_each_confirmation_down_to_its_least() -> None:
    timeouts = [suspicion_timeout_ns(LAN, 10, confirmations) for confirmations in range(4)]
    assert timeouts[0] == 24 * SECOND_NS
    assert timeouts[3] == suspicion_min_ns(LAN, 10) == 4 * SECOND_NS
    assert timeouts == sorted(timeouts, reverse=True)


def test_with_nobody_to_confirm_suspicion_is_as_short_as_it_gets() -> None:
    assert suspicion_timeout_ns(LAN, 2, 0) == suspicion_min_ns(LAN, 2)


def test_an_accuser_counts_once() -> None:
    suspicion = Suspicion(Order(1, 1, 1), b"a", Instant(0))
    assert [suspicion.confirm(name) for name in (b"a", b"b", b"b", b"c", b"d", b"e")] == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]
