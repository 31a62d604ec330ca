"""A state folder that is in use twice: one of the two agents goes on, the other is told to end."""

import random
from collections.abc import Sequence

import pytest

from gossipmesh.gossip.base.effects import CloseStream, IdentityCopied, Notify, Persist, PersistKind, StreamId
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.sessions.rivals import _numbers
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.wire.codec import encode
from gossipmesh.wire.datagram import (
    HEADER_BYTES,
    Cookie,
    Header,
    PacketType,
    Rival,
    Ruling,
    decode_header_untrusted,
    decode_plain_untrusted,
    encode_header,
)
from tests.unit.gossip.group import Group, Host, key_of

COPY = "copy"


class Copies(Group):
    """A group whose agents end when their core is told to, as a shell does."""

    def perform(self, host: Host, effects: list) -> None:
        super().perform(host, effects)
        if any(isinstance(effect, Notify) and isinstance(effect.event, IdentityCopied) for effect in effects):
            self.kill(host.name)

    def copy(self, *seeds: str) -> GossipNode:
        """Copy a's folder as it is now, and start it elsewhere."""
        self.hosts[COPY].disk = dict(self.hosts["a"].disk)
        return self.start(COPY, *seeds, copy_of="a")

    def left_of_two(self) -> list[str]:
        return [name for name in ("a", COPY) if self.hosts[name].node is not None]

    def ended(self, name: str) -> bool:
        return self.hosts[name].node is None

    def all_at(self, name: str) -> bool:
        """Tell whether every node holds a alive, at one host's address, in the incarnation it runs in."""
        there, incarnation = self.hosts[name].address, self.node(name).incarnation
        views = [v for h in self.hosts.values() if h.node for v in h.node.members() if v.name == "a"]
        return all(
            view.status.label == "alive"
            and view.state.gossip_addresses == (there,)
            and (view.state.generation, view.state.epoch) == incarnation
            for view in views
        )

    def told_at(self, name: str) -> Address:
        (event,) = [event for event in self.hosts[name].events if isinstance(event, IdentityCopied)]
        return event.address

    def packets(self, name: str, kind: PacketType) -> list[bytes]:
        return [p for _, source, _, p in self.trace if source == name and p[1] == kind]


def mesh(names: str = "a b c d", *, seed: int = 1, loss: float = 0.0) -> Copies:
    """Return a converged mesh, and a host for the copy that is not started."""
    group = Copies(f"{names} {COPY}", seed=seed)
    first, *others = names.split()
    group.start(first)
    for name in others:
        group.start(name, first)
    group.run_until(group.converged, 5)
    group.loss = loss
    return group


@pytest.mark.parametrize("seed", range(6))
def test_the_incumbent_goes_on_and_nobody_else_hears_of_the_copy(seed: int) -> None:
    group = mesh(seed=seed)
    incarnation, before = group.node("a").incarnation, len(group.trace)
    group.copy("b")
    group.run_until(lambda: group.ended(COPY), 1)
    assert group.told_at(COPY) == group.hosts["a"].address
    group.run(10)
    assert group.left_of_two() == ["a"]
    assert group.all_at("a")
    assert group.node("a").incarnation == incarnation
    others = {str(group.hosts[name].address) for name in "bcd"}
    assert not [to for _, source, to, _ in group.trace[before:] if source == COPY and to in others]


def test_both_decide_in_turn() -> None:
    """Who decides is chosen by run ids: the seeds above must show both, or they prove half of it."""
    deciders = set()
    for seed in range(6):
        group = mesh(seed=seed)
        group.copy("b")
        group.run_until(lambda group=group: group.ended(COPY), 1)
        rulings = {name for name in ("a", COPY) if group.packets(name, PacketType.RULING)}
        assert len(rulings) == 1
        deciders |= rulings
    assert deciders == {"a", COPY}


