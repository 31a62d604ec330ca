"""The grid: one small cell of it, kept once, summed up, not run twice."""

from pathlib import Path

import pytest

from gossipmesh.testing.simulator.__main__ import main
from gossipmesh.testing.simulator.frozen_list import frozen_key
from gossipmesh.testing.simulator.grid import Cell, play, primed, read_outcomes, summary

WORDS = ["grid", "--nodes", "10", "--seeds", "3", "--loss", "5", "--starved", "10", "--jobs", "1", "--out"]


def test_a_starved_reader_dies_for_nobody_and_a_kept_run_is_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that was cut short, as by a power cut, is run again; everything else is not."""
    out = tmp_path / "out" / "grid.jsonl"
    assert main([*WORDS, str(out)]) == 0
    kept = out.read_bytes()
    out.write_bytes(kept + kept[:100] + b"\n")
    assert main([*WORDS, str(out)]) == 0
    assert out.read_bytes() == kept + kept[:100] + b"\n"
    assert "| 10 | 10 | 5 | 1 | monitors | 1 | 0 |" in capsys.readouterr().out
    (outcome,) = read_outcomes(out)
    assert outcome.core == frozen_key()
    assert (outcome.failure, outcome.false_deaths, outcome.unseen) == ("", {}, 0)
    assert len(outcome.starved_names) == 1
    assert 2.5 < outcome.seen_s[0] <= outcome.seen_s[-1] < 20
    assert summary([outcome])[0]["first_s"] == [outcome.seen_s[0]] * 3


def test_kinships_rounding_of_starved_readers() -> None:
    counts = [Cell(50, 1.0, share, True, "swim").starved_count for share in (0.0, 1.0, 5.0, 10.0)]
    assert counts == [0, 1, 3, 5]
    assert Cell(200, 1.0, 10.0, True, "swim").starved_count == 20


def test_a_run_of_swim_is_measured_alike() -> None:
    outcome = play(primed(6, "swim"), Cell(6, 1.0, 0.0, True, "swim"), 1, "none")
    assert (outcome.unseen, outcome.false_deaths) == (0, {})
    assert outcome.seen_s[-1] < 25
