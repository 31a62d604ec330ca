"""The journal behind `why`: who spoke against whom, and what undid it, under both detectors."""

import pytest

from gossipmesh.gossip.base.history import History, HistoryEntry
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.keys import Verifier

VERIFIER = Verifier(1_000_000)


def a_mesh(detector: str) -> Run:
    run = Run(3, nodes_count=7, loss_ratio=0.0, verifier=VERIFIER, detector=detector)
    run.boot_and_settle()
    return run


def stories(run: Run, subject: Host, subject_id: NodeId) -> dict[str, list[HistoryEntry]]:
    """Return what each other node remembers of a subject."""
    return {host.name: run.core(host).history(subject_id) for host in run.running() if host is not subject}


@pytest.mark.parametrize("detector", ["swim", "monitors"])
def test_a_death_tells_who_spoke_and_a_return_tells_what_undid_it(detector: str) -> None:
    run = a_mesh(detector)
    victim = run.hosts[4]
    node_id = run.core(victim).own_node_id
    run.world.kill_node(victim)
    run.wait_status(victim, MemberStatus.DEAD, 60 * SECOND_NS)
    held = stories(run, victim, node_id)
    spoke = {e.by for story in held.values() for e in story if e.kind in ("vote-sent", "vote-received")}
    assert len(spoke) >= (1 if detector == "swim" else 4)
    assert node_id not in spoke
    for name, story in held.items():
        assert [entry.cause for entry in story if entry.kind == "applied"] == ["dead"], name
        assert [entry.at for entry in story] == sorted(entry.at for entry in story)
    run.world.start(victim, run.seeds())
    run.wait_status(victim, MemberStatus.ALIVE, 60 * SECOND_NS)
    for name, story in stories(run, victim, node_id).items():
        undone = [entry for entry in story if entry.kind == "refuted"]
        assert [entry.by for entry in undone] == [node_id], name
        assert undone[0].detail == "was dead, answers as 1.2"


def test_the_journal_is_bounded_and_counts() -> None:
    history = History(entries_max=3)
    for number in range(5):
        history.note(Instant(number), NodeId(bytes(16)), "unvote", NodeId(b"x" * 16))
    assert [entry.at for entry in history.all()] == [2, 3, 4]
    assert history.noted_count == 5
    assert history.of(b"y" * 16) == []
