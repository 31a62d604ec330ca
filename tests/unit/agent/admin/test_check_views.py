"""`check --all` on meshes in virtual time: what is wrong is named, as the core itself found it."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from gossipmesh.agent.admin import admin_views, check_views
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.trust.documents import AcceptedSet, PolicyRefusal, PolicySet
from tests.unit.gossip.group import WALL_OFFSET_S, Group, policy_set
from tests.unit.gossip.test_transcripts import everybody

EIGHT = "a b c d e f g h"


def settled(names: str) -> Group:
    group = Group(names)
    group.start_all()
    group.run_until(lambda: everybody(group, "alive") and group.converged(), 10)
    return group


async def check_all(
    group: Group, at: str, monkeypatch: pytest.MonkeyPatch, seeds: str = ""
) -> dict[str, Any]:
    """Return what `check --all` is told by the node `at`, all clocks being the group's."""
    for module in (admin_views, check_views):
        monkeypatch.setattr(module, "monotonic", lambda: group.now)
        monkeypatch.setattr(module, "wall_seconds", lambda: group.now // SECOND_NS + WALL_OFFSET_S)
    monkeypatch.setattr(admin_views, "wall_offset_s", lambda: WALL_OFFSET_S)
    parts: Any = SimpleNamespace(
        node=group.node(at),
        identity=SimpleNamespace(identity=SimpleNamespace(name=at)),
        started_at=Instant(SECOND_NS),
        other_seeds=lambda: [group.hosts[name].address for name in seeds.split()],
        unresolved_seeds=dict,
    )
    response = check_views.check_all(parts)
    body = response.body
    assert response.more is not None
    async for piece in response.more:
        body += piece
    answer: dict[str, Any] = json.loads(body)
    return answer


def named(answer: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names by what is wrong with them."""
    return {
        row["name"]: row["evidence"].get("members", []) for row in answer["checks"] if row["mark"] != "ok"
    }


def refuse_everything(group: Group, name: str) -> None:
    """Have a node refuse every set, as an older build does that cannot execute it."""

    def refuse(policy_set: PolicySet) -> AcceptedSet:
        raise PolicyRefusal("features", "it requires what this build lacks", "mesh", 1, bytes(32))

    group.node(name)._ctx.documents.check_untrusted = refuse  # type: ignore[method-assign]


async def test_a_mesh_with_nothing_wrong_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    group = settled(EIGHT)
    group.run(20)
    answer = await check_all(group, "a", monkeypatch)
    assert (answer["ok"], answer["seen_by"], named(answer)) == (True, "a", {})
    (summary,) = answer["checks"]
    assert summary["detail"].startswith("8 of 8 have nothing wrong: alive, policy none")


async def test_one_dead_one_behind_and_one_wrong_clock_are_named_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = settled(EIGHT)
    refuse_everything(group, "c")
    group.node("d")._ctx.wall_offset_s += 300
    group.perform(group.hosts["b"], group.node("b").offer_policy(policy_set(1), Instant(group.now)))
    group.kill("g", silent=True)
    group.run(30)
    for at in ("a", "b", "h"):
        answer = await check_all(group, at, monkeypatch, seeds="g h b")
        assert named(answer) == {"dead": ["g"], "policy": ["c"], "clock": ["d"]}, at
        assert answer["ok"] is False
        assert "c runs mesh:0, others 1" in str(answer["checks"])
        assert "d is 300 s ahead of the others" in str(answer["checks"])


async def test_the_one_with_the_wrong_clock_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    group = settled(EIGHT)
    for name in EIGHT.split()[1:]:
        group.node(name)._ctx.wall_offset_s += 90
    group.run(20)
    assert named(await check_all(group, "a", monkeypatch)) == {"clock": ["a"]}


async def test_whoever_is_cut_off_says_that_of_itself_first(monkeypatch: pytest.MonkeyPatch) -> None:
    group = settled("a b c d")
    group.run(5)
    group.partition("a", "b c d")
    group.run(12)
    answer = await check_all(group, "a", monkeypatch, seeds="b")
    assert answer["checks"][0]["name"] == "isolated"
    assert answer["checks"][0]["mark"] == "FAIL"


async def test_seeds_that_nobody_answers_fail_though_no_member_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = Group("a b")
    group.start("a", "b")
    group.run(5)
    answer = await check_all(group, "a", monkeypatch, seeds="b")
    assert [(row["mark"], row["name"]) for row in answer["checks"]] == [("FAIL", "seeds"), ("ok", "members")]
    alone = await check_all(group, "a", monkeypatch)
    assert (alone["ok"], len(alone["checks"])) == (True, 1)


async def test_the_verdict_can_be_derived_from_the_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    group = settled("a b c d")
    group.kill("d", silent=True)
    group.run(12)
    answer = await check_all(group, "a", monkeypatch)
    rows = {row["name"]: row for row in answer["members"]}
    assert sorted(rows) == ["a", "b", "c", "d"]
    assert rows["d"]["status"] == "dead"
    for name in "bc":
        assert rows[name]["status"] == "alive"
        assert rows[name]["answered_s"] < 10
        assert rows[name]["clock_s"] in (-1, 0, 1)
        assert rows[name]["services_failing"] == []
    assert answer["ok"] is all(row["ok"] for row in answer["checks"])
