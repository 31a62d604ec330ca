"""What a push may claim, from nothing but the members' own records."""

from typing import Any

import pytest

from gossipmesh.cli.push_plan import (
    MemberPolicy,
    Outcome,
    few_readers,
    judge,
    lacking,
    read_members,
    stale_base,
)

TARGET = (2, "bb")


def member(name: str, runs: tuple[int, str] = (1, "aa"), status: str = "alive", **more: Any) -> MemberPolicy:
    return MemberPolicy(name, status, runs, **more)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([member("a", TARGET), member("b", TARGET)], Outcome("reached", ["a", "b"])),
        ([member("a", TARGET), member("b", status="left")], Outcome("reached", ["a"])),
        (
            [member("a", TARGET), member("b")],
            Outcome("pending", ["a"], [], [("b", "alive, runs version 1")]),
        ),
        (
            [member("a", TARGET), member("b", TARGET, "dead")],
            Outcome("pending", ["a"], [], [("b", "dead, had confirmed before")]),
        ),
        ([member("a", TARGET), member("b", TARGET, "suspect")], Outcome("reached", ["a", "b"])),
        (
            [member("a", TARGET), member("b", refused=TARGET, refused_reason="features: x")],
            Outcome("refused", ["a"], [("b", "features: x")]),
        ),
        (
            [member("a", TARGET), member("b", refused=(2, "aa"), refused_reason="an earlier one")],
            Outcome("pending", ["a"], [], [("b", "alive, runs version 1")]),
        ),
        (
            [member("a", TARGET), member("b", (2, "cc"))],
            Outcome("superseded", ["a"], [], [("b", "alive, runs another version 2 (cc)")], (2, "cc")),
        ),
        (
            [member("a", TARGET), member("b", (2, "aa"))],
            Outcome("pending", ["a"], [], [("b", "alive, runs another version 2 (aa)")]),
        ),
        (
            [member("a", (3, "00")), member("b", (2, "cc"), "dead")],
            Outcome(
                "superseded",
                [],
                [],
                [("a", "alive, runs version 3"), ("b", "dead, runs another version 2 (cc)")],
                (3, "00"),
            ),
        ),
        (
            [member("a", (0, ""), "unattended")],
            Outcome("pending", [], [], [("a", "unattended, runs no policy")]),
        ),
    ],
)
def test_judge(members: list[MemberPolicy], expected: Outcome) -> None:
    assert judge(members, TARGET) == expected


@pytest.mark.parametrize(
    ("others", "missing", "absent"),
    [
        ([member("b", status="dead")], [], ["b"]),
        ([member("b", TARGET, "dead")], [], ["b"]),
        ([member("b", TARGET, "unattended")], [], []),
        ([member("b", status="unattended"), member("c", status="suspect")], ["c"], ["b"]),
        ([member("b", reachable=False)], ["b"], []),
        ([member("b", reachable=False), member("c")], ["c"], ["b"]),
        ([member("b", reachable=False), member("c", status="dead")], ["b"], ["c"]),
        ([member("b", status="left")], [], []),
    ],
)
def test_only_those_that_are_alive_are_waited_for(
    others: list[MemberPolicy], missing: list[str], absent: list[str]
) -> None:
    outcome = judge([member("a", TARGET), *others], TARGET, everybody=False)
    assert [name for name, _ in outcome.missing] == missing
    assert [name for name, _ in outcome.absent] == absent
    assert outcome.state == ("pending" if missing else "reached")


def test_a_base_is_stale_when_any_member_runs_a_greater_one() -> None:
    assert stale_base((1, "aa"), [member("a"), member("b")]) is None
    assert "b already runs version 1 (bb)" in str(
        stale_base((1, "aa"), [member("a"), member("b", (1, "bb"))])
    )
    assert stale_base((1, "aa"), [member("a"), member("b", (9, "bb"), "left")]) is None
    assert "this agent has 0 (none)" in str(stale_base((0, ""), [member("a")]))


def test_too_few_live_members_are_told() -> None:
    three = [member("a"), member("b"), member("c")]
    assert few_readers([*three, member("d", status="dead")]) is None
    assert few_readers([member("a")]) is None
    assert "only 2 of 5" in str(few_readers([*three[:2], *(member(n, status="suspect") for n in "cde")]))


def test_rows_without_policies_are_members_without_policy() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a", "status": "alive", "self": True},
        {"name": "b", "status": "alive", "policies": []},
    ]
    assert [m.runs for m in read_members(rows, "mesh")] == [(0, ""), (0, "")]


def test_who_could_not_execute_a_set_is_named_with_what_it_lacks_and_where() -> None:
    """An engine that was kept through an upgrade lacks what its agent's build has."""
    able = ("http-route", "mesh-policy")
    members = [
        member("new", features=able),
        member("old", features=("http-route",)),
        member("half", features=(*able, "engine-lacks-mesh-policy")),
        member("gone", status="left", features=()),
        member("silent"),
    ]
    assert lacking(members, ["mesh-policy"]) == "old (mesh-policy), half (mesh-policy: its engine)"
    assert lacking(members, ["http-route"]) is None
