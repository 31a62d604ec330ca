"""Keys turn without ever showing one that is not known, whatever ends in between, whatever the clock says."""

import hashlib
import itertools
import random
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipmesh.agent.identity.key_turning import Holding, KeyTurning, LeafKey, Pins
from gossipmesh.model.instant import DAY_S, NEVER, SECOND_NS, Instant, WallSeconds

NODE: Final = "spiffe://mesh.test/node/vm1"
CART: Final = "spiffe://mesh.test/ns/shop/svc/cart"
PERIOD_S: Final = 7 * DAY_S


def key_maker() -> Callable[[str], LeafKey]:
    """Return what makes keys that are all different, the same ones in each run."""
    numbers = itertools.count()

    def make(name: str) -> LeafKey:
        return LeafKey(hashlib.sha256(f"{name} {next(numbers)}".encode()).digest()[:16], b"key")

    return make


class Surroundings:
    """A disk, peers and an engine around the machine; each lags behind and dies as the test says."""

    def __init__(self, peers_count: int = 3) -> None:
        self.make = key_maker()
        self.now, self.wall = Instant(0), WallSeconds(1_800_000_000)
        self.disk = Holding({}, self.wall)
        self.writing: Holding | None = None
        self.sets: list[Pins] = [{}]
        self.peers = [0] * peers_count
        self.engine: dict[str, LeafKey] | None = {}
        self.asked: dict[str, LeafKey] = {}
        self.turns_count = 0
        self.started()

    def started(self) -> None:
        """Have the agent start from what is on disk."""
        self.writing = None
        self.machine = KeyTurning(
            self.disk, period_s=PERIOD_S, make_key=self.make, now=self.now, wall=self.wall
        )
        self.machine.want([NODE, *self.disk.keys])
        self.act()

    def act(self) -> None:
        """Do what the machine asks for, as the agent would: publish, ask the engine, begin to write."""
        if self.machine.turn_if_due(self.now, self.wall):
            self.turns_count += 1
        pins = self.machine.to_publish
        if pins is not None:
            assert all(set(found) <= self.disk_pins(name) for name, found in pins.items())
            self.sets.append(pins)
            self.machine.published(pins)
        self.tell_heard()
        if self.writing is None:
            self.writing = self.machine.begin_write()
        self.asked = self.machine.to_show
        self.check()

    def disk_pins(self, name: str) -> set[bytes]:
        return set(self.disk.pins.get(name, ()))

    def tell_heard(self) -> None:
        if self.machine.to_publish is None:
            newest = len(self.sets) - 1
            self.machine.heard(self.peers.count(newest), len(self.peers))

    # What may happen

    def disk_answers(self) -> None:
        if self.writing is not None:
            self.disk, self.writing = self.writing, None
            self.machine.written(is_on_disk=True)

    def disk_is_full(self) -> None:
        if self.writing is not None:
            self.writing = None
            self.machine.written(is_on_disk=False)

    def disk_answers_and_the_agent_dies(self) -> None:
        if self.writing is not None:
            self.disk = self.writing
        self.started()

    def agent_dies(self) -> None:
        self.started()

    def peer_hears(self, number: int) -> None:
        if self.peers:
            self.peers[number % len(self.peers)] = len(self.sets) - 1

    def engine_confirms(self) -> None:
        if self.engine is not None:
            self.engine = self.asked
            self.machine.shown({name: key.pin for name, key in self.engine.items()})

    def engine_takes_and_the_agent_dies(self) -> None:
        if self.engine is not None:
            self.engine = self.asked
        self.started()

    def engine_dies(self) -> None:
        self.engine = {}
        self.machine.shown({})

    def time_passes(self, seconds: int) -> None:
        self.now = Instant(self.now + seconds * SECOND_NS)
        self.wall = WallSeconds(self.wall + seconds)

    def clock_is_set(self, seconds: int) -> None:
        self.wall = WallSeconds(max(1, self.wall + seconds))

    def wants_cart(self) -> None:
        self.machine.want([NODE, CART])

    # What must hold

    def check(self) -> None:
        """Nothing is shown that is not on disk, published, and held by enough peers."""
        enough = min(2, len(self.peers))
        for name, key in (self.engine or {}).items():
            assert key.pin in self.disk_pins(name), "the engine shows a key that is not on disk"
            assert key.pin in self.sets[-1].get(name, ()), "the engine shows a key whose pin was dropped"
            holders = sum(key.pin in self.sets[held].get(name, ()) for held in self.peers)
            assert holders >= enough, f"{holders} peers know the key that the engine shows"
        lost = set(self.engine or ()) - set(self.asked)
        assert not lost, "the engine is to lose a key that is in use"

    def settle(self) -> None:
        """Let everything answer until nothing more is to be done."""
        for _ in range(12):
            self.disk_answers()
            self.act()
            for number in range(len(self.peers)):
                self.peer_hears(number)
            self.act()
            self.engine_confirms()
            self.act()