@pytest.mark.parametrize("seed", range(10))
def test_one_goes_on_where_packets_are_lost(seed: int) -> None:
    group = mesh(seed=seed, loss=0.2)
    epoch = group.node("a").incarnation[1]
    group.copy("b")
    group.run_until(lambda: len(group.left_of_two()) == 1, 5)
    group.loss = 0.0
    group.run(10)
    assert group.left_of_two() == ["a"]
    assert group.all_at("a")
    assert group.node("a").incarnation[1] - epoch <= 3


def test_the_copy_goes_on_where_the_incumbent_is_gone_and_the_incumbent_ends_when_it_is_back() -> None:
    group = mesh()
    group.kill("a", silent=True)
    group.copy("b")
    group.run_until(lambda: group.node(COPY).own_state.epoch == 2 and group.all_at(COPY), 5)
    group.run(20)
    group.start("a", "b")
    group.run_until(lambda: group.ended("a"), 5)
    assert group.told_at("a") == group.hosts[COPY].address
    group.run(10)
    assert group.left_of_two() == [COPY]
    assert group.all_at(COPY)
    assert group.node(COPY).incarnation[1] <= 4


@pytest.mark.parametrize("seed", range(6))
def test_who_was_the_node_for_longer_goes_on_after_a_partition(seed: int) -> None:
    group = mesh(seed=seed)
    group.partition("a b", f"c d {COPY}")
    group.run(5)
    group.copy("c")
    group.run(20)
    assert group.left_of_two() == ["a", COPY]
    group.heal()
    group.run_until(lambda: group.ended(COPY), 5)
    group.run(10)
    assert group.left_of_two() == ["a"]
    assert group.all_at("a")
    assert group.node("a").incarnation[1] <= 4


@pytest.mark.parametrize("seed", range(3))
def test_who_goes_on_hears_those_who_had_followed_the_other(seed: int) -> None:
    """Their links with it are new, and count from the beginning: under its old run all would be replays."""
    group = mesh(seed=seed)
    group.run(30)
    group.partition("a", f"b c d {COPY}")
    group.run(1)
    group.copy("c")
    group.run(6)
    group.heal()
    group.run_until(lambda: group.ended(COPY), 5)
    group.run(
        10
    )  # those it reached by TCP only, while they followed the other, send it packets both ways at first
    before = group.node("a").statistics().dropped.get("replayed", 0)
    group.run(5)
    assert group.node("a").statistics().dropped.get("replayed", 0) == before
    assert all(group.status(name, "a") == "alive" for name in "bcd")


@pytest.mark.parametrize("seed", range(6))
def test_a_copy_of_a_folder_from_before_the_incumbent_moved_ends(seed: int) -> None:
    """Where its record says that it was nobody answers; where the node is the others say."""
    group = Copies(f"a b c moved {COPY}", seed=seed)
    group.start("a")
    for name in "bc":
        group.start(name, "a")
    group.run_until(group.converged, 5)
    older = dict(group.hosts["a"].disk)
    group.kill("a")
    group.hosts["moved"].disk = dict(older)
    group.start("moved", "b", copy_of="a")
    group.run_until(lambda: group.all_at("moved"), 10)
    group.run(5)
    group.hosts[COPY].disk = older
    group.start(COPY, "b", copy_of="a")
    group.run_until(lambda: group.ended(COPY), 5)
    assert group.told_at(COPY) == group.hosts["moved"].address
    group.run(10)
    assert not group.ended("moved")
    assert group.all_at("moved")
    assert group.node("moved").incarnation[1] <= 4


@pytest.mark.parametrize("seed", range(6))
def test_two_that_cannot_reach_each_other_come_to_an_end_all_the_same(seed: int) -> None:
    """Whoever signs above what was just signed above it lives: the younger one ends, soon enough."""
    group = mesh(seed=seed)
    group.run(60)
    group.partition("a", COPY)
    group.copy("b")
    group.run_until(lambda: group.ended(COPY), 20)
    group.run(10)
    assert group.left_of_two() == ["a"]
    assert group.all_at("a")
    assert group.node("a").incarnation[1] <= 6


