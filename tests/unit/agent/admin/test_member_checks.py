"""`check --all`: what is not right with any member, by name, and nothing else."""

from typing import Any

import pytest

from gossipmesh.agent.admin.check_rows import Mark
from gossipmesh.agent.admin.member_checks import MemberChecks
from gossipmesh.cli.check import print_checks
from tests.unit.agent.admin.member_rows import CREDENTIAL_ENDS, WALL_S, itself, member, policy


def judged(*members: dict[str, Any]) -> list[dict[str, Any]]:
    checks = MemberChecks(WALL_S)
    for row in members:
        checks.take(row, row.get("services_failing", ()))
    return checks.rows()


def told(*members: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (mark, kind, what) of everything that is wrong."""
    return [(row["mark"], row["name"], row["detail"]) for row in judged(*members)[:-1]]


SOUND = [itself(), member("n2"), member("n3"), member("n4")]


def test_a_mesh_with_nothing_wrong_is_one_line() -> None:
    (row,) = judged(*SOUND)
    assert row["detail"] == "4 of 4 have nothing wrong: alive, policy mesh:2, clocks within 0 s"
    assert row["mark"] == "ok"


WRONG: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "dead": (member("x", "dead"), ("FAIL", "dead", "x for 1m15s")),
    "kept out": (
        member("x", "dead", quarantine_s=88.2, endpoints_retained=True),
        ("FAIL", "dead", "x for 1m15s, kept out for 1m28s more, its endpoints kept"),
    ),
    "unattended": (member("x", "unattended"), ("FAIL", "unattended", "x for 1m15s")),
    "suspect": (member("x", "suspect"), ("FAIL", "suspect", "x for 1m15s")),
    "unreachable": (
        member("x", reachability="unreachable", heard_s=7.3),
        ("warn", "unreachable", "x was heard 7s ago"),
    ),
    "never heard": (
        member("x", reachability="unreachable", heard_s=None),
        ("warn", "unreachable", "x was never heard"),
    ),
    "TCP only": (
        member("x", reachability="TCP only", heard_s=0.2, datagram_s=38.4),
        ("warn", "TCP only", "x was heard by UDP 38s ago"),
    ),
    "TCP only from the start": (
        member("x", reachability="TCP only", datagram_s=None),
        ("warn", "TCP only", "x was never heard by UDP"),
    ),
    "behind": (member("x", policies=[policy(1)]), ("FAIL", "policy", "x runs mesh:1, others 2")),
    "without policy": (member("x", policies=[]), ("FAIL", "policy", "x runs mesh:0, others 2")),
    "refused": (
        member("x", policies=[policy(1, refused=2, reason="it lacks http-route")]),
        ("FAIL", "policy", "x runs mesh:1, others 2 (refused 2: it lacks http-route)"),
    ),
    "clock behind": (member("x", clock_s=-300), ("FAIL", "clock", "x is 300 s behind the others")),
    "clock drifts": (member("x", clock_s=12), ("warn", "clock", "x is 12 s ahead of the others")),
    "closed": (member("x", closed=True), ("FAIL", "closed", "x answers no call")),
    "opened by hand": (
        member("x", opened_by_hand=True),
        ("warn", "opened by hand", "x was opened by hand"),
    ),
    "roll": (member("x", lacks_roll=True), ("warn", "roll", "x lacks the roll that Trust names")),
    "late": (member("x", lag_ms=1_000), ("warn", "late", "x by 1 s or more")),
    "identity": (
        member("x", credential_ends=WALL_S + 7_300),
        ("FAIL", "identity", "x ends in 2h1m"),
    ),
    "service": (
        member("x", services_failing=["shop/cart", "shop/web"]),
        ("warn", "service", "x fails shop/cart, shop/web"),
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_with_one_is_told_and_nothing_else(name: str) -> None:
    wrong, expected = WRONG[name]
    assert told(*SOUND, wrong) == [expected]
    *rows, summary = judged(*SOUND, wrong)
    assert summary["detail"].startswith("4 of 5 have nothing wrong")
    assert rows[0]["evidence"] == {"members": ["x"]}
    assert rows[0]["why"]
    assert rows[0]["hint"]


QUIET = [
    member("x", "left", policies=[], clock_s=900),
    member("x", clock_s=9),
    member("x", clock_s=None),
    member("x", lag_ms=200),
    member("x", answered_s=None, agreed_s=None, heard_s=None),
    member("x", credential_ends=CREDENTIAL_ENDS - 4 * 3_600),
]


@pytest.mark.parametrize("number", range(len(QUIET)))
def test_what_is_on_purpose_or_within_bounds_is_not_told(number: int) -> None:
    assert told(*SOUND, QUIET[number]) == []


@pytest.mark.parametrize("status", ["dead", "unattended"])
def test_the_last_word_of_one_that_is_gone_is_not_judged(status: str) -> None:
    last_word = {"policies": [policy(9)], "clock_s": 900, "lag_ms": 1_000, "credential_ends": WALL_S}
    assert [kind for _, kind, _ in told(*SOUND, member("x", status, **last_word))] == [status]


def test_it_may_be_this_nodes_own_clock() -> None:
    others = [member(f"n{number}", clock_s=-100) for number in range(2, 6)]
    assert told(itself(), *others) == [("FAIL", "clock", "n1 is 100 s ahead of the others")]


def test_of_two_clocks_that_differ_this_nodes_own_is_the_measure() -> None:
    for clock_s, way in ((90, "ahead of"), (-90, "behind")):
        assert told(itself(), member("n2", clock_s=clock_s)) == [
            ("FAIL", "clock", f"n2 is 90 s {way} the others")
        ]


def test_a_scope_only_some_run_is_behind_on_the_rest() -> None:
    two = [policy(2), policy(5, "team-a")]
    rows = told(itself(policies=two), member("n2", policies=two), member("n3"))
    assert rows == [("FAIL", "policy", "n3 runs team-a:0, others 5")]


def test_what_fails_comes_first() -> None:
    rows = told(*SOUND, member("x", lag_ms=1_000), member("y", "dead"), member("z", clock_s=20))
    assert [(mark, kind) for mark, kind, _ in rows] == [("FAIL", "dead"), ("warn", "late"), ("warn", "clock")]


def test_fifty_members_are_one_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 lines of 80 columns, though four things are wrong and one of them with thirty members."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    sound = [member(f"database-{number}-fra1") for number in range(17)]
    dead = [member(f"web-{number}-fra1", "dead") for number in range(30)]
    behind = member("cart-1-fra1", policies=[policy(1, refused=2, reason="it requires http-route")])
    skewed = member("cart-2-fra1", clock_s=-95)
    print_checks(judged(itself(), *sound, *dead, behind, skewed))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "web-9-fra1 for 1m15s and 20 more" in text
    assert "18 of 50 have nothing wrong" in text


def test_marks_come_from_one_list() -> None:
    assert {row["mark"] for row in judged(*SOUND, *(wrong for wrong, _ in WRONG.values()))} == set(Mark)
