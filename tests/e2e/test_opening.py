"""A joiner that others keep off gossip, and one that is offered what it cannot verify: real processes."""

from pathlib import Path

import pytest

from tests.e2e.test_namespaces import play

SCENES = "tests.e2e.opening_scenes"


@pytest.mark.namespace
def test_a_joiner_kept_off_gossip_answers_no_call_and_opens_by_itself(tmp_path: Path) -> None:
    """Its mesh port is reachable all the while, by members with good keys."""
    told = play("kept-off", tmp_path / "mesh", "--net", scenes=SCENES)
    assert told["closed"][0] == told["still"][0] == 503
    assert "it has heard of no open member what the mesh runs" in told["still"][1]
    assert told["called"], "nobody called"
    assert "served" not in told["called"].values()
    assert "silence" not in told["called"].values()
    assert told["check"]["mark"] == "FAIL"
    assert "served" in told["beside"].values(), "the same calls are answered by who is open"
    assert told["dropped"] > 0
    assert told["opened"] == [200, "ready"]
    assert "served" in told["called_later"].values()


@pytest.mark.long
@pytest.mark.namespace
def test_a_joiner_offered_a_set_that_nobody_can_verify_waits_for_honest_members(tmp_path: Path) -> None:
    """Not even after the minute that makes one member enough; and who is open stays so beside the liar."""
    told = play("unverifiable", tmp_path / "mesh", "--net", scenes=SCENES)
    assert told["beside"] == told["restarted"] == [[200, "ready"]] * 2
    assert told["refused"] == [[1, 2, True]] * 2
    assert told["closed"][0] == told["still"][0] == 503
    assert "it cannot verify version 2 of scope mesh" in told["still"][1]
    assert "node1" in told["still"][1]
    assert told["opened"] == [200, "ready"]
    assert told["policy"] == [1]
