"""Many who join at one moment: who greets whom, what is forwarded, and what is asked again."""

from gossipmesh.gossip.base.effects import OpenStream
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import RecordKind
from gossipmesh.wire.datagram import HEADER_BYTES, PacketType, decode_header_untrusted
from tests.unit.gossip.group import Group
from tests.unit.gossip.repair.test_recovery import learn
from tests.unit.gossip.test_transcripts import everybody, joined

FANOUT = 4


def sent(group: Group, name: str, kind: PacketType, to: str | None = None) -> int:
    """Count the packets of a type that a host has sent, to anybody or to one other."""
    address = None if to is None else str(group.hosts[to].address)
    return sum(
        decode_header_untrusted(payload).type == kind
        for _, sender, receiver, payload in group.trace
        if sender == name and len(payload) >= HEADER_BYTES and address in (None, receiver)
    )


def spend_newcomers(node: GossipNode, group: Group) -> None:
    """Use up what a node may forward of newcomers for now."""
    while node._intake._newcomers.take(Instant(group.now)):
        pass


def apart() -> Group:
    """Return two members that know each other, and a third that runs and knows nobody."""
    group = Group("a b c")
    group.start("a")
    group.start("b", "a")
    group.run_until(group.converged, 5)
    group.start("c")
    return group


def tell(group: Group, name: str, subject: str) -> None:
    """Have a node learn of another as by gossip."""
    node = group.node(subject)
    own = node._catalog.get(node.own_node_id)
    learn(group, name, [own.records[RecordKind.CREDENTIAL], own.records[RecordKind.NODE_STATE]])


def ping(group: Group, name: str, other: str) -> None:
    node = group.node(name)
    node._router._ping(node._catalog.get(group.node(other).own_node_id))
    group.perform(group.hosts[name], node._ctx.drain())


def test_a_storm_of_newcomers_is_seen_by_all_and_not_forwarded_by_the_square() -> None:
    names = [f"n{number}" for number in range(30)]
    group = Group(" ".join(names))
    group.start_all()
    took_s = group.run_until(lambda: everybody(group, "alive") and group.converged(), 3)
    forwarded = [group.node(name).statistics().eager_sent for name in names]
    # Six at once and two a second, each to four members; our own state as often as it changed.
    assert max(forwarded) <= FANOUT * (6 + 2 * took_s + 3)
    assert all(group.node(name).statistics().eager_limited for name in names)


def test_who_answers_a_verdict_is_forwarded_however_many_newcomers_there_are() -> None:
    group = joined("a b c d")
    group.kill("d")
    group.run_until(lambda: set(group.statuses("d").values()) == {"unattended"}, 30)
    for name in "abc":
        spend_newcomers(group.node(name), group)
    before = {name: group.node(name).statistics().eager_sent for name in "abc"}
    group.start("d")
    group.run(0.5)
    assert set(group.statuses("d").values()) == {"alive"}
    assert all(group.node(name).statistics().eager_sent > before[name] for name in "abc")


def test_a_member_that_does_not_know_us_yet_is_asked_again_before_it_is_greeted() -> None:
    group = apart()
    tell(group, "a", "c")
    greeted = sent(group, "a", PacketType.HELLO)
    ping(group, "a", "c")
    group.run(0.1)
    ping(group, "a", "c")
    group.run(0.1)
    assert sent(group, "c", PacketType.COOKIE, to="a") == 2
    assert sent(group, "a", PacketType.HELLO) == greeted
    group.run(1.5)
    assert sent(group, "a", PacketType.HELLO) == greeted + 1
    assert group.status("c", "a") == "alive"


def test_a_member_that_hears_of_us_meanwhile_is_never_greeted() -> None:
    group = apart()
    tell(group, "a", "c")
    greeted = sent(group, "a", PacketType.HELLO)
    ping(group, "a", "c")
    group.run(0.1)
    tell(group, "c", "a")
    group.run(2)
    assert sent(group, "a", PacketType.HELLO) == greeted
    assert group.status("c", "a") == "alive"


