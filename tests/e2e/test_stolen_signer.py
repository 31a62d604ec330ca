"""A policy signer's key is stolen, the scope is shut for good, and one command undoes it: real processes."""

from tests.e2e.chaos_runs import SCENARIOS, run_chaos, wrong


def test_a_stolen_signer_is_undone_by_one_command() -> None:
    told = run_chaos(SCENARIOS / "stolen-signer-key.toml", seed=1)
    assert not wrong(told), told["logs"]
    assert told["measures"]["plays_s"]["steal-signer"].keys() == {"planted_s", "undone_s"}
