"""Scenario files: the shipped ones are whole, and a mistake in one is a sentence."""

import inspect
from pathlib import Path

import pytest

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.checkers import CHECKERS
from gossipmesh.testing.scenario import Scenario, Step, faults_expected, load_scenario

SCENARIOS = Path(__file__).resolve().parents[3] / "chaos" / "scenarios"

GOOD = """
name = "x"
about = "y"
[[steps]]
do = "kill"
targets = ["agent"]
[[checks]]
check = "finally_all_alive"
"""


def test_the_shipped_scenarios_are_the_promised_ones() -> None:
    promised = {"kill-one", "kill-agent", "kill-engine", "pause", "partition-heal", "racing-pushes"}
    promised |= {"upgrade-all", "crash-all-agents", "leave-rejoin-all", "isolated-caller"}
    promised |= {"moved-address", "tcp-only", "dead-twice"}
    promised |= {"only-endpoint-drains", "workload-stopped", "workload-dead-post"}
    assert promised <= {path.stem for path in SCENARIOS.glob("*.toml")}


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_scenario_names_real_checkers_with_their_parameters(path: Path) -> None:
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    assert scenario.checks
    for check in scenario.checks:
        # A bound that no checker takes would be a bound nobody checks.
        inspect.signature(CHECKERS[check.check]).bind(None, **check.params)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace('"kill"', '"krill"'), "no step"),
        (GOOD.replace('"agent"', '"agents"'), "no target"),
        (GOOD.replace("about", "abuot"), "abuot"),
        (GOOD.replace('do = "kill"', 'do = "await"'), "`within_s`"),
        (GOOD.replace('do = "kill"', 'do = "upgrade"'), "`within_s`"),
        ("name = ", "not a scenario"),
    ],
)
def test_a_mistake_in_a_scenario_is_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(OperatorError, match=said):
        load_scenario(path)


def test_a_fault_everywhere_must_fire_on_every_node() -> None:
    steps = (Step("kill", targets=("agent",)), Step("load"), Step("upgrade", everywhere=True))
    assert faults_expected(Scenario("x", "", steps, ()), nodes_count=5) == 6


def test_a_missing_scenario_lists_the_known_ones() -> None:
    with pytest.raises(OperatorError, match="kill-one"):
        load_scenario(SCENARIOS / "nope.toml")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('[mesh]\nlayout = "sixty"', "no layout"),
        ('[load]\nmixed = ["gett"]', "no kind of request"),
        ('[load]\nsessions = ["gopher"]', "no session"),
    ],
)
def test_a_word_the_mesh_or_the_load_does_not_know_is_a_sentence(
    tmp_path: Path, section: str, said: str
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"{GOOD}\n{section}\n")
    with pytest.raises(OperatorError, match=said):
        load_scenario(path)


def test_rounds_multiply_the_faults_that_must_fire() -> None:
    steps = (Step("isolate"), Step("heal"), Step("leave-rejoin", everywhere=True))
    assert faults_expected(Scenario("x", "y", steps, (), rounds=3), nodes_count=5) == 3 * (1 + 5)