def test_two_with_one_address_come_to_an_end() -> None:
    """Where both tell the same address there is nobody to ask, and the rule is the same."""
    group = mesh()
    group.run(60)
    elsewhere = group.hosts[COPY].address
    group.hosts[COPY].address = group.hosts["a"].address
    group.copy("b")
    group.hosts[COPY].address = elsewhere
    group.run_until(lambda: len(group.left_of_two()) == 1, 20)
    group.run(10)
    assert len(group.left_of_two()) == 1
    assert group.node(group.left_of_two()[0]).incarnation[1] <= 6


def test_who_starts_where_it_was_asks_nobody() -> None:
    group = mesh()
    group.kill("a")
    group.run(1)
    group.start("a", "b")
    assert group.packets("a", PacketType.HELLO)
    assert not group.node("a")._rivals.is_asking
    group.run(5)
    assert group.all_at("a")
    assert not group.packets("a", PacketType.RIVAL)


def test_who_starts_elsewhere_begins_once_its_place_of_before_stays_silent() -> None:
    group = mesh()
    group.kill("a", silent=True)
    begun = group.now
    node = group.copy("b")
    group.run_until(lambda: not node._rivals.is_asking, 2)
    assert group.now - begun <= 1.8 * SECOND_NS
    group.run_until(lambda: group.all_at(COPY), 3)
    assert not [e for e in group.hosts[COPY].events if isinstance(e, IdentityCopied)]


def test_a_place_that_is_another_members_by_now_is_no_reason_to_wait() -> None:
    group = mesh("a b c")
    group.kill("a")
    group.hosts[COPY].disk = dict(group.hosts["a"].disk)
    group.hosts["a"].address, group.hosts["b"].address = (
        group.hosts["b"].address,
        group.hosts["a"].address,
    )
    group.by_address = {host.address: host for host in group.hosts.values()}
    group.start(COPY, "c", copy_of="a")
    group.run_until(lambda: not group.node(COPY)._rivals.is_asking, 0.2)


# What is said and heard before the answer is there


def asking() -> Copies:
    """Return a mesh and a copy that asks, and is not heard."""
    group = mesh()
    group.cut = {frozenset((COPY, name)) for name in "abcd"}
    group.copy("b")
    return group


def test_nothing_is_said_before_the_answer() -> None:
    group = asking()
    group.run(1)
    sent = [payload for _, source, _, payload in group.trace if source == COPY]
    assert {payload[1] for payload in sent} == {PacketType.HELLO}
    hellos = [decode_plain_untrusted(payload[1], payload[HEADER_BYTES:]) for payload in sent]
    assert all(hello.state is None and hello.credential is None for hello in hellos)
    epoch = (PersistKind.EPOCH, b"")
    assert group.hosts[COPY].disk[epoch] == group.hosts["a"].disk[epoch]


def test_strangers_get_a_cookie_and_streams_are_closed() -> None:
    group = asking()
    node, now = group.node(COPY), Instant(group.now)
    assert node.stream_accepted(StreamId(1), Address("10.9.9.9", 1), now) == [CloseStream(StreamId(1))]
    hello = next(p for _, source, _, p in group.trace if source == "b" and p[1] == PacketType.HELLO)
    (answer,) = node.receive_datagram(hello, group.hosts["b"].address, now)
    assert answer.payload[1] == PacketType.COOKIE
    sealed = next(p for _, source, _, p in group.trace if source == "b" and p[1] == PacketType.DATA)
    assert node.receive_datagram(sealed, group.hosts["b"].address, now) == []
    assert node.port_refused(group.hosts["a"].address, now) == []
    assert node.statistics().dropped["before our start"] == 1


def test_seeds_that_change_meanwhile_are_asked_afterwards() -> None:
    group = asking()
    assert group.node(COPY).seeds_changed([group.hosts["d"].address], Instant(group.now)) == []
    group.run(2)
    assert group.node(COPY)._entrance.seeds == (group.hosts["d"].address,)


