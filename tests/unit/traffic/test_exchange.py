"""What may be said when, what is left behind, and that the documents name what there is."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipmesh.model.instant import NEVER, SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import (
    InboundSection,
    RetryRule,
    Route,
    RouteMatch,
    RoutesSection,
    UpstreamSection,
    WeightedUpstream,
)
from gossipmesh.traffic import endings
from gossipmesh.traffic.actions import Action, Answer, Connect, Request, Reset, Wait
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from gossipmesh.traffic.endings import ENDINGS
from gossipmesh.traffic.exchange import TURNS, Exchange, OutOfTurn, Phase
from gossipmesh.traffic.ground import Ground
from gossipmesh.traffic.inbound import InboundExchange
from gossipmesh.traffic.tables import Tables
from tests.unit.traffic.builders import endpoint, upstream

DOCS = Path(__file__).parents[3] / "docs" / "TRAFFIC.md"
NOW = Instant(SECOND_NS)
GET = Request(None, "cart.shop", "/", "GET", uid=7)
SNI = "cart.cart.shop.mesh.example"
CALLER = "spiffe://mesh.example/ns/shop/svc/web"


def route(**changes: Any) -> Route:
    values: dict[str, Any] = {
        "name": "shop/cart",
        "hostnames": (),
        "match": RouteMatch(None, None, ()),
        "backends": (WeightedUpstream("shop/cart", 1),),
        "request_timeout_ns": 10 * SECOND_NS,
        "try_timeout_ns": SECOND_NS,
        "retry": RetryRule(2, (503,), 25_000_000),
    }
    return Route(**{**values, **changes})


def tables(section: UpstreamSection | None = None, protocol: str = "http") -> Tables:
    inbound = InboundSection(
        "cart", "shop/cart", protocol, SNI, CALLER, Address("127.0.0.1", 80), (), default_allow=True
    )
    routes = RoutesSection("shop/cart", protocol, (route(),))
    listed = section or upstream(endpoint("a"), endpoint("b"))
    return Tables((routes, listed, inbound, DEFAULT_LIMITS), "")


def ground(**changes: Any) -> Ground:
    made = Ground(random.Random(1))
    made.apply(tables(**changes), NOW)
    return made


def connecting(request: Request = GET) -> Exchange:
    exchange = Exchange(ground(), request)
    exchange.begin(NOW)
    return exchange


def sending() -> Exchange:
    exchange = connecting()
    exchange.connected(NOW)
    return exchange


def told(exchange: Exchange, *inputs: Callable[[Exchange], object]) -> Exchange:
    for say in inputs:
        say(exchange)
    return exchange


def head(status: int) -> Callable[[Exchange], object]:
    return lambda exchange: exchange.head(status, "", NOW)


def carrying() -> Exchange:
    exchange = Exchange(ground(protocol="tcp"), Request("shop/cart"))
    exchange.begin(NOW)
    exchange.connected(NOW)
    return exchange


def asked() -> Exchange:
    exchange = Exchange(ground(), Request("shop/web", method="GET"))
    exchange.begin(NOW)
    return exchange


def resting() -> Exchange:
    return told(sending(), lambda one: one.ended(endings.RESET_BEFORE_RESPONSE, "", NOW))


IN_PHASE: dict[Phase, Callable[[], Exchange]] = {
    Phase.NEW: lambda: Exchange(ground(), GET),
    Phase.ASKED: asked,
    Phase.BODY: lambda: connecting(Request(None, "cart.shop", "/", "PUT", waits_for_body=True)),
    Phase.CONNECTING: connecting,
    Phase.SENDING: sending,
    Phase.WAITING: lambda: told(sending(), lambda one: one.sent(NOW)),
    Phase.ANSWERING: lambda: told(sending(), head(200)),
    Phase.DROPPING: lambda: told(sending(), head(503)),
    Phase.RESTING: resting,
    Phase.CARRYING: carrying,
    Phase.ENDED: lambda: told(sending(), lambda one: one.close(NOW)),
}
INPUTS: dict[str, Callable[[Exchange, Instant], Action | None]] = {
    "begin": lambda one, now: one.begin(now),
    "routes_came": lambda one, now: one.routes_came(now),
    "body_taken": lambda one, now: one.body_taken(now),
    "connected": lambda one, now: one.connected(now),
    "unconnected": lambda one, now: one.unconnected(endings.CONNECT_FAILED, "", now, unreached=True),
    "head": lambda one, now: one.head(503, "UO", now),
    "ended": lambda one, now: one.ended(endings.RESET_BEFORE_RESPONSE, "", now),
    "sent": lambda one, now: one.sent(now),
    "passed": lambda one, now: one.passed(now),
    "outgrew": lambda one, _: one.outgrew(),
    "due": lambda one, now: one.due(now),
    "left": lambda one, _: one.left(),
    "revoked": lambda one, _: one.revoked(),
    "review": lambda one, now: one.review(now),
    "close": lambda one, now: one.close(now),
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("said", INPUTS)
def test_what_may_be_said_in_which_phase(phase: Phase, said: str) -> None:
    exchange = IN_PHASE[phase]()
    assert exchange._phase is phase
    if phase in TURNS.get(said, tuple(Phase)):
        INPUTS[said](exchange, NOW)
    else:
        with pytest.raises(OutOfTurn):
            INPUTS[said](exchange, NOW)
        assert exchange._phase is phase


@pytest.mark.parametrize("phase", Phase)
def test_a_deadline_told_too_early_changes_nothing_and_twice_no_more_than_once(phase: Phase) -> None:
    exchange = IN_PHASE[phase]()
    if exchange.deadline != NEVER:
        assert exchange.due(Instant(exchange.deadline - 1)) is None
    assert exchange._phase is phase
    later = Instant(NOW + 9 * SECOND_NS) if phase is Phase.RESTING else Instant(NOW + 3_600 * SECOND_NS)
    first = exchange.due(later)
    if isinstance(first, Reset):
        assert exchange.due(later) is None
    else:
        assert first is None or (phase is Phase.RESTING and isinstance(first, Connect))


@given(st.lists(st.sampled_from(sorted(INPUTS)), max_size=40), st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_whatever_is_said_nothing_is_held_after_the_end(said: list[str], seed: int) -> None:
    rng = random.Random(seed)
    shared = ground()
    shared.rng = rng
    now = NOW
    exchanges = [Exchange(shared, GET) for _ in range(3)]
    for name in said:
        now = Instant(now + rng.choice((0, 1_000, SECOND_NS, 40 * SECOND_NS)))
        exchange = rng.choice(exchanges)
        action: Action | None = None
        try:
            action = INPUTS[name](exchange, now)
        except OutOfTurn:
            pass
        if isinstance(action, Wait):
            assert now < action.until <= now + 300_000_000
        if isinstance(action, Answer):
            assert exchange.details.startswith(action.ending.detail)
        if rng.random() < 0.05:
            shared.apply(tables(upstream(endpoint(rng.choice("abc")))), now)
    for exchange in exchanges:
        exchange.close(now)
        exchange.close(now)
    shared.take_effects()
    assert not shared.open
    assert all(one.admission.requests_count == 0 for one in shared.upstreams.values())
    assert all(state.in_flight == 0 for state in shared.states._states.values())


def test_a_request_and_its_move_share_one_place() -> None:
    exchange = sending()
    shared = exchange.ground
    shared.apply(tables(upstream(endpoint("c"))), NOW)
    assert len(shared.take_effects()) == 1
    action = exchange.ended(endings.RESET_BEFORE_RESPONSE, "", NOW)
    assert isinstance(action, Connect)
    assert action.endpoint.node == "c"
    assert shared.upstreams["shop/cart"].admission.requests_count == 1


def test_an_upstream_that_left_is_still_given_its_places_back() -> None:
    exchange = connecting()
    rules = exchange.upstream
    assert rules is not None
    exchange.ground.apply(Tables((DEFAULT_LIMITS,), ""), NOW)
    assert not exchange.ground.upstreams
    exchange.close(NOW)
    assert rules.admission.requests_count == 0


def test_a_call_that_came_in_is_judged_once_after_its_end() -> None:
    shared = ground()
    exchange = InboundExchange(shared, GET, CALLER, SNI)
    exchange.begin()
    exchange.connected(reused=False)
    exchange.head()
    exchange.ended(endings.VIA_UPSTREAM, "")
    shared.apply(Tables((DEFAULT_LIMITS,), ""), NOW)
    assert (exchange.revoked(), shared.take_effects(), shared.open) == (None, [], {})


def rows(first: str) -> dict[str, list[str]]:
    """Return the table of docs/TRAFFIC.md whose head begins with `first`: its rows by their first cell."""
    table = (
        re.sub(r" \[T-[0-9.]+\]", "", DOCS.read_text())
        .split(f"\n| {first} |")[1]
        .split("\n\n")[0]
        .splitlines()[2:]
    )
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_table_of_endings_is_what_there_is() -> None:
    expected = {
        one.name: [str(one.status or "-"), one.flag or "-", str(one.outcome)] for one in ENDINGS.values()
    }
    assert rows("ending") == expected
    assert list(rows("ending")) == list(expected)


def test_the_table_of_turns_is_what_holds() -> None:
    said = {name: [", ".join(sorted(one.name.lower() for one in turns))] for name, turns in TURNS.items()}
    assert rows("said") == said
