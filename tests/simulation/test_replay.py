"""A simulated node with a flight recorder: what the recorder's file says happened happens again."""

import random
from typing import Any

import msgspec
import pytest

from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.checkpoint import open_checkpoint_untrusted, take_checkpoint
from gossipmesh.gossip.replay.recorder import FlightRecorder
from gossipmesh.gossip.replay.recording import Entry, Recording, read_recording_untrusted, state_of
from gossipmesh.gossip.replay.rekeying import Own, make_recording
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.simulator.replay import replay
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier

VERIFIER = Verifier(1_000_000)
NODE = "n3"


class Recorded:
    """A small mesh one of whose nodes is recorded."""

    def __init__(
        self,
        seed: int = 1,
        *,
        nodes_count: int = 6,
        **recorder: Any,
    ) -> None:
        self.run = Run(seed, nodes_count=nodes_count, loss_ratio=0.05, verifier=VERIFIER)
        self.recorder = FlightRecorder(**recorder)
        self.run.factory.node_class = self._make  # type: ignore[assignment]
        self.host = self.run.world.hosts[NODE]

    def _make(self, **arguments: Any) -> GossipNode:
        if arguments["profile"].name == NODE:
            return self.recorder.build(GossipNode, **arguments)
        return GossipNode(**arguments)

    def kill_another(self) -> None:
        """Join, kill one node and wait until everyone holds it dead."""
        run = self.run
        run.boot_and_settle()
        victim = run.hosts[4]
        run.world.kill_node(victim)
        run.wait_status(victim, MemberStatus.DEAD, 60 * SECOND_NS)

    def file(self) -> bytes:
        core = self.run.core(self.host)
        keys = self.run.domain.node(NODE)
        own = Own(
            name=NODE,
            node_id=core.own_node_id,
            run=core.own_state.run_id,
            trust_domain=self.run.domain.trust_domain,
            exchange=keys.exchange,
            throwaway_seed=random.Random(7).randbytes(32),
            signing_public=keys.signing.public,
        )
        return make_recording(self.recorder.tape(), own, build="test", wall_offset_s=0, ending=state_of(core))


@pytest.fixture(scope="module")
def killed() -> tuple[Recorded, bytes]:
    recorded = Recorded()
    recorded.kill_another()
    return recorded, recorded.file()


def test_a_kill_replays_to_the_same_states(killed: tuple[Recorded, bytes]) -> None:
    recorded, data = killed
    recording = read_recording_untrusted(data)
    result = replay(recording)
    assert result.differences == ()
    assert result.steps_count == result.matched_count > 150
    assert result.state == state_of(recorded.run.core(recorded.host))
    assert {member.name: member.status for member in result.state.members}["n5"] == "dead"
    story = [(row["kind"], row["cause"]) for row in result.history if row["subject"] == "n5"]
    assert ("applied", "dead") in story
    assert [row["by"] for row in result.history if row["kind"] in ("vote-sent", "vote-received")]
    methods = {entry.method for entry in recording.entries}
    assert {"start", "handle_deadline", "receive_datagram", "receive_stream", "publish_services"} <= methods


def test_the_file_holds_no_key_and_nothing_that_was_on_the_wire(killed: tuple[Recorded, bytes]) -> None:
    recorded, data = killed
    keys = recorded.run.domain.node(NODE)
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
    recorded.kill_another()
    recorded.run.world.run_for(10 * SECOND_NS)
    assert recorded.recorder.checkpoints_count > 2
    data = recorded.file()
    recording = read_recording_untrusted(data)
    assert recording.start is None
    assert recording.checkpoint is not None
    keys = recorded.run.domain.node(NODE)
    assert keys.signing.seed() not in data
    assert keys.exchange.seed() not in data
    core = recorded.run.core(recorded.host)
    for member in core._catalog:
        assert member.link is None or member.link._sealer._key not in data
    result = replay(recording)
    assert result.differences == ()
    assert result.steps_count > 50


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        "text",
        [("object", ["gossipmesh.net.udp:UdpSocket", []])],
        [("object", ["subprocess:Popen", []])],
        [("class", "gossipmesh.trust.keys:hashlib.sha256")],
        [("class", "gossipmesh.gossip.node:GossipNode")],
        [("function", ["gossipmesh.net.secret_files", "write_secret", [], [], None])],
        [("function", ["gossipmesh.gossip.node", "GossipNode.start", [0], [], None])],
        [("tuple", [[0]])],
        [("eval", "1")],
    ],
)
def test_a_checkpoint_names_nothing_but_the_cores(nodes: Any) -> None:
    data = msgspec.msgpack.encode(nodes)
    with pytest.raises(MalformedInput):
        open_checkpoint_untrusted(data, SigningKey(bytes(32)), ExchangeKey(bytes(32)))


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

    def too_long(core: Any) -> bytes:
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
