"""What is said of a node that is closed, and of how it came to be open."""

import logging
import random

import pytest
import trio

from gossipmesh.agent.gate import BY_HAND, Gate, reason_of, refusals_of
from gossipmesh.agent.open_report import OpenReporter
from gossipmesh.gossip.base.effects import Opened
from gossipmesh.gossip.base.settings import OpeningView
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.opening import HowOpened
from gossipmesh.model.records import NodeState, PolicyStatus

CLOSED = OpeningView(is_closed=True, closed_ns=2 * SECOND_NS, needed_count=3, is_whole=True)
OPEN = OpeningView(is_closed=False)


def state(*policies: PolicyStatus) -> NodeState:
    """Return what a node says of itself that runs and refuses these."""
    return NodeState(NodeId(bytes(32)), 1, 1, 1, "n1", (), (), 0, "test", 1, 1, (), policies)


class Core:
    """A core that says what it is told to say."""

    def __init__(self, opening: OpeningView, *policies: PolicyStatus) -> None:
        self.opening = opening
        self.own_state: NodeState = state(*policies)


def closed_by(
    agreed: tuple[str, ...] = (), differing: tuple[str, ...] = (), *, needed: int = 3, is_whole: bool = True
) -> OpeningView:
    return OpeningView(
        is_closed=True, needed_count=needed, agreed=agreed, differing=differing, is_whole=is_whole
    )


@pytest.mark.parametrize(
    ("view", "refused", "sentence"),
    [
        (
            closed_by(),
            [],
            "it has heard of no open member what the mesh runs, and waits for 3 open members",
        ),
        (
            closed_by(needed=1),
            [],
            "it has heard of no open member what the mesh runs, and waits for 1 open member",
        ),
        (closed_by(("a",)), [], "a run what it runs, and it waits for 3 open members, for a minute"),
        (
            closed_by(("a", "b", "c"), is_whole=False),
            [],
            "a, b, c run what it runs, and their table of members is not whole here yet",
        ),
        (
            closed_by((), ("a", "b")),
            [],
            "a, b run another policy or Trust than it has, or could verify",
        ),
        (
            closed_by((), ("a", "b", "c", "d", "e", "f", "g")),
            ["version 7 of scope mesh (signature: no signer)"],
            "it cannot verify version 7 of scope mesh (signature: no signer), "
            "which a, b, c, d, e and 2 more may run",
        ),
    ],
)
def test_a_closed_node_says_what_it_waits_for(view: OpeningView, refused: list[str], sentence: str) -> None:
    assert reason_of(view, refused) == sentence


def test_a_set_refused_below_what_it_runs_is_no_reason() -> None:
    higher = PolicyStatus("mesh", 1, b"", 7, b"", "signature: no")
    lower = PolicyStatus("team", 7, b"", 1, b"", "older: no")
    assert refusals_of(state(higher, lower)) == ["version 7 of scope mesh (signature: no)"]


def test_a_closed_node_withholds_unless_its_engine_served_before() -> None:
    gate = Gate(Core(CLOSED))
    assert gate.is_closed
    assert gate.withholds
    assert gate.why
    gate.found_serving()
    assert gate.is_closed
    assert not gate.withholds
    assert not Gate(Core(OPEN)).withholds
    assert Gate(Core(OPEN)).why == ""


def test_the_log_says_a_reason_once_and_how_to_open(caplog: pytest.LogCaptureFixture) -> None:
    core = Core(CLOSED)
    gate = Gate(core)
    assert gate.look()
    assert not gate.look()
    core.opening = OpeningView(is_closed=True, closed_ns=3 * SECOND_NS, differing=("a",), needed_count=3)
    assert gate.look()
    core.opening = OPEN
    assert not gate.look()
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert all(BY_HAND in record.message for record in caplog.records)


def test_a_join_that_takes_no_time_is_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(Core(OpeningView(is_closed=True, closed_ns=SECOND_NS // 2)))
    assert not gate.look()
    assert not caplog.records


@pytest.mark.parametrize(
    ("how", "level"),
    [
        (HowOpened.BY_PEERS, logging.INFO),
        (HowOpened.FOUNDER, logging.INFO),
        (HowOpened.BY_FEWER, logging.ERROR),
        (HowOpened.BY_HAND, logging.WARNING),
    ],
)
def test_who_opened_with_less_than_it_should_says_so_loudly(
    how: HowOpened, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gate = Gate(Core(OPEN))
    gate.take(Opened(str(how), 1, 3))
    assert [record.levelno for record in caplog.records] == [level]
    assert gate.view()["opened_by"] == how


async def test_the_authority_is_told_once_the_node_is_open_and_again_until_it_listens(
    autojump_clock: object,
) -> None:
    core = Core(CLOSED)
    gate = Gate(core)
    told: list[tuple[float, HowOpened]] = []

    async def report(how: HowOpened) -> None:
        told.append((trio.current_time(), how))
        if len(told) < 4:
            raise OperatorError("the authority is away")

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(OpenReporter(gate, report, random.Random(1)).run)
        await trio.sleep(100)
        assert not told
        core.opening = OPEN
        gate.take(Opened(HowOpened.BY_PEERS, 3, 3))
    gaps = [at - before for (at, _), (before, _) in zip(told[1:], told, strict=False)]
    assert [how for _, how in told] == [HowOpened.BY_PEERS] * 4
    assert told[0][0] - began == 100
    assert 5 <= gaps[0] < gaps[1] < gaps[2] < 30


async def test_one_that_was_open_before_says_that(autojump_clock: object) -> None:
    told: list[HowOpened] = []

    async def report(how: HowOpened) -> None:
        told.append(how)

    await OpenReporter(Gate(Core(OPEN)), report, random.Random(1)).run()
    assert told == [HowOpened.AS_BEFORE]
