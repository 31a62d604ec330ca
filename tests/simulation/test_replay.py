"""A simulated node with a flight recorder: what the recorder's file says happened happens again."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gossipmesh.gossip.base.settings import NodeAddresses
from gossipmesh.gossip.replay.checkpoint import (
    open_checkpoint_untrusted,
    take_checkpoint,
    write_checkpoint,
)
from gossipmesh.gossip.replay.recorder import FlightRecorder
from gossipmesh.gossip.replay.recording import Entry, Recording, read_recording_untrusted, state_of
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.testing.simulator.faults import DatagramLoss
from gossipmesh.testing.simulator.recorded import RECORDED, RecordedMesh, record_a_kill
from gossipmesh.testing.simulator.replay import main, replay
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier

VERIFIER = Verifier(1_000_000)
KEPT = Path(__file__).with_name("recording-0.2.0.gmr")


class Recorded(RecordedMesh):
    """A small mesh one of whose nodes is recorded, with what a test sets of its recorder."""

    def __init__(
        self,
        seed: int = 1,
        *,
        nodes_count: int = 6,
        **recorder: Any,
    ) -> None:
        run = Run(seed, nodes_count=nodes_count, loss_ratio=0.05, verifier=VERIFIER)
        super().__init__(run, FlightRecorder(**recorder))

    def join_and_kill(self) -> None:
        """Join, kill one node and wait until everyone holds it dead."""
        self.run.boot_and_settle()
        self.kill_another()


@pytest.fixture(scope="module")
def killed() -> tuple[Recorded, bytes]:
    recorded = Recorded()
    recorded.join_and_kill()
    return recorded, recorded.file()


def test_a_kill_replays_to_the_same_states(killed: tuple[Recorded, bytes]) -> None:
    recorded, data = killed
    recording = read_recording_untrusted(data)
    result = replay(recording)
    assert result.differences == ()
    assert result.steps_count == result.matched_count > 150
    assert result.state == state_of(recorded.core)
    assert {member.name: member.status for member in result.state.members}["n5"] == "dead"
    story = [(row["kind"], row["cause"]) for row in result.history if row["subject"] == "n5"]
    assert ("applied", "dead") in story
    assert [row["by"] for row in result.history if row["kind"] in ("vote-sent", "vote-received")]
    methods = {entry.method for entry in recording.entries}
    assert {"start", "handle_deadline", "receive_datagram", "receive_stream", "publish_services"} <= methods


def test_what_was_received_under_a_former_run_replays() -> None:
    """Who outlives a copy of itself is known by another run from then on; a file holds both."""
    recorded = Recorded(nodes_count=4)
    run = recorded.run
    run.boot_and_settle()
    copy = run.copy(recorded.host)
    others = [host.name for host in run.hosts if host is not recorded.host]
    rule = run.world.partition("copied", [recorded.host.name], others)
    run.world.start(copy, run.seeds())
    run.world.run_for(4 * SECOND_NS)
    run.world.heal(rule)
    run.settle()
    assert copy.core is None
    assert len(recorded.core.runs) == 2
    result = replay(read_recording_untrusted(recorded.file()))
    assert result.differences == ()
    assert result.state == state_of(recorded.core)


def test_what_came_by_a_carrier_replays() -> None:
    """Packets within frames of streams are sealed anew as the frames are."""
    recorded = Recorded(nodes_count=4)
    run = recorded.run
    run.boot_and_settle()
    rule = DatagramLoss("udp", 1, frozenset((recorded.host.name,)))
    run.world.cut(rule, [])
    run.world.run_for(15 * SECOND_NS)
    run.publish(run.hosts[0] if run.hosts[0] is not recorded.host else run.hosts[1])
    run.world.run_for(SECOND_NS)
    assert recorded.core.statistics().packets_carried > 20
    result = replay(read_recording_untrusted(recorded.file()))
    assert result.differences == ()
    assert result.state == state_of(recorded.core)


def test_the_file_holds_no_key_and_nothing_that_was_on_the_wire(killed: tuple[Recorded, bytes]) -> None:
    recorded, data = killed
    keys = recorded.run.domain.node(RECORDED)
    assert keys.signing.seed() not in data
    assert keys.exchange.seed() not in data
    sealed = [
        entry.arguments
        for packed in recorded.recorder.tape().entries
        if (entry := msgspec.msgpack.decode(packed, type=Entry)).method == "receive_datagram"
    ]
    bodies = [body[30:] for raw in sealed if (body := msgspec.msgpack.decode(raw)[0])[1] == 1]
    assert len(bodies) > 50
    assert not [body for body in bodies if body in data]


def test_a_changed_input_is_named(killed: tuple[Recorded, bytes]) -> None:
    _, data = killed
    recording = read_recording_untrusted(data)
    # One alone may be missed by nobody: most only say that their sender lives.
    entries = [
        entry for i, entry in enumerate(recording.entries) if i < 100 or entry.method != "receive_datagram"
    ]
    result = replay(msgspec.structs.replace(recording, entries=tuple(entries)))
    assert not result.ok
    assert result.differences[0].startswith("step ")
    foreign = replay(msgspec.structs.replace(recording, entries=tuple(entries), build="0.1.0+abc"))
    assert foreign.differences[0].startswith("recorded by another build (0.1.0+abc)")
    assert foreign.differences[1:] == result.differences


def test_a_file_does_not_tell_what_the_node_draws_later() -> None:
    recorded = Recorded(nodes_count=4)
    recorded.run.boot_and_settle()
    first = read_recording_untrusted(recorded.file())
    recorded.recorder.stir(b"fresh entropy")
    recorded.run.world.run_for(5 * SECOND_NS)
    second = replay(read_recording_untrusted(recorded.file()))
    assert second.differences == ()
    assert second.steps_count > len(first.entries)
    assert "reseed" not in {entry.method for entry in first.entries}


def test_a_long_run_replays_from_a_checkpoint() -> None:
    recorded = Recorded(
        checkpoint=take_checkpoint,
        checkpoint_interval_ns=4 * SECOND_NS,
        window_ns=8 * SECOND_NS,
    )
    recorded.join_and_kill()
    recorded.run.world.run_for(10 * SECOND_NS)
    assert recorded.recorder.checkpoints_count > 2
    data = recorded.file()
    recording = read_recording_untrusted(data)
    assert recording.start is None
    assert recording.checkpoint is not None
    keys = recorded.run.domain.node(RECORDED)
    assert keys.signing.seed() not in data
    assert keys.exchange.seed() not in data
    core = recorded.core
    for member in core._catalog:
        assert member.link is None or member.link._sealer._key not in data
    result = replay(recording)
    assert result.differences == ()
    assert result.steps_count > 40


def test_a_move_replays_though_its_checkpoint_was_taken_before_or_after_it() -> None:
    recorded = Recorded(
        checkpoint=take_checkpoint,
        checkpoint_interval_ns=4 * SECOND_NS,
        window_ns=8 * SECOND_NS,
    )
    run, host = recorded.run, recorded.host
    run.boot_and_settle()
    run.world.take_address_away(host, host.address.host)
    run.world.give_address(host, "10.9.9.9")
    moved = NodeAddresses((host.address,), (host.mesh_address,))
    run.world.call(host, lambda core, now: core.addresses_changed(moved, now))
    run.world.run_for(3 * SECOND_NS)
    soon = read_recording_untrusted(recorded.file())
    assert "addresses_changed" in {entry.method for entry in soon.entries}
    run.world.run_for(20 * SECOND_NS)
    later = read_recording_untrusted(recorded.file())
    assert "addresses_changed" not in {entry.method for entry in later.entries}
    for recording in (soon, later):
        result = replay(recording)
        assert result.differences == ()
        assert result.steps_count > 20
    assert later.checkpoint is not None
    signing, exchange = SigningKey(bytes(32)), ExchangeKey(bytes(range(32)))
    kept = open_checkpoint_untrusted(later.checkpoint, signing, exchange)
    assert kept.own_state.gossip_addresses == (host.address,)
    assert kept._own._profile.gossip_addresses == (host.address,)


def test_a_kill_in_a_larger_mesh_replays_from_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `record FILE --nodes 300` and `replay FILE` do, by as many members as take a second."""
    recorded = record_a_kill(30)
    file = tmp_path / "recording"
    file.write_bytes(recorded.file())
    recording = read_recording_untrusted(file.read_bytes())
    assert recording.start is None
    assert recording.checkpoint is not None
    result = replay(recording)
    assert result.differences == ()
    assert result.state == state_of(recorded.core)
    assert {member.name: member.status for member in result.state.members}["n5"] == "dead"
    assert main([str(file)]) == 0
    assert "every step and the state at the end are as recorded" in capsys.readouterr().out