def test_services_of_before_the_answer_are_told_after_it() -> None:
    group = mesh()
    group.kill("a", silent=True)
    node = group.copy("b")
    effects = node.publish_services((), Instant(group.now))
    assert not [e for e in effects if isinstance(e, Persist) and e.kind is PersistKind.EPOCH]
    group.perform(group.hosts[COPY], effects)
    group.run(5)
    assert group.all_at(COPY)
    assert node.incarnation[1] == 2


# Nobody without the key


def settle_one(seed: int) -> Copies:
    """Return a mesh in which a copy was told to end."""
    group = mesh(seed=seed)
    group.copy("b")
    group.run_until(lambda: group.ended(COPY), 1)
    return group


@pytest.mark.parametrize("seed", range(6))
def test_an_exchange_replayed_ends_nobody(seed: int) -> None:
    """Each question and ruling that was ever sent is sent again: at once, later, and to the next run."""
    group = settle_one(seed)
    kinds = (PacketType.RIVAL, PacketType.RULING, PacketType.COOKIE)
    recorded = [(source, p) for _, source, _, p in group.trace if p[1] in kinds]
    assert {payload[1] for _, payload in recorded} == set(kinds)
    places = [host.address for host in group.hosts.values()]
    for round_ in range(3):
        if round_ == 2:
            group.kill("a")
            group.start("a", "b")
            group.run(3)
        for _, payload in recorded:
            for place in places:
                node = group.node("a")
                group.perform(group.hosts["a"], node.receive_datagram(payload, place, Instant(group.now)))
        group.run(4)
        assert group.left_of_two() == ["a"]
    assert group.all_at("a")


def answered_by(group: Group, name: str, packets: Sequence[bytes], sender: Address) -> set[int]:
    """Give packets to a node; return the types of what it sends in answer."""
    host, kinds = group.hosts[name], set()
    for packet in packets:
        effects = group.node(name).receive_datagram(packet, sender, Instant(group.now))
        kinds |= {effect.payload[1] for effect in effects if hasattr(effect, "payload")}
        group.perform(host, effects)
    return kinds


