"""Chaos scenarios without load and without a bound of seconds: other tests may run beside them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.chaos_runs import ROOT, SCENARIOS, run_chaos, wrong


def test_what_is_in_flight_at_the_only_endpoint_finishes_while_it_drains() -> None:
    told = run_chaos(SCENARIOS / "only-endpoint-drains.toml", seed=1)
    assert not wrong(told), told["logs"]
    assert {call["status"] for call in told["evidence"]["calls"]} == {200}
    (left,) = told["evidence"]["faults"]
    assert left["detail"]["exit_code"] == 0


def told_after_a_partition(path: Path) -> None:
    told = run_chaos(path, seed=1)
    assert not wrong(told), told["logs"]
    partition = next(fault for fault in told["evidence"]["faults"] if fault["kind"] == "partition")
    assert partition["detail"]["packets_dropped"] > 0


@pytest.mark.namespace
def test_after_a_partition_everybody_is_alive_and_agrees() -> None:
    told_after_a_partition(SCENARIOS / "partition-heal.toml")


@pytest.mark.namespace
def test_of_two_pushes_in_a_partition_one_wins_everywhere(tmp_path: Path) -> None:
    """Here both push at once; in the shipped scenario the sides have given each other up by then."""
    text = (SCENARIOS / "racing-pushes.toml").read_text()
    parts = text.split("[[steps]]\n")
    kept = [part for part in parts if 'until = "sides-apart"' not in part]
    assert len(kept) == len(parts) - 1
    path = tmp_path / "racing-pushes.toml"
    path.write_text("[[steps]]\n".join(kept))
    told_after_a_partition(path)


def test_a_scenario_that_is_not_there_is_one_sentence() -> None:
    arguments = [sys.executable, "-m", "chaos.run", "nope", "--seed", "1"]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("chaos: there is no scenario chaos/scenarios/nope.toml")
    assert result.stderr.count("\n") == 1


def test_without_root_a_partition_says_what_it_needs() -> None:
    """Asked of the runner with the effective uid of nobody, where this process may take it."""
    if os.geteuid() != 0:
        arguments = [sys.executable, "-m", "chaos.run", "partition-heal"]
    else:
        # Imported before the rights are gone: the installation may be root's alone.
        script = "import os, sys, chaos.run; os.seteuid(65534); sys.argv[1:] = ['partition-heal']; "
        arguments = [sys.executable, "-c", f"{script}chaos.run.run()"]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "needs root" in result.stderr
    assert result.stderr.count("\n") == 1