def test_a_recording_of_0_2_is_read_by_this_build() -> None:
    """`record FILE --nodes 6` made it, and it is never made anew: a file of a flight recorder is not, either.

    A build may behave differently, so steps may differ; read it must.
    """
    recording = read_recording_untrusted(KEPT.read_bytes())
    assert (recording.format, recording.start, len(recording.entries)) == (2, None, 165)
    checkpoint = recording.checkpoint
    assert checkpoint is not None
    core = open_checkpoint_untrusted(checkpoint, SigningKey(bytes(32)), ExchangeKey(recording.exchange_seed))
    began = {member.name: (member.status, member.order) for member in state_of(core).members}
    ended = {member.name: (member.status, member.order) for member in recording.ending.members}
    assert began == {**ended, "n5": ("alive", ended["n5"][1])}
    assert sum(member.link is not None for member in core._catalog) == 5, "it knows its peers' keys"
    assert (
        open_checkpoint_untrusted(
            write_checkpoint(core), SigningKey(bytes(32)), ExchangeKey(recording.exchange_seed)
        ).state_sums()
        == core.state_sums()
    )

    result = replay(recording)
    assert result.steps_count == 165
    assert {member.name for member in result.state.members} == set(ended)
    assert {member.name: member.status for member in result.state.members}["n5"] == "dead"


