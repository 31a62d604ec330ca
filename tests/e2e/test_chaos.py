"""Chaos scenarios, run as an operator runs them; the long ones with a shorter load."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.chaos_runs import SCENARIOS, brief, run_chaos, run_until_prompt, wrong


def test_kill_one_is_seen_by_all_and_costs_no_request(tmp_path: Path) -> None:
    told = run_chaos(brief(tmp_path, "kill-one", {"sent_min = 200": "sent_min = 100"}), seed=3)
    assert not wrong(told), told["logs"]
    (times,) = told["measures"]["seen_dead_s"].values()
    assert len(times) == 4
    assert told["evidence"]["requests"]["failed"] == 0
    assert told["evidence"]["faults"][0]["count"] >= 3


def test_kill_agent_leaves_the_engine_serving(tmp_path: Path) -> None:
    shorter = {
        "for_s = 42.0": "for_s = 3.0",
        "for_s = 10.0": "for_s = 2.0",
        "sent_min = 2000": "sent_min = 300",
    }
    told = run_chaos(brief(tmp_path, "kill-agent", shorter), seed=5)
    assert not wrong(told), told["logs"]


def test_kill_engine_costs_a_moment_and_no_membership(tmp_path: Path) -> None:
    """With the bounds of the shipped scenario; what is late once may be tried once more."""
    lateness = {"eventually_listeners_back", "anytime_requests_succeed"}
    told, runs = run_until_prompt(brief(tmp_path, "kill-engine"), 2, lateness)
    (tmp_path / "measures.json").write_text(json.dumps([run["measures"] for run in runs]))
    assert not wrong(told), runs
    (victim,) = told["evidence"]["victims"]
    pids = [seen["pid"] for seen in told["evidence"]["engines"] if seen["observer"] == victim]
    assert pids[0] != pids[-1]


def agents_logged(told: dict[str, Any]) -> set[tuple[str, str]]:
    """Return (observer, subject) of every status an agent's log tells of."""
    return {(seen["observer"], seen["subject"]) for seen in told["evidence"]["declared"]}


@pytest.mark.parametrize(
    ("name", "seed"), [pytest.param("upgrade-all", 4, marks=pytest.mark.long), ("crash-all-agents", 6)]
)
def test_agents_that_come_back_cost_no_request_no_endpoint_and_no_life(
    tmp_path: Path, name: str, seed: int
) -> None:
    told = run_chaos(brief(tmp_path, name), seed=seed)
    assert not wrong(told), told["logs"]
    assert told["evidence"]["requests"]["failed"] == 0
    nodes = told["evidence"]["nodes"]
    assert sorted(told["evidence"]["victims"]) == nodes
    assert len(agents_logged(told)) == len(nodes) ** 2, "the logs that prove it were not read"


@pytest.mark.parametrize(
    "name", [pytest.param("workload-stopped", marks=pytest.mark.long), "workload-dead-post"]
)
def test_a_workload_that_stops_or_dies_costs_nobody_a_request(tmp_path: Path, name: str) -> None:
    told = run_chaos(brief(tmp_path, name), seed=2)
    assert not wrong(told), told["logs"]


@pytest.mark.namespace
def test_an_agent_whose_name_was_enrolled_again_ends_with_its_engine() -> None:
    told = run_chaos(SCENARIOS / "enrolled-again.toml", seed=1)
    assert not wrong(told), told["logs"]
    assert list(told["measures"]["replaced_ended_s"]) == told["evidence"]["victims"]


@pytest.mark.namespace
def test_a_copy_of_a_state_folder_ends_and_costs_no_request() -> None:
    told = run_chaos(SCENARIOS / "copied-state.toml", seed=1)
    assert not wrong(told), told["logs"]
    assert len(told["measures"]["copies_ended_s"]) == 1


@pytest.mark.namespace
def test_a_forgotten_node_is_gone_and_ends() -> None:
    told = run_chaos(SCENARIOS / "forgotten.toml", seed=1)
    assert not wrong(told), told["logs"]
    assert len(told["measures"]["forgotten_s"]) == 1


