"""A leak is told from noise, a step at the start from growth, and nothing from too little."""

import random

import pytest

from gossipmesh.testing.growth import SAMPLES_MIN, growth_of

Samples = list[tuple[float, float]]


def samples(per_minute: float, noise: float, minutes: int = 20, seed: int = 1) -> Samples:
    """Return a sample every five seconds of a figure that grows and shakes."""
    rng = random.Random(seed)
    return [(at_s, 40 + per_minute * at_s / 60 + rng.gauss(0, noise)) for at_s in range(0, minutes * 60, 5)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("noise", [0.0, 0.2, 2.0])
def test_noise_alone_is_flat(noise: float, seed: int) -> None:
    assert growth_of(samples(0.0, noise, seed=seed), step=1.0).is_flat


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("per_minute", "noise"), [(0.2, 0.0), (0.2, 0.3), (1.0, 2.0)])
def test_a_leak_is_not_flat(per_minute: float, noise: float, seed: int) -> None:
    seen = growth_of(samples(per_minute, noise, seed=seed), step=1.0)
    assert not seen.is_flat
    assert seen.slope_per_min == pytest.approx(per_minute, abs=0.2)


def test_what_rises_in_the_first_half_and_stays_is_flat() -> None:
    assert growth_of([(float(at), min(at, 300) / 10) for at in range(0, 1_000, 5)], step=1.0).is_flat


def test_a_few_outliers_bend_nothing() -> None:
    shaken = [(at_s, value + 100 * (at_s % 200 == 0)) for at_s, value in samples(0.0, 0.1)]
    assert growth_of(shaken, step=1.0).is_flat


@pytest.mark.parametrize("count", [0, 1, 2, SAMPLES_MIN])
def test_too_few_samples_tell_nothing(count: int) -> None:
    assert not growth_of([(float(at), 1.0) for at in range(count)], step=1.0).is_flat
