"""The nemesis: the seed alone chooses, and a fault that hit nothing is told as such."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.checkers import finally_every_fault_fired
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.nemesis import Run
from gossipmesh.testing.scenario import LoadSection, Scenario, Step


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """A mesh that is laid out but not started."""
    with Mesh(directory=tmp_path) as mesh:
        yield mesh


def scenario(*steps: Step, victims: tuple[str, ...] = ()) -> Scenario:
    return Scenario("test", "", steps, (), load=LoadSection(rate_per_s=0.0), victims=victims)


def test_the_seed_chooses_the_victim(mesh: Mesh) -> None:
    chosen = [Run(scenario(), seed, mesh).victim for seed in range(20)]
    assert chosen == [Run(scenario(), seed, mesh).victim for seed in range(20)]
    assert set(chosen) == set(mesh.nodes)
    narrowed = scenario(victims=("node4",))
    assert {Run(narrowed, seed, mesh).victim for seed in range(5)} == {"node4"}


def run_step(mesh: Mesh, step: Step) -> Evidence:
    async def steps() -> Evidence:
        run = Run(scenario(step), 1, mesh)
        async with trio.open_nursery() as nursery:
            await run._step(step, nursery, lambda line: None)
        return run.evidence

    return trio.run(steps)


@pytest.mark.parametrize("targets", [("agent",), ("engine",), ("workloads", "agent")])
def test_a_kill_that_hits_no_process_has_not_fired(mesh: Mesh, targets: tuple[str, ...]) -> None:
    evidence = run_step(mesh, Step("kill", targets=targets))
    assert [fault.count for fault in evidence.faults] == [0]
    assert finally_every_fault_fired(evidence, expected=1)


def test_a_kill_everywhere_strikes_every_node_and_tells_of_each(mesh: Mesh) -> None:
    evidence = run_step(mesh, Step("kill", targets=("agent",), everywhere=True))
    assert [(fault.node, fault.count) for fault in evidence.faults] == [(name, 0) for name in mesh.nodes]
    assert evidence.victims == list(mesh.nodes)


def test_what_was_waited_for_in_vain_is_none(mesh: Mesh) -> None:
    """No agent runs here: nothing can be seen alive."""
    step = Step("await", until="all-alive", within_s=0.3, name="alive")
    assert run_step(mesh, step).conditions == {"alive": None}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Step("await", until="moon", within_s=1.0, name="x"), "victim-dead"),
        (Step("partition", sides=(2, 3)), "namespaces"),
        (Step("heal"), "no partition"),
    ],
)
def test_a_step_that_cannot_be_is_a_sentence(mesh: Mesh, step: Step, said: str) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(OperatorError, match=said)):
        run_step(mesh, step)