@pytest.mark.long
def test_stolen_keys_of_a_node_are_useless_once_it_is_revoked() -> None:
    told = run_chaos(SCENARIOS / "stolen-node-key.toml", seed=1)
    assert not wrong(told), told["logs"]
    (times,) = told["measures"]["thefts_s"]
    assert times.keys() == {"turned_s", "told_s", "refused_s", "closed_s"}


@pytest.mark.long
def test_a_stolen_intermediate_makes_nobody() -> None:
    told = run_chaos(SCENARIOS / "stolen-intermediate.toml", seed=1)
    assert not wrong(told), told["logs"]
    (fault,) = told["evidence"]["faults"]
    assert fault["detail"]["own_keys"]["believed"]


@pytest.mark.long
def test_a_mesh_goes_on_without_its_authority() -> None:
    told = run_chaos(SCENARIOS / "authority-dead.toml", seed=1)
    assert not wrong(told), told["logs"]
    (parts,) = told["measures"]["without_authority_s"]
    assert parts.keys() == {"new_endpoint_s", "dead_endpoint_s", "keys_turned_s", "cold_start_s"}


@pytest.mark.long
def test_an_engine_without_an_agent_knows_the_keys_that_its_peers_turn_to(tmp_path: Path) -> None:
    """Keys turn twice as fast here."""
    shorter = {'key_period = "30s"': 'key_period = "15s"', "sent_min = 1000": "sent_min = 500"}
    shorter["sent_min = 1500"] = "sent_min = 750"
    told = run_chaos(brief(tmp_path, "agent-dead-30-hours", shorter), seed=1)
    assert not wrong(told), told["logs"]
    assert told["evidence"]["mixed"]["failed"] == 0


@pytest.mark.long
def test_a_node_whose_seeds_and_authority_are_gone_starts_from_its_disk() -> None:
    """With the bounds of the shipped scenario; what is late once may be tried once more."""
    path = SCENARIOS / "cold-start.toml"
    told, runs = run_until_prompt(path, 1, {"finally_cold_starts_are_quick"})
    assert not wrong(told), runs


@pytest.mark.long
def test_a_node_leaves_and_comes_back_under_every_kind_of_traffic(tmp_path: Path) -> None:
    """One node here, and sessions that end by themselves; the shipped scenario takes all, to the limit."""
    shorter = {
        "everywhere = true": "everywhere = false",
        "session_life_s = 0.0": "session_life_s = 5.0",
        'name = "leave-rejoin-all"': 'name = "leave-rejoin-all"\nvictims = ["node5"]',
        "sent_min = 2000": "sent_min = 500",
        "exchanges_min = 2000": "exchanges_min = 400",
    }
    told = run_chaos(brief(tmp_path, "leave-rejoin-all", shorter), seed=1)
    assert not wrong(told), told["logs"]
    assert {"websocket", "tcp", "stream"} == {end["kind"] for end in told["evidence"]["sessions"]}


@pytest.mark.long
@pytest.mark.namespace
def test_a_node_that_gets_another_address_is_found_and_served(tmp_path: Path) -> None:
    """The longest gap here; the shipped scenario has four."""
    text = (SCENARIOS / "moved-address.toml").read_text()
    head, *steps = text.split("[[steps]]")
    shorter = "[[steps]]".join([head, *steps[-2:]]).replace("sent_min = 2000", "sent_min = 500")
    path = tmp_path / "moved-address.toml"
    path.write_text(shorter)
    told = run_chaos(path, seed=1)
    assert not wrong(told), told["logs"]
    (row,) = told["measures"]["moves_s"]
    assert row["gap_s"] == 5.0
    assert row["disturbed"] > 0, "five seconds without an address were noticed by nobody"


@pytest.mark.namespace
def test_a_node_cut_off_from_all_others_serves_itself(tmp_path: Path) -> None:
    """One cut; the shipped scenario makes five, and judges their median, so one that is late says little."""
    shorter = {"rounds = 5": "rounds = 1", "sent_min = 2000": "sent_min = 500"}
    lateness = {"eventually_isolation_is_known", "eventually_isolation_costs_nothing"}
    told, runs = run_until_prompt(brief(tmp_path, "isolated-caller", shorter), 1, lateness)
    assert not wrong(told), runs
    assert told["evidence"]["faults"][0]["count"] > 0
