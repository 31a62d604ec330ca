"""The recorder stands beside a core: it is handed every input there is, and patches nothing."""

import inspect
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.recorded_inputs import RecordedInputs
from gossipmesh.gossip.replay.recorder import CHECKPOINT_RETRY_NS, FlightRecorder
from gossipmesh.gossip.replay.recording import inputs_of
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS, Instant
from tests.unit.gossip.group import Group

AGENT = Path(__file__).resolve().parents[4] / "gossipmesh" / "agent"


class Recorder(FlightRecorder):
    """Records the one node of a group, which has nobody to talk to."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.group = Group("a")
        self.now = Instant(SECOND_NS)

    def begin(self) -> GossipNode:
        self.group.node_class = partial(self.build, GossipNode)
        return self.group.start("a")

    def feed(self, count: int, every_ns: int = 0, payload: bytes = bytes(900)) -> None:
        for _ in range(count):
            self.now = Instant(self.now + every_ns)
            self.inputs.receive_datagram(payload, self.group.hosts["a"].address, self.now)


def test_every_input_is_handed_over_in_its_own_form() -> None:
    handed = {name for name in vars(RecordedInputs) if not name.startswith("_")} - {"next_deadline"}
    assert handed == inputs_of(GossipNode).keys()
    for name in handed:
        ours, cores = (inspect.signature(getattr(kind, name)) for kind in (RecordedInputs, GossipNode))
        assert ours == cores, name


def test_the_agent_hands_its_inputs_to_the_recorder_and_not_past_it() -> None:
    names = "|".join(inputs_of(GossipNode))
    past = re.compile(rf"\b(?:node|core)\.(?:{names})\b")
    found = {path.name: past.findall(path.read_text()) for path in sorted(AGENT.glob("*.py"))}
    # The shell's core is what it was given: the recorder's inputs.
    assert [name for name, calls in found.items() if calls] == ["gossip_shell.py"]
    assert "GossipShell(\n            self.inputs," in (AGENT / "app.py").read_text()


def test_the_core_stays_as_its_class_made_it() -> None:
    recorder = Recorder()
    node = recorder.begin()
    assert not [name for name in inputs_of(GossipNode) if name in vars(node)]
    entries_count = recorder.entries_count
    node.note_lag(5, recorder.now)
    assert recorder.entries_count == entries_count


def test_what_an_input_raises_is_noted_and_raised() -> None:
    recorder = Recorder()
    recorder.begin()
    entries_count = recorder.entries_count
    with pytest.raises(MalformedInput):
        recorder.inputs.offer_trust(b"?", recorder.now)
    assert recorder.entries_count == entries_count + 1


def test_a_beginning_comes_first_then_the_newest_inputs() -> None:
    """Whatever comes, there is a beginning, memory is bounded, and what is let go is the oldest."""
    recorder = Recorder(bytes_max=100_000, checkpoint=lambda core, most: bytes(30_000))
    recorder.begin()
    began = []
    for _ in range(40):
        recorder.feed(10, CHECKPOINT_RETRY_NS // 4)
        assert recorder.size_bytes <= 100_000
        assert recorder.is_replayable
        began.append(recorder.tape().began)
    assert began == sorted(began)
    tape = recorder.tape()
    assert len(tape.entries) + tape.dropped_count == recorder.entries_count
    assert recorder.checkpoints_count > 5


def test_two_beginnings_are_held_where_there_is_room() -> None:
    """So that what came before a new checkpoint can be replayed until that has inputs of its own."""
    recorder = Recorder(bytes_max=100_000, checkpoint=lambda core, most: bytes(5_000))
    recorder.begin()
    fewest = 10_000
    for _ in range(60):
        recorder.feed(5, CHECKPOINT_RETRY_NS // 4)
        if recorder.checkpoints_count > 1:
            fewest = min(fewest, len(recorder.tape().entries))
    assert recorder.dropped_count > 0
    assert fewest > 40


def test_a_lost_beginning_is_made_good_as_soon_as_a_checkpoint_can_be_taken() -> None:
    can_be_taken = False
    recorder = Recorder(
        bytes_max=20_000, checkpoint=lambda core, most: bytes(1_000) if can_be_taken else None
    )
    recorder.begin()
    recorder.feed(60, SECOND_NS // 20)
    assert not recorder.is_replayable
    can_be_taken = True
    recorder.feed(60, SECOND_NS // 20)
    assert recorder.is_replayable
    assert recorder.size_bytes <= 20_000
