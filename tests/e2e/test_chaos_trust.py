"""Chaos scenarios of keys, dates and builds, as they are shipped: minutes each."""

import pytest

from tests.e2e.chaos_runs import SCENARIOS, run_chaos, wrong

pytestmark = pytest.mark.long


def test_who_is_away_over_whole_rotations_comes_back_whole() -> None:
    told = run_chaos(SCENARIOS / "rotate-with-tenth-offline.toml", seed=1)
    assert not wrong(told), told["logs"]
    assert told["measures"]["plays_s"].keys() == {"rotate-intermediate", "rotate-root"}


def test_a_stolen_credential_key_is_replaced_and_nobody_notices() -> None:
    told = run_chaos(SCENARIOS / "stolen-credential-key.toml", seed=1)
    assert not wrong(told), told["logs"]
    assert told["measures"]["plays_s"]["steal-credential-key"].keys() == {"command_s", "roll_s", "back_s"}


@pytest.mark.programs("faketime")
@pytest.mark.parametrize("name", ["clock-skew", "signers-off-30-days", "suspended-30-days"])
def test_dates_that_are_off_cost_nobody_anything(name: str) -> None:
    told = run_chaos(SCENARIOS / f"{name}.toml", seed=1)
    assert not wrong(told), told["logs"]


@pytest.mark.history
def test_a_mesh_of_two_builds_is_upgraded_under_load() -> None:
    told = run_chaos(SCENARIOS / "mixed-version.toml", seed=1)
    assert not wrong(told), told["logs"]
