"""A checkpoint is values under names of their own: it comes back as it was, and the next build reads it."""

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.budgets import TokenBucket
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.checkpoint import (
    VERSION,
    open_checkpoint_untrusted,
    parts_of,
    take_checkpoint,
    write_checkpoint,
)
from gossipmesh.gossip.replay.packing import Unwritable
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import Instant
from gossipmesh.trust.keys import ExchangeKey, SigningKey
from tests.unit.gossip.failure.test_monitor_detector import voting
from tests.unit.gossip.group import Group, exchange_of, key_of, policy_set

SEED = bytes(32)
TENTH_S = 0.1


def opened(data: bytes) -> GossipNode:
    return open_checkpoint_untrusted(data, SigningKey(SEED), ExchangeKey(SEED))


def changed(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    fields = msgspec.msgpack.decode(data)
    change(fields)
    return msgspec.msgpack.encode(fields)


def at_rest(group: Group, name: str) -> bytes:
    for _ in range(50):
        if (data := take_checkpoint(group.node(name))) is not None:
            return data
        group.run(TENTH_S)
    raise AssertionError("a stream is open all the time")


@pytest.fixture(scope="module")
def settled() -> bytes:
    group = voting()
    group.perform(group.hosts["a"], group.node("a").offer_policy(policy_set(1), Instant(group.now)))
    group.run(3)
    return at_rest(group, "b")


def test_it_comes_back_as_it_was(settled: bytes) -> None:
    core = opened(settled)
    assert write_checkpoint(core) == settled
    assert len(core.members()) == 5
    assert core._ctx.documents.floor("mesh")[0] == 1


def test_it_comes_back_in_the_midst_of_deaths_and_returns() -> None:
    """Cases, probes, votes, verdicts, what waits to be sent: all of it is values."""
    group = voting("a b c d e f")
    seen = set()
    group.kill("c", silent=True)
    group.kill("d")
    for step in range(80):
        if step == 50:
            group.start("d", "a")
        group.run(TENTH_S)
        data = take_checkpoint(group.node("a"))
        if data is not None:
            assert write_checkpoint(opened(data)) == data
            seen |= {kind for _, kind, _ in msgspec.msgpack.decode(data)["timers"]}
    assert {"again", "case", "control", "early tick", "probe over", "tick"} <= seen


def test_it_goes_on_as_the_core_does() -> None:
    group = voting()
    data = at_rest(group, "b")
    keys = key_of("b"), exchange_of("b")
    core, replayed = group.node("b"), open_checkpoint_untrusted(data, *keys)
    for _ in range(200):
        deadline = core.next_deadline()
        assert replayed.next_deadline() == deadline
        assert replayed.handle_deadline(deadline) == core.handle_deadline(deadline)
    assert replayed.statistics() == core.statistics()
    assert replayed.state_sums() == core.state_sums()


def test_it_holds_no_key_and_names_no_code(settled: bytes) -> None:
    assert key_of("b").seed() not in settled
    assert exchange_of("b").seed() not in settled
    assert not re.search(rb"gossipmesh\.(gossip|model|wire)|lambda|<locals>", settled)


def test_none_is_taken_while_a_stream_is_open() -> None:
    group = voting("a b c")
    node = group.node("a")
    node.stream_accepted(1, group.hosts["b"].address, Instant(group.now))  # type: ignore[arg-type]
    assert take_checkpoint(node) is None
    with pytest.raises(Unwritable, match="Session"):
        write_checkpoint(node)


def test_none_is_begun_that_would_be_too_long() -> None:
    node = Group("a").start("a")
    assert take_checkpoint(node, 899) is None
    assert take_checkpoint(node, 900) is not None


@pytest.mark.parametrize("version", [0, VERSION + 1, 2**40])
def test_another_version_is_refused_in_one_sentence(settled: bytes, version: int) -> None:
    other = changed(settled, lambda fields: fields.update(version=version, members="in another form"))
    with pytest.raises(MalformedInput, match=f"of version {version}, and this build reads {VERSION}: replay"):
        opened(other)


def test_what_a_later_build_added_is_left_out(settled: bytes) -> None:
    def add(fields: dict[str, Any]) -> None:
        fields["later"] = [1, 2]
        fields["settings"]["later"] = 5
        fields["parts"]["a part of a later build"] = {"field": 1}
        fields["parts"]["repair"]["a later field"] = ["l", 1]
        table = fields["members"]
        table["columns"].append("a later column")
        table["rows"] = [[*row, 7] for row in table["rows"]]
        fields["layouts"]["token bucket"].append("a later field")
        longer(fields["parts"])
        longer(fields["objects"])

    def longer(packed: Any) -> None:
        for one in packed.values() if isinstance(packed, dict) else packed:
            if isinstance(one, list | dict):
                longer(one)
        if isinstance(packed, list) and packed[:2] == ["a", "token bucket"]:
            packed.append(7)

    assert write_checkpoint(opened(changed(settled, add))) == settled


def test_what_an_older_build_had_not_has_a_default(settled: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a part and a member: what a new one has. Of a value: what its class says beside its name."""

    def drop(fields: dict[str, Any]) -> None:
        del fields["parts"]["repair"]["turned_away_by"]
        del fields["parts"]["renewals"]
        table = fields["members"]
        column = 6 + table["columns"].index("unequal_count")
        table["columns"].remove("unequal_count")
        table["rows"] = [[*row[:column], *row[column + 1 :]] for row in table["rows"]]
        layout = fields["layouts"]["token bucket"]
        place = layout.index("full_at")
        layout.remove("full_at")
        shorter(fields["parts"], 2 + place)
        shorter(fields["objects"], 2 + place)

    def shorter(packed: Any, place: int) -> None:
        for one in packed.values() if isinstance(packed, dict) else packed:
            if isinstance(one, list | dict):
                shorter(one, place)
        if isinstance(packed, list) and packed[:2] == ["a", "token bucket"]:
            del packed[place]

    older = changed(settled, drop)
    with_default = kept.KeptValue(TokenBucket, {"full_at": 77}, True)
    monkeypatch.setitem(kept.VALUES, "token bucket", with_default)
    core = opened(older)
    assert parts_of(core)["repair"]._turned_away_by is None
    assert {member.unequal_count for member in core._catalog} == {0}
    assert parts_of(core)["intake"]._newcomers._full_at == 77
    assert core.handle_deadline(core.next_deadline()) is not None


@pytest.mark.parametrize(
    "packed",
    [
        ["o", 99],
        ["m", 99],
        ["e", "token bucket", 1],
        ["e", "no such enum", 1],
        ["s", "no such struct", b""],
        ["s", "address", b"\xc1"],
        ["n", "token bucket", 1],
        ["n", "no such value", 1],
        ["a", "node"],
        ["a", "subprocess.Popen"],
        ["eval", "1"],
        ["q", "x"],
        ["d", 1],
        ["i", "no number"],
        [],
    ],
)
def test_it_makes_nothing_but_what_has_a_name(settled: bytes, packed: Any) -> None:
    def put(fields: dict[str, Any]) -> None:
        fields["parts"]["repair"]["turned_away_by"] = packed

    with pytest.raises(MalformedInput):
        opened(changed(settled, put))


def test_one_too_deep_is_refused(settled: bytes) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = ["l", deep]

    def put(fields: dict[str, Any]) -> None:
        fields["parts"]["repair"]["turned_away_by"] = deep

    with pytest.raises(MalformedInput, match="too deep"):
        opened(changed(settled, put))


@pytest.mark.parametrize("field", ["repair", "spreading"])
def test_what_composition_gave_is_never_replaced(settled: bytes, field: str) -> None:
    def put(fields: dict[str, Any]) -> None:
        fields["parts"][field]["catalog" if field == "repair" else "fetch"] = 1
        fields["parts"][field]["ctx"] = 1

    assert write_checkpoint(opened(changed(settled, put))) == settled
