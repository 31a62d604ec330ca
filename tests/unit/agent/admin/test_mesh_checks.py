"""How the mesh sees this node: seeds, answers, equal state sums, verdicts, policy."""

from typing import Any

import pytest

from gossipmesh.agent.admin.mesh_checks import MeshView, check_standing, check_versions, refutations_of
from gossipmesh.gossip.base.history import HistoryEntry
from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address
from tests.unit.agent.admin.member_rows import itself, member, policy

HOUR_S = 3_600.0
SEEDS = [Address("10.0.0.7", 7948), Address("10.0.0.8", 7948)]
AT_7, AT_8 = ({"gossip_addresses": [str(seed)]} for seed in SEEDS)
NEVER: dict[str, Any] = {"heard_s": None, "answered_s": None, "agreed_s": None}


def seen(*members: dict[str, Any]) -> MeshView:
    view = MeshView()
    for row in (itself(), *members):
        view.take(row)
    return view


def standing(
    *members: dict[str, Any],
    seeds: list[Address] = SEEDS,
    uptime_s: float = HOUR_S,
    refutations: tuple[tuple[float, str], ...] = (),
    unresolved: dict[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the rows by name."""
    rows = check_standing(seen(*members), seeds, uptime_s, refutations, unresolved or {})
    for row in rows:
        assert row["mark"] == "ok" or (row["why"] and row["hint"]), row
    return {row["name"]: row for row in rows}


def marks(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: row["mark"] for name, row in rows.items() if row["mark"] != "ok"}


def test_a_node_whose_seeds_answer_is_well() -> None:
    rows = standing(member("a", **AT_7), member("b", **AT_8))
    assert marks(rows) == {}
    assert rows["seeds"]["detail"] == "2 of 2 answer"
    told = rows["heard by others"]["detail"]
    assert told == "the last answer came 1s ago (a); 2 of 2 answered in 3 minutes"


def test_a_node_that_keeps_itself_out_says_for_how_long() -> None:
    rows = standing(itself(status="dead", quarantine_s=88.0), member("a", **AT_7), member("b", **AT_8))
    assert marks(rows) == {"verdicts": "FAIL"}
    assert "stays out of use for 1m28s more" in rows["verdicts"]["detail"]


def test_an_isolated_node_says_that_it_is_its_own_network() -> None:
    view = seen(member("a", **AT_7), member("b", **AT_8))
    view.isolated_s = 3.0
    rows = {row["name"]: row for row in check_standing(view, SEEDS, HOUR_S, (), {})}
    assert marks(rows) == {"isolated": "FAIL"}
    assert rows["isolated"]["detail"].startswith("nobody was heard for 3s, and nobody answers")


def test_a_seed_that_does_not_resolve_fails_whoever_is_alone_and_warns_the_others() -> None:
    unresolved = {"mesh.example.com:7948": "Name or service not known"}
    rows = standing(member("a", **AT_7), member("b", **AT_8), unresolved=unresolved)
    assert marks(rows) == {"seed names": "warn"}
    told = rows["seed names"]["detail"]
    assert told == "no address for mesh.example.com:7948 (Name or service not known)"
    assert marks(standing(seeds=[], unresolved=unresolved)) == {"seed names": "FAIL"}
    assert "seeds" not in standing(seeds=[], unresolved=unresolved), "some are configured"


def test_one_alone_without_seeds_is_well() -> None:
    rows = standing(seeds=[])
    assert marks(rows) == {}
    assert "heard by others" not in rows


NOBODY: dict[str, list[dict[str, Any]]] = {
    "no member at all": [],
    "members from disk, never heard": [member("a", **AT_7, **NEVER), member("b", "dead", **AT_8, **NEVER)],
}


@pytest.mark.parametrize("name", list(NOBODY))
@pytest.mark.parametrize("uptime_s", [0.5, HOUR_S])
def test_seeds_that_nobody_answers_fail_in_words(name: str, uptime_s: float) -> None:
    row = standing(*NOBODY[name], uptime_s=uptime_s)["seeds"]
    assert (row["mark"], row["ok"]) == ("FAIL", False)
    assert row["detail"] == "nobody answers at any of 2: 10.0.0.7:7948, 10.0.0.8:7948"
    assert row["why"].startswith("this node is a mesh of its own")
    assert row["evidence"]["silent"] == ["10.0.0.7:7948", "10.0.0.8:7948"]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], "10.0.0.8:7948 (no member has it)"),
        ([member("b", "dead", **AT_8)], "10.0.0.8:7948 (b, dead)"),
        ([member("b", **AT_8, **NEVER)], "10.0.0.8:7948 (b, alive)"),
    ],
)
def test_one_silent_seed_is_a_warn(others: list[dict[str, Any]], said: str) -> None:
    rows = standing(member("a", **AT_7), *others)
    assert marks(rows) == {"seeds": "warn"}
    assert rows["seeds"]["detail"] == f"1 of 2 answer; silent: {said}"


def test_a_seed_may_be_any_of_a_members_addresses() -> None:
    both = {"gossip_addresses": ["192.168.1.1:7948", *AT_7["gossip_addresses"]]}
    assert marks(standing(member("a", **both), seeds=SEEDS[:1])) == {}


@pytest.mark.parametrize(
    ("answered_s", "uptime_s", "mark"),
    [(9.9, HOUR_S, None), (10.1, HOUR_S, "FAIL"), (None, HOUR_S, "FAIL"), (None, 5.0, "warn")],
)
def test_one_that_is_heard_by_nobody_says_so(
    answered_s: float | None, uptime_s: float, mark: str | None
) -> None:
    """It hears the others well: only their answers to its own pings prove that they hear it."""
    others = [member(name, **at, answered_s=answered_s) for name, at in (("a", AT_7), ("b", AT_8))]
    assert marks(standing(*others, uptime_s=uptime_s)).get("heard by others") == mark


def test_one_answer_is_enough() -> None:
    deaf = [member(name, answered_s=None, **AT_8) for name in "bcdef"]
    assert marks(standing(member("a", **AT_7), *deaf)) == {}


@pytest.mark.parametrize(
    ("agreed_s", "uptime_s", "mark"),
    [
        (59.0, HOUR_S, None),
        (61.0, HOUR_S, "warn"),
        (301.0, HOUR_S, "FAIL"),
        (None, 30.0, None),
        (None, 90.0, "warn"),
        (None, HOUR_S, "FAIL"),
    ],
)
def test_news_is_as_old_as_the_last_equal_state_sum(
    agreed_s: float | None, uptime_s: float, mark: str | None
) -> None:
    others = [member(name, **at, agreed_s=agreed_s) for name, at in (("a", AT_7), ("b", AT_8))]
    assert marks(standing(*others, uptime_s=uptime_s)).get("news") == mark


def test_hearing_no_packet_is_old_news_however_equal_the_sums_were() -> None:
    others = [member(name, **at, heard_s=11.0) for name, at in (("a", AT_7), ("b", AT_8))]
    assert marks(standing(*others))["news"] == "FAIL"


def test_news_says_how_many_hold_this_node_alive() -> None:
    others = [member("a", **AT_7), member("b", agreed_s=900.0, **AT_8), member("c", agreed_s=None)]
    assert "1 of 3 held this node alive" in standing(*others)["news"]["detail"]


def test_a_node_whose_udp_is_dropped_says_so_of_itself_and_others_say_it_of_that_one() -> None:
    lost = {"reachability": "TCP only", "datagram_s": 38.0}
    rows = standing(member("a", **AT_7, **lost), member("b", **AT_8, **lost))
    assert marks(rows) == {"datagrams": "FAIL"}
    by_itself = rows["datagrams"]["detail"]
    assert by_itself == (
        "TCP only: 2 of 2 members are reached by TCP only (a, b); the last datagram came 38s ago (a)"
    )
    rows = standing(member("a", **AT_7), member("b", **AT_8), member("c", **lost))
    assert marks(rows) == {"datagrams": "warn"}
    by_others = rows["datagrams"]["detail"]
    assert by_others == "1 of 3 members are reached by TCP only (c); the last datagram came 0s ago (a)"
    assert "datagrams" not in standing(member("a", **AT_7), member("b", **AT_8))


def test_a_node_that_hears_and_is_not_heard_finds_most_others_by_tcp_only() -> None:
    lost = {"reachability": "TCP only", "datagram_s": 0.1}
    rows = standing(member("a", **AT_7, **lost), member("b", **AT_8, **lost), member("c"))
    assert marks(rows) == {"datagrams": "FAIL"}


def test_the_dead_prove_nothing() -> None:
    rows = standing(member("a", "dead", **AT_7), seeds=SEEDS[:1])
    assert "heard by others" not in rows


@pytest.mark.parametrize(("age_s", "mark"), [(5.0, "warn"), (119.0, "warn"), (121.0, "ok")])
def test_a_verdict_against_this_node_is_told_while_it_may_be_kept_out(age_s: float, mark: str) -> None:
    others = (member("a", **AT_7), member("b", **AT_8))
    row = standing(*others, refutations=((900.0, "dead by 2 votes"), (age_s, "dead by 3 votes")))["verdicts"]
    assert row["mark"] == mark
    assert ("declared dead by 3 votes" in row["detail"]) is (mark == "warn")


def test_what_was_answered_is_found_in_the_journal() -> None:
    node, now = NodeId(b"n" * 16), 20 * SECOND_NS

    def entry(kind: str, at_s: int) -> HistoryEntry:
        return HistoryEntry(Instant(at_s * SECOND_NS), node, kind, node, "", f"at {at_s}", 0)

    entries = [entry("vote-received", 3), entry("refuted", 8), entry("unreachable", 9)]
    assert refutations_of(entries, now) == [(12.0, "at 8")]


@pytest.mark.parametrize(
    ("own", "others", "mark", "behind"),
    [
        (2, [2, 2], "ok", []),
        (2, [2, 1], "ok", ["b"]),
        (1, [2, 2], "FAIL", ["n1"]),
        (0, [0, 3], "FAIL", ["n1", "a"]),
    ],
)
def test_it_is_the_node_behind_whose_policy_fails(
    own: int, others: list[int], mark: str, behind: list[str]
) -> None:
    view = MeshView()
    view.take(itself(policies=[policy(own)]))
    for name, version in zip("ab", others, strict=True):
        view.take(member(name, policies=[policy(version)]))
    (row,) = check_versions(view)
    assert (row["mark"], row["evidence"]["behind"]) == (mark, behind)


def test_the_last_word_of_the_dead_makes_nobody_lag() -> None:
    assert check_versions(seen(member("a", "dead", policies=[policy(9)])))[0]["mark"] == "ok"


def test_without_policy_there_is_nothing_to_lag_in() -> None:
    view = MeshView()
    view.take(itself(policies=[]))
    assert check_versions(view) == []


def test_a_node_that_keeps_itself_out_is_judged_by_what_it_runs() -> None:
    members = (itself(status="dead", quarantine_s=88.0), member("a"), member("b"))
    assert [row["mark"] for row in check_versions(seen(*members))] == ["ok"]
