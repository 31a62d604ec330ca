"""The simulator's command line, and the invariants on a core that lies about itself."""

import json
from typing import Any

import pytest

from gossipmesh.testing.simulator import __main__ as command
from gossipmesh.testing.simulator.run import Run
from gossipmesh.testing.simulator.scenarios import SCENARIOS


def test_a_green_seed_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["leave", "--seeds", "3", "--nodes", "4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["scenario"], result["seed"], result["ok"]) == ("leave", 3, True)
    assert result["faults"]["loss"] > 0


def test_a_failing_seed_prints_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(run: Run) -> None:
        run.boot()
        run.world.run_for(1)
        run.require(run.seed != 2, "two is not to be")

    monkeypatch.setitem(SCENARIOS, "leave", failing)
    assert command.main(["leave", "--seeds", "2", "--nodes", "3", "--loss", "0"]) == 1
    captured = capsys.readouterr()
    assert "FAILED: two is not to be" in captured.out
    replay = "replay: python -m gossipmesh.testing.simulator leave --seeds 2 --nodes 3 --loss 0.0"
    assert replay in captured.err


def test_a_fault_that_never_fired_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def idle(run: Run) -> None:
        run.boot_and_settle()
        run.world.heal(run.world.partition("nobody", ["n1"], ["n9"]))

    monkeypatch.setitem(SCENARIOS, "leave", idle)
    result = command.run_seed("leave", 3, nodes_count=3, loss_ratio=0, verifier=command.Verifier())
    assert result["failures"] == ["the fault 'nobody' never fired"]


def lies(*, looks: bool = True, **changes: Any) -> Any:
    """Return a scenario in which one core's reads are replaced after the mesh has come to rest."""

    def scenario(run: Run) -> None:
        run.boot_and_settle()
        run.invariants.expects_equal_views = looks
        for name, value in changes.items():
            monkey_core = run.core(run.hosts[1])
            setattr(monkey_core, name, value)
        run.world.run_for(15_000_000_000)

    return scenario


@pytest.mark.parametrize(
    ("changes", "noticed"),
    [
        ({"state_sums": lambda: (b"other", b"sums")}, "state sums differ 1"),
        ({"members": list}, "equal sums, two views: n2 holds n1 unknown"),
    ],
)
def test_a_core_that_differs_from_the_rest_is_noticed(
    changes: dict[str, Any], noticed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCENARIOS, "leave", lies(**changes))
    result = command.run_seed("leave", 1, nodes_count=3, loss_ratio=0, verifier=command.Verifier())
    assert noticed in result["failures"][0]


def test_who_does_not_know_another_at_rest_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCENARIOS, "leave", lies(looks=False, members=list))
    result = command.run_seed("leave", 1, nodes_count=3, loss_ratio=0, verifier=command.Verifier())
    assert "n2 does not know n1" in result["failures"][0]
