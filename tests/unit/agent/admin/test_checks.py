"""This node's own checks: each fault has its mark, and says why it matters and what to do."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gossipmesh.agent.admin import checks, key_checks
from gossipmesh.agent.admin.check_facts import Disk, Facts
from gossipmesh.agent.admin.mesh_checks import MeshView
from gossipmesh.agent.config import parse_config_untrusted
from gossipmesh.agent.engine.engine_view import DrainingEngine, EngineView
from gossipmesh.gossip.base.effects import Opened
from gossipmesh.gossip.base.settings import GossipStatistics
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.opening import HowOpened
from gossipmesh.model.records import PolicyStatus
from gossipmesh.model.service import EndpointHealth
from gossipmesh.trust.alarms import Alarms
from tests.unit.agent.admin.member_rows import itself

WALL_S = 1_800_000_000
HOUR_S = 3_600
DAY_S = 86_400
GIBIBYTE = 2**30
MEBIBYTE = 2**20
CONFIG = """
apiVersion: gossipmesh.dev/v1
kind: AgentConfig
spec:
  gossip: {bind: "127.0.0.1:7948"}
  mesh: {bind: "127.0.0.1:15008"}
"""


def state(*policies: PolicyStatus) -> Any:
    """Return what a node says of itself, as far as it is checked."""
    here = (Address("127.0.0.1", 7948),)
    return SimpleNamespace(policies=policies, gossip_addresses=here, mesh_addresses=here, features=())


class Node:
    """What checks read of a core that is well."""

    def __init__(self) -> None:
        self.local_health = 0
        self.own_state = state(PolicyStatus("mesh", 2, b""))
        self.roll_missing_count: int | None = 0
        self.skew_s, self.peers, self.below_s = 0, 4, 0
        self.alive, self.members, self.held = 3, 3, 0
        self.gone: list[str] = []

    def statistics(self) -> GossipStatistics:
        return GossipStatistics(
            clock_skew_s=self.skew_s, clock_peers=self.peers, clock_below_records_s=self.below_s
        )

    def tally(self) -> Any:
        by_status = {MemberStatus.ALIVE: self.alive}
        return SimpleNamespace(
            by_status=by_status, members_count=self.members, endpoints_retained_count=self.held
        )

    def names(self, statuses: Any, count_max: int) -> list[str]:
        return self.gone

    def state_sums(self) -> tuple[bytes, bytes]:
        return bytes(16), bytes(16)


class Agent:
    """An agent's parts, all well; a test changes what it is about."""

    def __init__(self) -> None:
        self.node = Node()
        self.config = parse_config_untrusted(CONFIG, Path("agent.yaml"))
        self.ends, self.missing = WALL_S + 35 * DAY_S, list[str]()
        self.disallowed = list[str]()
        self.leaves_end, self.answered = WALL_S + 12 * HOUR_S, WALL_S - 12 * HOUR_S
        self.waits = ""
        self.identity = SimpleNamespace(
            failure=None,
            missing_services=lambda: self.missing,
            disallowed_services=lambda: self.disallowed,
            authorities=("10.0.0.1:7900",),
            identity=SimpleNamespace(svids={}),
            keys=SimpleNamespace(
                failure=None,
                turns_count=3,
                turning=SimpleNamespace(
                    turn_at=0, waits_for=lambda _: self.waits, is_heard=True, holding=SimpleNamespace(keys={})
                ),
            ),
        )
        self.told = EngineView(7, True, "ab", "ab", None, "", True, 1, name="reference/1")
        self.gate = SimpleNamespace(is_closed=False, why="", opened=None)
        self.engine = SimpleNamespace(view=lambda: self.told, takes_pins=True)
        self.addresses = SimpleNamespace(lost={}, follows=True, published_count=0, held_back_count=0)
        self.documents = SimpleNamespace(
            kept_floors=list, in_force=lambda scope: None, scopes=list, alarms=Alarms()
        )
        self.feed = SimpleNamespace(snapshot=None, unenforced=[])
        self.health = EndpointHealth.PASSING
        entry = SimpleNamespace(service="shop/cart", workload=Address("127.0.0.1", 9000), registration="cart")
        self.services = SimpleNamespace(
            problems=lambda: self.file_problems, registrations=lambda: [entry], health=lambda _: self.health
        )
        self.file_problems: list[str] = []
        self.port_problems: list[str] = []
        self.facts = Facts([Address("127.0.0.1", 9000)], Disk(20 * GIBIBYTE, 40 * GIBIBYTE), None)

    def engine_port_problems(self) -> list[str]:
        return self.port_problems


