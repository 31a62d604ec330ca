"""Who holds a tombstone, by what members answered; and what the wait for it says."""

from typing import Any

import pytest

from gossipmesh.cli.admin_client import AdminClient
from gossipmesh.cli.revoke_wait import (
    Confirmed,
    absentees,
    holds_tombstone,
    holds_trust,
    judge_rows,
    verdict,
    wait_for_all,
)
from gossipmesh.model.errors import OperatorError

ME = {"name": "n1", "status": "alive", "self": True, "reachability": "self", "agreed_s": None}


def member(
    name: str, agreed_s: float | None, status: str = "alive", reachable: bool = True
) -> dict[str, Any]:
    reachability = "reachable" if reachable else "unreachable"
    return {"name": name, "status": status, "agreed_s": agreed_s, "reachability": reachability}


ROWS = [
    ("agreed since", member("n2", 0.4), "holding"),
    ("agreed before", member("n2", 3.0), "missing"),
    ("agreed in that moment", member("n2", 2.0), "missing"),
    ("agreed never", member("n2", None), "missing"),
    ("suspect", member("n2", None, "suspect"), "missing"),
    ("dead", member("n2", None, "dead"), "absent"),
    ("dead, and agreed just before", member("n2", 0.4, "dead"), "absent"),
    ("its agent is gone", member("n2", None, "unattended"), "absent"),
    ("beyond a cut", member("n2", None, reachable=False), "absent"),
]


@pytest.mark.parametrize(("row", "side"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_member_is_on_one_side(row: dict[str, Any], side: str) -> None:
    """Others are well, so that this node is not the one that is cut off."""
    rows = [ME, row, *(member(f"w{number}", 0.1) for number in range(3))]
    told = judge_rows(rows, "gone", 2.0, holds_tombstone)
    named = {
        "holding": told.holding,
        "missing": [name for name, _ in told.missing],
        "absent": [name for name, _ in told.absent],
    }
    assert [what for what, names in named.items() if "n2" in names] == [side]


@pytest.mark.parametrize("status", ["dead", "unattended"])
def test_everybody_means_those_who_are_not_there_as_well(status: str) -> None:
    assert judge_rows(
        [ME, member("n2", None, status)], "gone", 2.0, holds_tombstone, everybody=True
    ).missing == [("n2", status)]


@pytest.mark.parametrize(
    ("features", "holds"),
    [
        (("trust-2", "holds-trust-7"), True),
        (("holds-trust-8",), True),
        (("holds-trust-6",), False),
        (("holds-trust-x",), False),
        ((), False),
    ],
)
def test_of_trust_each_member_says_which_it_holds(features: tuple[str, ...], holds: bool) -> None:
    rows = [{**member("n2", 0.1), "features": list(features)}]
    told = judge_rows(rows, "gone", 2.0, holds_trust(7))
    assert told.holding == (["n2"] if holds else [])


def test_whoever_left_and_the_node_itself_are_not_waited_for() -> None:
    rows = [ME, member("n2", None, "left"), member("gone", None)]
    assert judge_rows(rows, "gone", 2.0, holds_tombstone, everybody=True) == Confirmed(["n1"], [], [])


class Agent(AdminClient):
    """An agent whose members agree one by one, a second apart, as far as `agrees_max` says."""

    def __init__(self, agrees_max: int) -> None:
        self.now_s = 0.0
        self.asked = 0
        self.ends = False
        self._agrees_max = agrees_max

    def clock(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds

    def post_bytes(self, path: str, body: bytes = b"") -> Any:
        assert path == "/v1/members/ask"
        self.asked += 1
        return {}

    def get_json(self, path: str, **_: Any) -> Any:
        if self.ends:
            raise OperatorError("no agent answers at /run/agent.sock")
        agree = min(int(self.now_s), self._agrees_max)
        self.now_s += 0.01
        return [ME, *(member(f"n{n}", 0.0 if n <= 1 + agree else None) for n in (2, 3, 4))]

    def wait(self, timeout_s: float = 10.0) -> Confirmed:
        return wait_for_all(
            self,
            "gone",
            holds_tombstone,
            wait="alive",
            timeout_s=timeout_s,
            clock=self.clock,
            pause=self.pause,
        )


def test_it_asks_until_all_hold_it() -> None:
    agent = Agent(3)
    told = agent.wait()
    assert told.holding == ["n1", "n2", "n3", "n4"]
    assert verdict(told, "gone is revoked", 3.0) is None
    assert absentees(told) is None
    assert 3 <= agent.now_s < 4
    assert agent.asked > 10


def test_whoever_does_not_is_named_when_the_time_is_up() -> None:
    agent = Agent(1)
    told = agent.wait(5.0)
    assert 5 <= agent.now_s < 6
    assert verdict(told, "gone is revoked", 5.0) == (
        "gone is revoked, but not every member holds that after 5.0 s: not confirmed by n3 (alive), "
        "n4 (alive)"
    )


def test_an_agent_that_ends_leaves_it_open_who_holds_it() -> None:
    """It may be the agent of the very node that is taken out."""
    agent = Agent(3)
    agent.ends = True
    with pytest.raises(OperatorError, match="the mesh is told, but who holds it is unknown: no agent"):
        agent.wait()


def test_who_is_not_waited_for_is_named() -> None:
    told = Confirmed(["n1"], [], [("n2", "dead")])
    assert absentees(told) == "not waited for: n2 (dead); who comes back is told, --wait=all waits for it"