@pytest.mark.parametrize("run", [1, 2**62], ids=["it decides", "we decide"])
def test_a_rival_without_our_key_is_no_rival(run: int) -> None:
    """It has a cookie of ours for its address and run, and lies about its id."""
    group = mesh()
    node, thief = group.node("a"), Address("10.9.9.9", 9)
    tag, short, own_run = node._ctx.group_tag, node._courier._own_short, node._ctx.run_id
    cookie = node._handshake._jar.bake(str(thief), run, node._ctx.now // SECOND_NS)
    proof = node._rivals._proof(b"rival", run, own_run, cookie + bytes(16) + _numbers(2**40, 9))
    rival = Rival(cookie, own_run, bytes(16), 2**40, 9, key_of("b").sign(proof))
    packet = encode_header(Header(1, PacketType.RIVAL, tag, short, run, 0)) + encode(rival)
    assert answered_by(group, "a", [packet], thief) == set()
    group.run(5)
    assert not group.ended("a")
    assert not node._rivals._questions


def forged_ruling(node: GossipNode, nonce: bytes, run: int, signer: str) -> bytes:
    proof = node._rivals._proof(b"ruling", run, node._ctx.run_id, nonce + _numbers(0, 9))
    ruling = Ruling(nonce, False, 9, key_of(signer).sign(proof))
    header = Header(1, PacketType.RULING, node._ctx.group_tag, node._courier._own_short, run, 0)
    return encode_header(header) + encode(ruling)


def cookie_for(node: GossipNode, hello: bytes, run: int) -> bytes:
    """Return the answer to a hello of somebody who pretends to be the same node."""
    echo = decode_header_untrusted(hello).counter
    header = Header(1, PacketType.COOKIE, node._ctx.group_tag, node._courier._own_short, run, echo)
    return encode_header(header) + encode(Cookie(b"baked elsewhere"))


def test_whoever_lacks_the_key_cannot_rule_only_delay_us() -> None:
    """A stranger sits where we were, says to be us, and rules by a key of its own."""
    group = asking()
    node, there = group.node(COPY), group.hosts["a"].address
    run, begun = 2**62, group.now
    for _ in range(20):
        hello = group.packets(COPY, PacketType.HELLO)[-1]
        answered_by(group, COPY, [cookie_for(node, hello, run)], there)
        (question,) = node._rivals._questions.values()
        answered_by(group, COPY, [forged_ruling(node, question.nonce, run, "b")], there)
        run -= 1
        group.run(0.1)
    group.cut = {frozenset((COPY, "a"))}
    group.run_until(lambda: not node._rivals.is_asking, 2)
    assert group.now - begun <= 3.3 * SECOND_NS
    assert not [e for e in group.hosts[COPY].events if isinstance(e, IdentityCopied)]


def test_a_ruling_that_our_key_signed_ends_us_and_only_with_our_nonce_and_by_who_may_decide() -> None:
    group = asking()
    node, there = group.node(COPY), group.hosts["a"].address
    (question,) = node._rivals._questions.values()
    hello = group.packets(COPY, PacketType.HELLO)[-1]
    for run, nonce, ends in [
        (2**62, bytes(16), False),
        (1, question.nonce, False),
        (2**62, question.nonce, True),
    ]:
        answered_by(group, COPY, [cookie_for(node, hello, run)], there)
        answered_by(group, COPY, [forged_ruling(node, nonce, run, "a")], there)
        assert group.ended(COPY) is ends


def test_our_own_words_sent_back_to_us_are_nobodys() -> None:
    """A stranger makes us ask it by a cookie in our name, and gives us the question back."""
    group = mesh()
    node, thief = group.node("a"), Address("10.9.9.9", 9)
    run = 2**62
    group.perform(group.hosts["a"], node.seeds_changed([thief], Instant(group.now)))
    hello = [p for _, source, to, p in group.trace if source == "a" and to == str(thief)][-1]
    answered_by(group, "a", [cookie_for(node, hello, run)], thief)
    (question,) = group.packets("a", PacketType.RIVAL)
    head = decode_header_untrusted(question)
    for pretended in (head.run, run):
        changed = encode_header(head._replace(run=pretended)) + question[HEADER_BYTES:]
        assert answered_by(group, "a", [question, changed], thief) == set()
    group.run(5)
    assert not group.ended("a")
    assert group.all_at("a")


def test_any_bytes_are_refused_quietly() -> None:
    group = asking()
    rng = random.Random(1)
    node = group.node(COPY)
    for kind in (PacketType.RIVAL, PacketType.RULING):
        head = Header(1, kind, node._ctx.group_tag, node._courier._own_short, 5, 0)
        bodies = [rng.randbytes(rng.randrange(200)) for _ in range(200)]
        bodies += [encode(Rival(b"", 1, bytes(16), 1, 1, b"")), encode(Ruling(bytes(16), False, 1, b""))]
        packets = [encode_header(head) + body for body in bodies]
        assert answered_by(group, COPY, packets, Address("10.9.9.9", 9)) == set()
    assert not group.ended(COPY)


# Peers of a build that does not know the question


@pytest.mark.parametrize("deaf", ["a", COPY])
def test_a_build_that_does_not_know_the_question_changes_nothing_for_others(deaf: str) -> None:
    group = mesh()
    group.run(60)
    perform = group.perform

    def older(host: Host, effects: list) -> None:
        kinds = (PacketType.RIVAL, PacketType.RULING)
        unknown = [e for e in effects if getattr(e, "payload", b"\0\0")[1] in kinds]
        perform(host, [e for e in effects if host.name != deaf or e not in unknown])

    group.perform = older
    group.copy("b")
    group.run_until(lambda: len(group.left_of_two()) == 1, 25)
    group.run(10)
    (left,) = group.left_of_two()
    assert group.all_at(left)
    assert group.node(left).incarnation[1] <= 6
