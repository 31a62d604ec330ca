"""Clock and entropy."""

from gossipmesh.model.instant import SECOND_NS
from gossipmesh.net import clock, entropy


def test_wall_time_is_monotonic_time_and_an_offset() -> None:
    offset_s = clock.wall_offset_s()
    assert abs(clock.monotonic() // SECOND_NS + offset_s - clock.wall_seconds()) <= 2


def test_monotonic_does_not_go_back() -> None:
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)


def test_generators_differ_from_start_to_start() -> None:
    assert entropy.seeded_random().getrandbits(64) != entropy.seeded_random().getrandbits(64)
    assert len(entropy.random_bytes(32)) == 32
