"""Snapshots follow the catalog: coalesced, held after a start, found again on disk."""

from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from gossipmesh.model import limits
from gossipmesh.model.engine_features import PINS, SECTION_FEATURES
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.policy import API_VERSIONS, MeshPolicy, MeshPolicySpec, Metadata, Unregistered
from gossipmesh.model.service import NodeEndpoints, Protocol
from gossipmesh.model.snapshot import (
    CallersSection,
    InboundSection,
    RoutesSection,
    TrustSection,
    UpstreamSection,
)
from gossipmesh.testing.builders import TrustDomainBuilder, access_policy
from gossipmesh.traffic.compiler import SnapshotCompiler
from gossipmesh.traffic.inputs import SnapshotInputs
from gossipmesh.traffic.sections import (
    Snapshot,
    decode_snapshot_untrusted,
    encode_snapshot,
    make_snapshot,
)
from tests.unit.agent.engine.feed_rig import CART, SERVICE, Rig, running


def _version_on_disk(path: Path) -> str:
    return decode_snapshot_untrusted(path.read_bytes()).version if path.exists() else ""


async def _saved(path: Path, version: str) -> None:
    for _ in range(500):
        if _version_on_disk(path) == version:
            return
        await trio.sleep(0.01)
    raise AssertionError("the snapshot was not saved")


async def test_a_burst_of_changes_is_one_snapshot(tmp_path: Path, autojump_clock: object) -> None:
    rig = Rig(tmp_path, "n1")
    async with running(rig):
        rig.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.nodes() == ["n1"]
        count = len(rig.delivered)
        for number in range(2, 6):
            rig.put(f"n{number}", MemberStatus.ALIVE)
            await trio.sleep(0.05)
        assert len(rig.delivered) == count
        await trio.sleep(0.2)
        assert len(rig.delivered) == count + 1
        assert rig.nodes() == ["n1", "n2", "n3", "n4", "n5"]


async def test_changes_without_end_wait_a_second_at_most(tmp_path: Path, autojump_clock: object) -> None:
    rig = Rig(tmp_path, "n1")
    async with running(rig):
        rig.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        count = len(rig.delivered)
        rig.put("n2", MemberStatus.ALIVE)
        for _ in range(15):
            rig.feed.changed()
            await trio.sleep(0.08)
        assert len(rig.delivered) > count