def marks(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the mark of every row that is not ok; each of them says why and what to do."""
    monkeypatch.setattr(key_checks, "wall_seconds", lambda: WALL_S)
    monkeypatch.setattr(key_checks, "horizon", lambda _: agent.ends)
    monkeypatch.setattr(key_checks, "leaves_end", lambda _: agent.leaves_end)
    monkeypatch.setattr(key_checks, "answered_at", lambda _: agent.answered)
    view = MeshView()
    view.take(itself())
    parts: Any = agent
    rows = checks.run_checks(parts, agent.facts, view, [])
    wrong = [row for row in rows if row["mark"] != "ok"]
    for row in wrong:
        assert row["why"], row
        assert row["hint"], row
    return {row["name"]: row["mark"] for row in wrong}


def disk(free_bytes: int, size_bytes: int) -> Callable[[Agent], None]:
    def change(agent: Agent) -> None:
        agent.facts = agent.facts._replace(disk=Disk(free_bytes, size_bytes))

    return change


def told(**fields: Any) -> Callable[[Agent], None]:
    """Return a change of what the engine's supervisor tells."""
    return lambda agent: vars(agent).update(told=msgspec.structs.replace(agent.told, **fields))


def draining(refused_version: str | None) -> DrainingEngine:
    """Return an engine that was replaced."""
    return DrainingEngine(6, "reference/1", "ab", refused_version, 30, 2, 0)


def core(**fields: Any) -> Callable[[Agent], None]:
    return lambda agent: vars(agent.node).update(fields)


def agent_with(**fields: Any) -> Callable[[Agent], None]:
    return lambda agent: vars(agent).update(fields)


REFUSED = state(PolicyStatus("mesh", 2, b"", 3, b"", "it requires http-route"))


def gate(**fields: Any) -> Callable[[Agent], None]:
    """Return a change of whether the node is open, and by what."""
    return lambda agent: vars(agent.gate).update(fields)


WRONG: dict[str, tuple[Callable[[Agent], None], dict[str, str]]] = {
    "it is closed": (gate(is_closed=True, why="it waits for 3 open members"), {"opening": "FAIL"}),
    "one opened it": (gate(opened=Opened(HowOpened.BY_FEWER, 1, 3)), {"opening": "warn"}),
    "a hand opened it": (gate(opened=Opened(HowOpened.BY_HAND, 0, 3)), {"opening": "warn"}),
    "its credential ends soon": (agent_with(ends=WALL_S + 3 * HOUR_S), {"identity": "FAIL"}),
    "the authority is silent": (agent_with(answered=WALL_S - 3 * DAY_S), {"identity": "warn"}),
    "no certificate is valid": (agent_with(leaves_end=WALL_S - 1), {"certificates": "warn"}),
    "a turn waits": (agent_with(waits="the engine has not confirmed"), {"keys": "warn"}),
    "an engine of the build before": (lambda a: vars(a.engine).update(takes_pins=False), {"keys": "warn"}),
    "keys are not written": (lambda a: vars(a.identity.keys).update(failure="no space"), {"keys": "warn"}),
    "somebody else has its key": (
        lambda a: vars(a.node.own_state).update(features=("foreign-keys",)),
        {"foreign keys": "FAIL"},
    ),
    "the roll has not come": (core(roll_missing_count=None), {"roll": "warn"}),
    "pages of it are missing": (core(roll_missing_count=3), {"roll": "warn"}),
    "a renewal failed": (lambda a: vars(a.identity).update(failure="no answer"), {"identity": "warn"}),
    "a service without one": (agent_with(missing=["shop/cart"]), {"service identities": "FAIL"}),
    "a service that it may not be": (
        agent_with(missing=["shop/cart"], disallowed=["shop/cart"]),
        {"service identities": "FAIL"},
    ),
    "the authority is gone": (
        lambda a: vars(a).update(facts=a.facts._replace(authority_failure="Connection refused")),
        {"authority": "warn"},
    ),
    "its address went": (
        lambda a: vars(a.addresses).update(lost={"spec.gossip.bind": "192.0.2.77"}, follows=False),
        {"addresses": "FAIL"},
    ),
    "the clock drifts": (core(skew_s=-30), {"clock": "warn"}),
    "the clock is wrong": (core(skew_s=90), {"clock": "FAIL"}),
    "it is below what was signed": (core(below_s=311), {"clock": "FAIL"}),
    "the only peer says so": (core(skew_s=90, peers=1), {"clock": "FAIL"}),
    "the disk fills": (disk(3 * GIBIBYTE, 40 * GIBIBYTE), {"disk": "warn"}),
    "the disk is full": (disk(9 * MEBIBYTE, 40 * GIBIBYTE), {"disk": "FAIL"}),
    "alone": (core(alive=1, gone=["n2", "n3"]), {"group": "FAIL"}),
    "it doubts itself": (core(local_health=3), {"local health": "warn"}),
    "it believes nothing it hears": (core(local_health=7), {"local health": "FAIL"}),
    "many died": (core(held=2), {"mass death": "FAIL"}),
    "no engine": (told(attached=False), {"engine": "FAIL"}),
    "an engine that lacks something": (told(lacks=("pins",)), {"engine build": "warn"}),
    "policy beyond the engine": (
        lambda a: vars(a.feed).update(unenforced=[("MeshPolicy shop/all", ["unregistered"])]),
        {"engine policy": "FAIL"},
    ),
    "an engine before with older rules": (told(draining=draining("old")), {"engine before": "warn"}),
    "an old snapshot": (told(acked_version="aa", refused_version="ab"), {"snapshot": "FAIL"}),
    "a silent mesh port": (told(answering=False), {"mesh port": "FAIL"}),
    "no places": (told(full=("mesh",)), {"places": "FAIL"}),
    "a port that is taken": (agent_with(port_problems=["127.0.0.1:80 is in use"]), {"upstream port": "FAIL"}),
    "a set refused": (core(own_state=REFUSED), {"policy": "FAIL"}),
    "a set that cannot be read": (
        lambda a: vars(a.documents).update(kept_floors=lambda: [("mesh", 2, b"")]),
        {"policy": "FAIL"},
    ),
    "a bad file": (agent_with(file_problems=["cart.yaml: no service"]), {"service file": "FAIL"}),
    "a workload that fails": (agent_with(health=EndpointHealth.FAILING), {"service": "FAIL"}),
    "a workload around the mesh": (
        lambda a: vars(a).update(facts=a.facts._replace(listening=[Address("0.0.0.0", 9000)])),
        {"exposure": "warn"},
    ),
}
FINE: dict[str, Callable[[Agent], None]] = {
    "all is well": lambda agent: None,
    "an engine before that finishes": told(draining=draining(None)),
    "others are dead": core(alive=2, gone=["n3"]),
    "one alone": core(alive=1, members=1),
    "a small disk with room": disk(3 * MEBIBYTE, 4 * MEBIBYTE),
    "a disk that cannot be asked": lambda a: vars(a).update(facts=a.facts._replace(disk=None)),
    "its clock is five minutes behind what was signed": core(below_s=310),
    "no authority is known": lambda a: vars(a.identity).update(authorities=()),
    "no policy": core(own_state=state()),
    "three opened it": gate(opened=Opened(HowOpened.BY_PEERS, 3, 3)),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_fault_has_its_mark_and_no_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, expected = WRONG[name]
    agent = Agent()
    change(agent)
    assert marks(agent, monkeypatch) == expected


@pytest.mark.parametrize("name", list(FINE))
def test_what_is_well_is_ok(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent()
    FINE[name](agent)
    assert marks(agent, monkeypatch) == {}


@pytest.mark.parametrize(
    ("skew_s", "peers_count", "text"),
    [
        (300, 4, "300 s behind the median of 4 peers"),
        (-300, 3, "300 s ahead of the median of 3 peers"),
        (-300, 2, "300 s ahead of both peers heard: too few to tell whose is off"),
        (300, 1, "300 s behind the only peer heard: too few to tell whose is off"),
        (0, 0, "0 s ahead of the median of no peer: none has told its clock yet"),
    ],
)
def test_the_clock_says_by_how_many_it_is_judged(skew_s: int, peers_count: int, text: str) -> None:
    agent: Any = Agent()
    core(skew_s=skew_s, peers=peers_count)(agent)
    (row,) = checks._check_clock(agent)
    assert row["detail"] == text
    assert row["evidence"] == {"skew_s": skew_s, "peers": peers_count, "below_records_s": 0}


def test_a_clock_below_what_was_signed_says_which_date_counts() -> None:
    agent: Any = Agent()
    core(below_s=86_400)(agent)
    (row,) = checks._check_clock(agent)
    assert "86400 s behind the newest date that the authority signed, which counts instead" in row["detail"]