def test_memory_is_bounded_and_a_lost_beginning_is_said() -> None:
    recorded = Recorded(nodes_count=4, bytes_max=15_000)
    recorded.run.boot_and_settle()
    assert recorded.recorder.size_bytes <= 15_000
    assert recorded.recorder.dropped_count > 0
    recording = read_recording_untrusted(recorded.file())
    assert recording.dropped_count == recorded.recorder.dropped_count
    with pytest.raises(MalformedInput, match="lost its beginning"):
        replay(recording)


def test_a_state_too_long_to_keep_is_not_written_at_every_input() -> None:
    """A stretch is soon half of the ring, and no checkpoint fits: each would be work for nothing."""
    asked: list[int] = []

    def too_long(core: Any, length_max: int) -> bytes:
        asked.append(core._ctx.now)
        return bytes(20_000)

    recorded = Recorded(nodes_count=4, bytes_max=15_000, checkpoint=too_long)
    recorded.run.boot_and_settle()
    recorded.run.world.run_for(30 * SECOND_NS)
    assert recorded.recorder.entries_count > 200
    assert 1 <= len(asked) <= 2


def test_a_start_with_too_large_a_past_still_records_what_comes() -> None:
    recorded = Recorded(nodes_count=4, bytes_max=12_000)
    recorded.run.boot_and_settle()
    recorded.run.world.kill_agent(recorded.host)
    recorded.run.world.start(recorded.host, recorded.run.seeds())
    recorded.run.world.run_for(SECOND_NS)
    recording = read_recording_untrusted(recorded.file())
    assert (recording.start, recording.checkpoint) == (None, None)
    assert recording.entries


@pytest.mark.parametrize("data", [b"", b"\xc1", msgspec.msgpack.encode({"format": 1})])
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput, match="not a recording"):
        read_recording_untrusted(data)


def test_another_format_is_refused(killed: tuple[Recorded, bytes]) -> None:
    recording: Recording = read_recording_untrusted(killed[1])
    other = msgspec.msgpack.encode(msgspec.structs.replace(recording, format=99))
    with pytest.raises(MalformedInput, match="of format 99"):
        read_recording_untrusted(other)