def test_a_first_stream_that_is_turned_away_is_tried_again_soon() -> None:
    group = Group("a b c")
    refused: list[OpenStream] = []
    open_stream = group._open

    def refuse(host, effect: OpenStream) -> None:
        if host.name == "c" and not refused:
            refused.append(effect)
            group._later("c", "closed", (effect.stream,))
        else:
            open_stream(host, effect)

    group._open = refuse
    group.start("a")
    group.start("b", "a")
    group.run_until(lambda: group.status("a", "b") == "alive", 2)
    group.start("c", "a")
    took_s = group.run_until(lambda: not group.node("c")._repair._conversation.is_first, 3)
    assert refused
    assert took_s <= 0.4


def test_who_is_met_by_other_newcomers_still_takes_its_table_from_whom_it_asked() -> None:
    group = Group("seed a b")
    group.start("seed")
    lost: list[int] = []
    perform = group.perform

    def lose_welcomes(host, effects) -> None:
        kept = []
        for effect in effects:
            if host.name == "seed" and getattr(effect, "payload", b"")[1:2] == bytes((PacketType.WELCOME,)):
                lost.append(group.now)
                if len(lost) == 1:
                    continue
            kept.append(effect)
        perform(host, kept)

    group.perform = lose_welcomes
    group.start("b", "seed")
    tell(group, "b", "seed")
    group.start("a")
    tell(group, "a", "b")
    group.node("a")._handshake.start(group.hosts["b"].address)
    group.run(0.1)
    assert group.status("b", "a") == "alive"
    assert not group.node("b")._entrance.is_in
    group.run_until(lambda: group.node("b")._entrance.is_in, 1)
    assert len(lost) == 2


def test_a_node_whose_seeds_are_gone_settles_for_who_came_to_it() -> None:
    group = Group("a b gone")
    group.start("a", "gone")
    group.start("b", "a")
    group.run_until(lambda: group.node("a")._entrance.is_in, 7)
    assert everybody(group, "alive")


def hand_seeds(group: Group, name: str, *seeds: str) -> None:
    """Tell a running node where members may be found now."""
    addresses = [group.hosts[seed].address for seed in seeds]
    group.perform(group.hosts[name], group.node(name).seeds_changed(addresses, Instant(group.now)))


def test_a_node_without_seeds_joins_at_those_it_is_handed_later() -> None:
    """A host name that resolves at last."""
    group = Group("a b")
    group.start("a")
    group.start("b")
    group.run(10)
    assert group.statuses("b") == {"a": "unknown"}
    hand_seeds(group, "b", "a")
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 2)


def test_a_seed_that_moved_is_greeted_where_it_is_now() -> None:
    group = Group("a b gone")
    group.start("a")
    group.start("b", "gone")
    group.run(20)
    hand_seeds(group, "b", "a")
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 2)


def test_halves_that_forgot_each_other_meet_at_a_new_address_at_once() -> None:
    """Nobody waits for the five minutes after which a seed is asked again."""
    group = Group("a b c d")
    group.start("a")
    group.start("b", "a")
    group.start("c")
    group.start("d", "c")
    group.run(10)
    assert group.statuses("c") == {"a": "unknown", "b": "unknown", "d": "alive"}
    hand_seeds(group, "b", "a", "c")
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 4)


def test_seeds_that_are_members_or_ourselves_are_not_greeted_again() -> None:
    group = Group("a b")
    group.start_all()
    group.run_until(group.converged, 5)
    hellos = sent(group, "b", PacketType.HELLO)
    hand_seeds(group, "b", "b", "a")
    hand_seeds(group, "b")
    hand_seeds(group, "b", "a")
    group.run(5)
    assert sent(group, "b", PacketType.HELLO) == hellos


def test_a_seed_handed_later_is_asked_again_every_five_minutes() -> None:
    group = Group("a b gone")
    group.start("a")
    group.start("b", "a")
    group.run_until(group.converged, 5)
    assert sent(group, "a", PacketType.HELLO, "gone") == 0
    hand_seeds(group, "a", "gone")
    group.run(30)
    at_once = sent(group, "a", PacketType.HELLO, "gone")
    assert at_once > 0
    group.run(300)
    assert sent(group, "a", PacketType.HELLO, "gone") > at_once
