"""The chaos scenarios on the simulator: the same files and checkers, virtual time."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.run import main
from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.scenario import Scenario, Step, can_be_simulated, load_scenario
from gossipmesh.testing.simulated import run_simulated

ALL = sorted(Path("chaos/scenarios").glob("*.toml"))
FILES = [path for path in ALL if can_be_simulated(load_scenario(path))]


def test_what_takes_real_processes_is_refused_in_a_sentence() -> None:
    refused = [path for path in ALL if path not in FILES]
    processes = ["agent-dead-30-hours", "authority-dead", "clock-skew", "cold-start", "copied-state"]
    processes += ["dead-twice", "enrolled-again", "forgotten", "isolated-caller", "leave-rejoin-all"]
    processes += ["mixed-version", "moved-address", "only-endpoint-drains", "rotate-with-tenth-offline"]
    processes += ["signers-off-30-days", "stolen-credential-key", "stolen-intermediate", "stolen-node-key"]
    processes += ["stolen-signer-key", "suspended-30-days", "tcp-only"]
    assert [path.stem for path in refused] == processes
    for path in refused:
        with pytest.raises(OperatorError, match="--backend process"):
            run_simulated(load_scenario(path), 1, lambda line: None)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_chaos_scenario_holds_in_virtual_time(path: Path) -> None:
    said: list[str] = []
    result = run_simulated(load_scenario(path), 3, said.append)
    wrong = [check for check in result["checks"] if not check["ok"]]
    assert wrong == []
    assert result["evidence"]["requests"] is None
    assert result["evidence"]["statuses"]
    assert said


def test_one_seed_is_one_story_and_says_what_it_did_not_check() -> None:
    results = []
    for seed in ("5", "5", "6"):
        ran = CliRunner().invoke(main, ["kill-one", "--backend", "sim", "--seed", seed, "--json"])
        assert ran.exit_code == 0, ran.output
        results.append(json.loads(ran.stdout.splitlines()[-1]))
    assert results[0] == results[1] != results[2]
    assert results[0]["skipped"] == ["anytime_requests_succeed", "anytime_endpoint_leaves_use"]
    assert results[0]["evidence"]["requests"] is None


def test_what_does_not_come_true_fails() -> None:
    wait = Step("await", until="victim-dead", within_s=2.0, name="dead")
    result = run_simulated(Scenario("never", "", (wait,), ()), 1, lambda line: None)
    assert not result["ok"]
    assert result["evidence"]["conditions"] == {"dead": None}