STEPS: Final[dict[str, Callable[[Surroundings], None]]] = {
    "all answer": Surroundings.settle,
    "disk": Surroundings.disk_answers,
    "disk full": Surroundings.disk_is_full,
    "disk, then the agent dies": Surroundings.disk_answers_and_the_agent_dies,
    "the agent dies": Surroundings.agent_dies,
    "peer 0": lambda around: around.peer_hears(0),
    "peer 1": lambda around: around.peer_hears(1),
    "peer 2": lambda around: around.peer_hears(2),
    "engine": Surroundings.engine_confirms,
    "engine, then the agent dies": Surroundings.engine_takes_and_the_agent_dies,
    "the engine dies": Surroundings.engine_dies,
    "a period": lambda around: around.time_passes(PERIOD_S + PERIOD_S // 4),
    "an hour": lambda around: around.time_passes(3_600),
    "clock back": lambda around: around.clock_is_set(-30 * DAY_S),
    "clock forward": lambda around: around.clock_is_set(30 * DAY_S),
    "a service": Surroundings.wants_cart,
    "turn": lambda around: around.machine.ask_turn(),
    "stolen": lambda around: around.machine.ask_turn(stolen=True),
}


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 3), st.lists(st.sampled_from(sorted(STEPS)), max_size=60))
def test_no_key_is_shown_before_it_is_known(peers_count: int, steps: list[str]) -> None:
    around = Surroundings(peers_count)
    for step in steps:
        STEPS[step](around)
        around.act()
    around.settle()
    before = around.machine.holding.keys[NODE].current.pin
    around.time_passes(2 * PERIOD_S)
    around.act()
    around.settle()
    held = around.machine.holding.keys[NODE]
    assert held.current.pin != before, "keys do not turn any more"
    assert held.former is None
    assert around.engine is not None
    assert around.engine[NODE].pin == held.current.pin
    assert around.disk == around.machine.holding


SCRIPT: Final = [
    *("disk", "peer 0", "peer 1", "engine", "disk", "a service", "disk", "peer 0", "peer 1"),
    *("disk", "engine", "disk", "a period", "disk", "engine", "peer 0", "peer 1", "disk", "peer 0", "peer 1"),
    *("turn", "disk", "peer 1", "peer 0", "engine", "disk", "stolen", "disk", "peer 1", "peer 2", "disk"),
    *("engine", "disk"),
]
ENDS: Final = (
    "the agent dies",
    "disk, then the agent dies",
    "engine, then the agent dies",
    "the engine dies",
)


@pytest.mark.parametrize("end", ENDS)
def test_what_ends_at_any_step_goes_on(end: str) -> None:
    for position in range(len(SCRIPT) + 1):
        around = Surroundings()
        for step in (*SCRIPT[:position], end, *SCRIPT[position:]):
            STEPS[step](around)
            around.act()
        around.settle()
        held = around.machine.holding.keys[NODE]
        assert (held.is_used, held.former) == (True, None), position
        assert around.engine == {name: keys.current for name, keys in around.machine.holding.keys.items()}