async def test_the_doubtful_are_used_last_and_the_held_are_kept(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "n1", "n2", "n3", "n4")
    async with running(rig):
        rig.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        rig.catalog.unreachable.append("n2")
        rig.catalog.held.append("n3")
        rig.catalog.statuses["n3"] = rig.catalog.statuses["n4"] = MemberStatus.DEAD
        for name in ("n2", "n3", "n4"):
            rig.tell(name, urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        section = rig.delivered[-1].section(f"upstream/{SERVICE}")
        assert isinstance(section, UpstreamSection)
        assert {endpoint.node: endpoint.tier for endpoint in section.endpoints} == {"n1": 0, "n2": 1, "n3": 1}


async def test_an_isolated_node_uses_its_own_first_and_all_again_when_it_is_over(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "n1", "n2", "n3")
    async with running(rig):
        rig.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        for is_isolated in (True, False):
            rig.feed.isolated(is_isolated)
            await trio.testing.wait_all_tasks_blocked()
            tiers = {endpoint.node: endpoint.tier for endpoint in rig.endpoints()}
            assert tiers == {"n1": 0, "n2": int(is_isolated), "n3": int(is_isolated)}


async def test_an_agent_gone_for_ten_minutes_makes_its_endpoints_the_last_resort(
    tmp_path: Path, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """By time alone: nothing is heard of it meanwhile, and nothing else is compiled."""
    rig = Rig(tmp_path, "n1", "n2", clock=lambda: Instant(int(trio.current_time() * SECOND_NS)))
    async with running(rig):
        rig.catalog.changed_at = Instant(int(trio.current_time() * SECOND_NS))
        rig.catalog.statuses["n2"] = MemberStatus.UNATTENDED
        rig.feed.demand(SERVICE)
        await trio.sleep(599)
        count = len(rig.delivered)
        assert [(endpoint.node, endpoint.tier, endpoint.weight) for endpoint in rig.endpoints()] == [
            ("n1", 0, 100),
            ("n2", 0, 50),
        ]
        await trio.sleep(2)
        assert [(endpoint.node, endpoint.tier) for endpoint in rig.endpoints()] == [("n1", 0), ("n2", 1)]
        await trio.sleep(3_600)
        assert len(rig.delivered) == count + 1
    (told,) = [record for record in caplog.records if "gone for ten minutes" in record.message]
    assert told.fields == {"node": "n2"}  # type: ignore[attr-defined]


async def test_a_death_does_not_wait(tmp_path: Path, autojump_clock: object) -> None:
    rig = Rig(tmp_path, "n1", "n2")
    async with running(rig):
        rig.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        rig.catalog.statuses["n2"] = MemberStatus.DEAD
        started = trio.current_time()
        rig.tell("n2", urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.nodes() == ["n1"]
        assert trio.current_time() == started


async def test_after_a_restart_nothing_is_removed_until_released(tmp_path: Path) -> None:
    first = Rig(tmp_path, "n1", "n2", "n3")
    async with running(first):
        first.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        version = first.delivered[-1].version
        await _saved(first.path, version)
    second = Rig(tmp_path, "n1", "n2")
    second.feed.restore(running_version=version)
    async with running(second):
        await trio.testing.wait_all_tasks_blocked()
        assert second.feed.holding
        assert second.delivered == []
        second.put("n3", MemberStatus.ALIVE)
        second.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        assert [snapshot.version for snapshot in second.delivered] == [version]
        second.put("n3", None)
        second.feed.changed(urgent=True)
        second.feed.release("test")
        await trio.testing.wait_all_tasks_blocked()
        assert second.nodes() == ["n1", "n2"]


async def test_a_node_that_cannot_read_its_policy_any_more_opens_no_door(tmp_path: Path) -> None:
    """An older build, say: the floor is known, the set is not taken; released or not, the rules stay."""
    domain = TrustDomainBuilder()
    knowing = domain.documents()
    denied = MeshPolicy(API_VERSIONS["MeshPolicy"], Metadata("mesh"), MeshPolicySpec(Unregistered.DENY))
    accepted = knowing.check_untrusted(domain.policy_set(1, [access_policy("web-only"), denied]))
    knowing.adopt(accepted)
    first = Rig(tmp_path, documents=knowing, local=(CART,))
    async with running(first):
        first.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        await _saved(first.path, first.delivered[-1].version)
    older = domain.documents()
    older.restore_floor("mesh", 1, accepted.manifest_hash)
    new = msgspec.structs.replace(CART, registration="new", service="shop/new")
    second = Rig(tmp_path, "n1", documents=older, local=(CART, new))
    second.feed.restore(running_version=first.delivered[-1].version)
    async with running(second):
        second.feed.demand(SERVICE)
        second.feed.release("test")
        await trio.testing.wait_all_tasks_blocked()
        assert second.nodes() == ["n1"]
        now, before = second.delivered[-1], first.delivered[-1]
        assert now.section("inbound/cart") == before.section("inbound/cart")
        assert _unregistered(now) == ""
        added = now.section("inbound/new")
        assert isinstance(added, InboundSection)
        assert not added.default_allow
        older.adopt(older.check_untrusted(domain.policy_set(2)))
        second.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        opened = second.delivered[-1].section("inbound/cart")
        assert isinstance(opened, InboundSection)
        assert opened.default_allow
        assert _unregistered(second.delivered[-1]) is None


def _unregistered(snapshot: Snapshot) -> str | None:
    callers = snapshot.section("callers")
    assert isinstance(callers, CallersSection)
    return callers.unregistered


async def test_an_engine_that_runs_something_else_gets_nothing_until_released(tmp_path: Path) -> None:
    """The last agent died before it saved what it had delivered: its engine may know more than the disk."""
    first = Rig(tmp_path, "n1")
    async with running(first):
        first.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        await _saved(first.path, first.delivered[-1].version)
    second = Rig(tmp_path, "n1")
    second.feed.restore(running_version="later")
    async with running(second):
        second.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        assert second.delivered == []
        second.feed.release("test")
        await trio.testing.wait_all_tasks_blocked()
        assert second.nodes() == ["n1"]


async def test_rules_are_not_undone_by_an_agent_that_lost_its_policies(tmp_path: Path) -> None:
    domain = TrustDomainBuilder()
    knowing = domain.documents()
    knowing.adopt(knowing.check_untrusted(domain.policy_set(1, [access_policy("web-only")])))
    first = Rig(tmp_path, documents=knowing, local=(CART,))
    async with running(first):
        first.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        version = first.delivered[-1].version
        await _saved(first.path, version)
    second = Rig(tmp_path, documents=domain.documents(), local=(CART,))
    second.feed.restore(running_version=version)
    async with running(second):
        second.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        assert second.delivered == []
        second.feed.release("test")
        await trio.testing.wait_all_tasks_blocked()
        assert second.delivered[-1].version != version


async def test_the_hold_ends_by_itself(tmp_path: Path, autojump_clock: object) -> None:
    rig = Rig(tmp_path, "n1")
    rig.feed.restore(running_version="unknown")
    async with running(rig):
        rig.feed.demand(SERVICE)
        await trio.sleep(29)
        assert rig.delivered == []
        await trio.sleep(2)
        assert rig.nodes() == ["n1"]


async def test_a_node_starts_from_disk_with_nobody_to_ask(tmp_path: Path) -> None:
    first = Rig(tmp_path, "n1", "n2")
    async with running(first):
        first.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        await _saved(first.path, first.delivered[-1].version)
    cold = Rig(tmp_path)
    cold.feed.restore(running_version=None)
    assert cold.nodes() == ["n1", "n2"]


def test_a_snapshot_of_another_build_is_left_aside(tmp_path: Path) -> None:
    """Whole and with right hashes, but of sections this build does not read."""
    rig = Rig(tmp_path)
    for encoded in ({"upstream/shop/cart": b"\xc0"}, {"weather": b"\x80"}):
        rig.path.write_bytes(encode_snapshot(make_snapshot(encoded)))
        rig.feed.restore(running_version=None)
    assert rig.delivered == []
    assert not rig.feed.holding


def test_a_damaged_file_is_left_aside(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "n1")
    rig.path.write_bytes(b"not a snapshot")
    rig.feed.restore(running_version=None)
    assert rig.delivered == []
    assert not rig.feed.holding


async def test_demanded_services_are_bounded_and_the_least_lately_used_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossipmesh.model.limits.DEMANDED_SERVICES_MAX", 2)
    rig = Rig(tmp_path, "n1", "n2", "n3")
    rig.catalog.service_of = {"n1": "a/a", "n2": "b/b", "n3": "c/c"}
    await rig.feed.inputs()
    for service in ("a/a", "b/b", "not a name"):
        rig.feed.demand(service)
    rig.feed.touch("a/a")
    rig.feed.demand("c/c")
    inputs = await rig.feed.inputs()
    assert inputs.wanted == ("a/a", "c/c")
    assert inputs.node == "n1"


async def test_only_what_changed_of_a_wanted_service_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    names = [f"n{number:03}" for number in range(250)]
    rig = Rig(tmp_path, *names)
    rig.catalog.service_of = {
        name: SERVICE if name < "n005" else f"shop/s{int(name[1:]) % 3}" for name in names
    }
    read: list[str] = []
    compiled: list[int] = []
    async with running(rig):
        for service in (SERVICE, "shop/s1"):
            rig.feed.demand(service)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.nodes() == names[:5]
        serving, compile_ = rig.feed._index.serving, rig.feed._compiler.compile

        def note_read(service: str) -> tuple[NodeEndpoints, ...]:
            read.append(service)
            return serving(service)

        def note_compiled(inputs: SnapshotInputs) -> Snapshot:
            compiled.append(len(inputs.serving))
            return compile_(inputs)

        monkeypatch.setattr(rig.feed._index, "serving", note_read)
        monkeypatch.setattr(rig.feed._compiler, "compile", note_compiled)
        rig.put("n101", None)  # of shop/s2, which nobody asked for
        await trio.sleep(2)
        assert (read, compiled) == ([], [])
        rig.put("n003", None)
        await trio.sleep(2)
    assert (read, compiled) == ([SERVICE], [2])
    assert rig.nodes() == ["n000", "n001", "n002", "n004"]


async def test_many_endpoints_are_compiled_beside_the_loop(tmp_path: Path) -> None:
    names = [f"n{number:03}" for number in range(600)]
    rig = Rig(tmp_path, *names)
    rig.feed.demand(SERVICE)
    async with running(rig):
        for _ in range(500):
            if rig.delivered:
                break
            await trio.sleep(0.01)
    assert rig.nodes() == names


NAMES = [
    *(f"shop/n{number}x" for number in range(700)),  # one namespace, any name
    *(f"ns{number}/cart" for number in range(700)),  # any namespace
    *(f"{'a' * 62}{number % 10}/{'b' * 60}{number % 997}" for number in range(800)),  # as long as may be
]
NO_NAMES = [
    "Shop/Cart",
    "shop/cärt",
    "shop",
    "shop/",
    "/cart",
    "shop/cart/x",
    "shop/cart:80",
    "a" * 5_000,
    "",
]


async def test_names_nobody_vouches_for_become_no_state(tmp_path: Path, mock_clock: object) -> None:
    """Whoever may ask the proxy port may ask for anything; what is in use stays in use."""
    rig = Rig(tmp_path, "n1")
    async with running(rig):
        assert rig.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        delivered = list(rig.delivered)
        assert [rig.feed.demand(name) for name in [*NAMES, *NO_NAMES]] == [False] * 2_209
        await trio.testing.wait_all_tasks_blocked()
        assert rig.delivered == delivered
        assert (await rig.feed.inputs()).wanted == (SERVICE,)
        assert len(rig.feed._unvouched) == limits.UNVOUCHED_SERVICES_MAX


async def test_a_name_is_compiled_as_soon_as_somebody_vouches_for_it(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    rig = Rig(tmp_path, "n1")
    rig.catalog.service_of["n2"] = "shop/late"
    async with running(rig):
        rig.feed.changed(urgent=True)
        await trio.testing.wait_all_tasks_blocked()
        assert not rig.feed.demand("shop/late")
        rig.put("n2", MemberStatus.ALIVE)
        await trio.sleep(2)
        assert "routes/shop/late" in rig.delivered[-1].root
        rig.put("n2", None)
        await trio.sleep(2)
        assert rig.feed.demand("shop/late"), "it existed"


async def test_a_policy_vouches_for_what_it_names(tmp_path: Path) -> None:
    domain = TrustDomainBuilder()
    documents = domain.documents()
    documents.adopt(documents.check_untrusted(domain.policy_set(1, [access_policy("web-only")])))
    rig = Rig(tmp_path, documents=documents)
    await rig.feed.inputs()
    assert rig.feed.demand(SERVICE)
    assert not rig.feed.demand("shop/other")


def test_an_agent_that_knows_nothing_yet_denies_nothing(tmp_path: Path) -> None:
    """Before it has looked at the catalog, and while it holds back what it may lack."""
    rig = Rig(tmp_path)
    assert rig.feed.demand("shop/other")
    assert not rig.feed.demand("not a name")


async def test_while_removals_are_held_back_no_name_is_denied(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.feed.restore(running_version="of another engine")
    await rig.feed.inputs()
    assert rig.feed.demand("shop/other")
    rig.feed.release("the test says so")
    assert not rig.feed.demand("shop/other")


async def test_the_protocol_last_known_outlives_endpoints_and_restarts(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    def protocol(snapshot: Snapshot) -> str:
        section = snapshot.section(f"routes/{SERVICE}")
        assert isinstance(section, RoutesSection)
        return section.protocol

    mock_clock.autojump_threshold = 0
    rig = Rig(tmp_path, "n1")
    rig.catalog.protocol = Protocol.TCP
    async with running(rig):
        rig.feed.demand(SERVICE)
        await trio.testing.wait_all_tasks_blocked()
        assert protocol(rig.delivered[-1]) == "tcp"
        rig.put("n1", None)
        await trio.sleep(2)
        assert (protocol(rig.delivered[-1]), rig.nodes()) == ("tcp", [])
    rig.path.write_bytes(encode_snapshot(rig.delivered[-1]))
    again = Rig(tmp_path)
    again.feed.restore(running_version=None)
    again.feed.release("the test says so")
    async with running(again):
        await trio.testing.wait_all_tasks_blocked()
        assert protocol(await _compiled(again)) == "tcp"


async def _compiled(rig: Rig) -> Snapshot:
    return SnapshotCompiler().compile(await rig.feed.inputs())


A, B = b"a" * 16, b"b" * 16


async def test_a_callee_is_compiled_with_its_pins_and_again_when_they_turn(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "n2", "n3")
    rig.feed.demand(SERVICE)
    rig.keys.put("n2", A)
    async with running(rig):
        await rig.feed.compile()
        assert [(one.node, one.pins) for one in rig.endpoints()] == [("n2", (A,)), ("n3", None)]
        made = rig.feed._compiler.sections_made_count
        rig.tell_keys(rig.keys.put("n2", B, A))
        await rig.feed.compile()
        assert rig.endpoints()[0].pins == (B, A)
        assert rig.feed._compiler.sections_made_count - made == 2, (
            "its upstream, and the shard of the new pin"
        )


async def test_who_signs_key_sets_is_called_once_its_set_is_here(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "n2", "n3")
    rig.feed.demand(SERVICE)
    rig.keys.put("n2")
    async with running(rig):
        await rig.feed.compile()
        assert rig.nodes() == ["n3"]
        rig.tell_keys(rig.keys.put("n2", A))
        await rig.feed.compile()
        assert rig.nodes() == ["n2", "n3"]


async def test_an_engine_of_the_build_before_is_told_nothing_of_keys(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "n2")
    rig.features = SECTION_FEATURES - {PINS}
    rig.feed.demand(SERVICE)
    rig.keys.put("n2", A)
    async with running(rig):
        await rig.feed.compile()
        names = list(rig.delivered[-1].root)
        assert not [name for name in names if name.startswith(("pins/", "credentials/", "trust"))]
        assert rig.endpoints()[0].pins is None
        rig.features = SECTION_FEATURES
        rig.feed.look_around()
        assert rig.feed.has_changes
        await rig.feed.compile()
        assert rig.endpoints()[0].pins == (A,)


async def test_an_engine_is_told_who_issues_and_whether_anybody_is_heard(tmp_path: Path) -> None:
    documents = TrustDomainBuilder().documents()
    rig = Rig(tmp_path, "n2", documents=documents)
    assert documents.trust is not None
    async with running(rig):
        await rig.feed.compile()
        assert rig.delivered[-1].section("trust") == TrustSection(documents.trust.intermediates, True)
        rig.feed.look_around()
        assert not rig.feed.has_changes
        rig.hears = False
        rig.feed.look_around()
        await rig.feed.compile()
        assert rig.delivered[-1].section("trust") == TrustSection(documents.trust.intermediates, False)
        changes = {"version": 2, "revoked_leaves": {"1a5e": 1_800_000_000}}
        following = msgspec.structs.replace(documents.trust, **changes)
        documents.load_trust_untrusted(TrustDomainBuilder().sign_trust(following))
        rig.feed.changed(urgent=True)
        await rig.feed.compile()
        assert rig.delivered[-1].section("trust") == TrustSection(
            documents.trust.intermediates, False, ("1a5e",)
        )


async def test_a_turn_of_a_member_nobody_here_asks_for_makes_its_shard_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "n2", "n3")
    rig.feed.demand(SERVICE)
    async with running(rig):
        await rig.feed.compile()
        made = rig.feed._compiler.sections_made_count
        rig.tell_keys(rig.keys.put("n9", A))
        await rig.feed.compile()
        assert rig.feed._compiler.sections_made_count - made == 2, "its pin, and its credential"
