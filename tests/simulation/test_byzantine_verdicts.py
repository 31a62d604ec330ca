"""Verdicts put together of true votes kept for later, and of votes nobody signed; none may count."""

import msgspec
import pytest

from gossipmesh.gossip.failure.verdicts import make_verdict
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import Cause, Vote
from gossipmesh.wire.datagram import encode_message
from tests.simulation.test_byzantine import HOSTILE, VICTIM, alive, beat_of, mesh, spray, verdicts, vote_by
from tests.unit.gossip.group import Group, credential_of

_SIZES = ("a b c g", "a b c d e g", "a b c d e f h g", "a b c d e f g h i j k l m n")
_IDS = ("four", "six", "eight", "fourteen")


def voters_of(group: Group, names: str) -> tuple[list[str], int]:
    """Return the victim's monitors, without the hostile one, and how many votes condemn."""
    node, victim = group.node(HOSTILE), credential_of(VICTIM).node_id
    monitors = node._detector.monitors.of(victim, 8)
    others = [name for name in names.split() if credential_of(name).node_id in monitors and name != HOSTILE]
    return others, node._detector.judge.needed(victim)


def unsigned(vote: Vote) -> Vote:
    return msgspec.structs.replace(vote, signature=bytes(64))


@pytest.mark.parametrize("names", _SIZES, ids=_IDS)
def test_votes_without_a_signature_make_no_verdict_young(names: str) -> None:
    """One short of a quorum in old true votes, the liar's own, and deaf votes in others' names besides."""
    group = mesh(names)
    others, needed = voters_of(group, names)
    beat = beat_of(group)
    kept = [vote_by(group, name, name, beat=beat) for name in others[: needed - 1]]
    group.run(60)
    own = vote_by(group, HOSTILE, HOSTILE, beat=beat, cause=Cause.DEAF)
    made_up = [
        unsigned(vote_by(group, name, name, beat=beat + 1, cause=Cause.DEAF)) for name in others[needed - 1 :]
    ]
    assert made_up
    for count in (len(made_up), 1):
        spray(group, encode_message(make_verdict([*kept, own, *made_up[:count]], MemberStatus.DEAD)))
        group.run(4)
    assert verdicts(group) == []
    assert alive(group)


@pytest.mark.parametrize("names", _SIZES, ids=_IDS)
def test_a_deaf_members_votes_that_were_true_once_kill_nobody_later(names: str) -> None:
    """That it is heard proves nothing of a deaf member, so its answer is waited for, however often."""
    group = mesh(names)
    others, needed = voters_of(group, names)
    kept = [
        vote_by(group, name, name, beat=beat_of(group), cause=Cause.DEAF) for name in others[: needed - 1]
    ]
    own = vote_by(group, HOSTILE, HOSTILE, beat=beat_of(group), cause=Cause.DEAF)
    group.run(60)
    young = vote_by(group, HOSTILE, HOSTILE, beat=beat_of(group), cause=Cause.DEAF)
    for last in (own, young):
        for _ in range(8):
            spray(group, encode_message(make_verdict([*kept, last], MemberStatus.DEAD)))
            group.run(1.5)
    assert verdicts(group) == []
    assert alive(group)
