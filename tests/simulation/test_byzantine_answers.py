"""One member that answers in another's stead: nobody is deaf for that."""

from gossipmesh.wire.datagram import Ack, Check, encode_message
from tests.simulation.test_byzantine import HOSTILE, VICTIM, alive, mesh, send, state_of, verdicts

_GUESSES = range(-3, 40)
_OTHERS = "bcdef"


def test_acks_in_anothers_stead_make_nobody_deaf() -> None:
    """Sequences are counted, and a ping-req tells them: all of the next ones are answered at once."""
    group = mesh()
    state = state_of(group, VICTIM)
    check = encode_message(Check(state.node_id, state.generation, state.epoch))
    for turn in range(500):
        for name in _OTHERS:
            sequence = group.node(name)._detector.prober._sequence
            guesses = [encode_message(Ack(sequence + ahead, None, None, 10**9)) for ahead in _GUESSES]
            node = group.node(HOSTILE)
            to = node._catalog.get(group.node(name).own_node_id)
            node._courier.send(to, guesses, fill=False)
            if not turn % 25:
                send(group, name, check)
        group.perform(group.hosts[HOSTILE], node._ctx.drain())
        group.run(0.02)
    assert verdicts(group) == []
    assert alive(group)
    assert max(abs(group.node(name).statistics().clock_skew_s) for name in _OTHERS) <= 1