def turned_once(around: Surroundings) -> Mapping[str, LeafKey]:
    around.settle()
    return {name: held.current for name, held in around.machine.holding.keys.items()}


def test_a_first_key_is_used_as_soon_as_two_peers_hold_its_pin() -> None:
    around = Surroundings(peers_count=5)
    around.disk_answers()
    around.act()
    around.peer_hears(0)
    around.act()
    assert around.asked == {}
    around.peer_hears(1)
    around.act()
    around.disk_answers()
    around.act()
    assert list(around.asked) == [NODE]


def test_a_node_alone_uses_its_first_key_once_it_is_on_disk() -> None:
    around = Surroundings(peers_count=0)
    assert around.asked == {}
    for _ in range(2):
        around.disk_answers()
        around.act()
    assert list(around.asked) == [NODE]


def test_the_next_key_was_published_a_whole_period_before_its_turn() -> None:
    around = Surroundings()
    before = turned_once(around)
    coming = around.machine.holding.keys[NODE].next
    around.time_passes(PERIOD_S - 1)
    around.act()
    assert around.machine.holding.keys[NODE].current == before[NODE]
    around.time_passes(PERIOD_S // 4)
    around.act()
    assert around.machine.holding.keys[NODE].current == coming
    assert around.asked == before  # until the new set is on disk
    around.disk_answers()
    around.act()
    assert around.asked == {NODE: coming}


def test_a_pin_stays_until_the_engine_shows_the_next_key_and_peers_hold_the_set() -> None:
    around = Surroundings()
    before = turned_once(around)
    around.machine.ask_turn()
    around.act()
    around.disk_answers()
    around.act()
    assert before[NODE].pin in around.sets[-1][NODE]
    assert len(around.sets[-1][NODE]) == 3
    around.engine_confirms()
    around.act()
    assert around.machine.holding.keys[NODE].former == before[NODE]
    around.peer_hears(0)
    around.peer_hears(1)
    around.act()
    around.disk_answers()
    around.act()
    assert before[NODE].pin not in around.sets[-1][NODE]


def test_a_turn_waits_for_the_engine_and_says_so() -> None:
    around = Surroundings()
    turned_once(around)
    around.machine.ask_turn()
    around.act()
    around.disk_answers()
    around.machine.ask_turn()
    around.act()
    assert around.turns_count == 1
    assert "the engine has not confirmed" in around.machine.waits_for(around.now)
    around.settle()
    assert around.turns_count == 2
    assert around.machine.waits_for(around.now) == ""


def test_an_older_engine_keeps_its_key() -> None:
    around = Surroundings()
    before = turned_once(around)
    around.machine.engine_able(False)
    around.time_passes(2 * PERIOD_S)
    around.act()
    assert around.machine.holding.keys[NODE].current == before[NODE]
    assert "certificates of the authority alone" in around.machine.waits_for(around.now)


def test_after_a_theft_neither_key_is_used_again() -> None:
    around = Surroundings()
    turned_once(around)
    stolen = set(around.machine.holding.pins[NODE])
    around.machine.ask_turn(stolen=True)
    around.act()
    around.disk_answers()
    around.act()
    assert len(stolen & set(around.sets[-1][NODE])) == 1, "what the engine shows, and nothing else"
    around.settle()
    assert not stolen & set(around.sets[-1][NODE])


@pytest.mark.parametrize("moved_s", [-400 * DAY_S, 400 * DAY_S])
def test_a_clock_that_is_set_turns_nothing_while_the_agent_runs(moved_s: int) -> None:
    around = Surroundings()
    before = turned_once(around)
    around.clock_is_set(moved_s)
    around.time_passes(PERIOD_S // 2)
    around.act()
    assert around.machine.holding.keys[NODE].current == before[NODE]
    around.time_passes(PERIOD_S)
    around.act()
    assert around.machine.holding.keys[NODE].current != before[NODE]


def test_a_clock_set_back_over_a_restart_delays_a_turn_by_one_period_at_most() -> None:
    around = Surroundings()
    before = turned_once(around)
    around.clock_is_set(-400 * DAY_S)
    for _ in range(8):  # restarts, each a sixth of a period after the one before
        around.agent_dies()
        around.settle()
        around.time_passes(PERIOD_S // 6)
        around.act()
    assert around.machine.holding.keys[NODE].current != before[NODE]


def test_nodes_that_joined_together_do_not_turn_together() -> None:
    moments = []
    for number in range(40):
        around = Surroundings()
        rng = random.Random(number)
        around.make = lambda name, rng=rng: LeafKey(rng.randbytes(16), b"key")  # type: ignore[misc]
        around.disk = Holding({}, around.wall)
        around.started()
        around.settle()
        around.agent_dies()
        moments.append(around.machine.turn_at / SECOND_NS / PERIOD_S)
    assert 1.0 <= min(moments) < 1.05
    assert 1.15 < max(moments) <= 1.2


def test_chains_are_kept_with_their_keys_and_travel_with_them() -> None:
    around = Surroundings()
    turned_once(around)
    held = around.machine.holding.keys[NODE]
    others = LeafKey(bytes(16), b"key", b"nobody's")
    around.machine.certified({held.next.pin: LeafKey(held.next.pin, b"key", b"chain"), bytes(16): others})
    around.act()
    around.machine.ask_turn()
    around.act()
    around.settle()
    assert around.machine.holding.keys[NODE].current.chain_pem == b"chain"


def test_a_service_that_is_not_allowed_any_more_is_in_no_set() -> None:
    around = Surroundings()
    around.wants_cart()
    around.settle()
    assert set(around.sets[-1]) == {NODE, CART}
    around.machine.want([NODE])
    around.engine = {name: key for name, key in (around.engine or {}).items() if name == NODE}
    around.act()
    around.settle()
    assert set(around.sets[-1]) == {NODE}
    around.machine.want([])
    assert around.machine.turn_at == NEVER


def test_keys_are_not_shown_in_texts() -> None:
    assert "secret" not in repr(LeafKey(bytes(16), b"secret"))


def certified(key: LeafKey) -> LeafKey:
    return msgspec.structs.replace(key, chain_pem=b"chain")


def test_with_a_member_that_needs_certificates_no_key_without_one_is_shown() -> None:
    """Neither after a turn nor as the first of a service, until the authority has answered."""
    around = Surroundings()
    before = turned_once(around)
    around.machine.certified_only(True)
    around.machine.ask_turn()
    around.act()
    around.wants_cart()
    around.settle()
    assert around.engine == before
    held = around.machine.holding.keys
    assert (held[NODE].former, held[CART].is_used) == (before[NODE], False)
    around.machine.ask_turn()
    assert "no certificate yet" in around.machine.waits_for(around.now)
    around.machine.certified({keys.current.pin: certified(keys.current) for keys in held.values()})
    shown = {name: certified(keys.current) for name, keys in held.items()}
    around.settle()
    assert around.turns_count == 2, "the turn that was asked for meanwhile"
    assert around.engine == shown, "the keys of the second turn are not certified"
    around.machine.certified_only(False)
    around.settle()
    assert around.engine == {name: keys.current for name, keys in around.machine.holding.keys.items()}


def test_a_turn_to_certified_keys_waits_for_nothing() -> None:
    around = Surroundings()
    turned_once(around)
    around.machine.certified_only(True)
    coming = around.machine.holding.keys[NODE].next
    around.machine.certified({coming.pin: certified(coming)})
    around.machine.ask_turn()
    around.settle()
    assert around.engine is not None
    assert around.engine[NODE].pin == coming.pin


def test_a_hindered_turn_is_made_up_for() -> None:
    around = Surroundings()
    before = turned_once(around)
    around.machine.hinder("the authority is old")
    around.time_passes(2 * PERIOD_S)
    around.settle()
    assert (around.machine.waits_for(around.now), around.engine) == ("the authority is old", before)
    around.machine.hinder("")
    around.settle()
    assert around.engine != before
