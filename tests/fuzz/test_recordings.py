"""Mutated files of the flight recorder: refused, or replayed with differences told; nothing else."""

import random

import msgspec
import pytest

from gossipmesh.gossip.replay.checkpoint import open_checkpoint_untrusted, take_checkpoint
from gossipmesh.gossip.replay.recording import read_recording_untrusted
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.testing.simulator.recorded import RECORDED
from gossipmesh.testing.simulator.replay import replay
from gossipmesh.trust.keys import ExchangeKey, SigningKey
from tests.fuzz.budget import fuzz
from tests.fuzz.decoders import Target
from tests.simulation.test_replay import Recorded


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    made = Recorded(nodes_count=3)
    made.run.boot_and_settle()
    made.run.world.run_for(SECOND_NS)
    return made


def test_mutated_files_are_refused_or_differ(recorded: Recorded) -> None:
    whole = read_recording_untrusted(recorded.file())
    short = msgspec.msgpack.encode(msgspec.structs.replace(whole, entries=whole.entries[:30]))

    def feed(data: bytes) -> tuple[int, int]:
        replay(read_recording_untrusted(data))
        return 0, 1

    fuzz(Target("replayed-recording", 2, "mixed", [short], feed, 0, 1, is_whole=True))


def test_mutated_files_are_refused_or_a_recording(recorded: Recorded) -> None:
    whole = read_recording_untrusted(recorded.file())
    short = msgspec.msgpack.encode(msgspec.structs.replace(whole, entries=whole.entries[:30]))

    def feed(data: bytes) -> tuple[int, int]:
        read_recording_untrusted(data)
        return 0, 1

    fuzz(Target("recording", 2, "mixed", [short], feed, 0, 1))


def test_mutated_checkpoints_are_refused_or_a_core(recorded: Recorded) -> None:
    data = take_checkpoint(recorded.core)
    assert data is not None
    fields = msgspec.msgpack.decode(data)
    seed = random.Random(1).randbytes(32)
    public = recorded.run.domain.node(RECORDED).signing

    def feed(content: bytes) -> tuple[int, int]:
        open_checkpoint_untrusted(content, SigningKey(seed), ExchangeKey(seed))
        return 0, 1

    feed(data)
    assert public.seed() not in data
    few = [msgspec.msgpack.encode(fields | {"parts": {name: held}}) for name, held in fields["parts"].items()]
    fuzz(Target("checkpoint", 5, "mixed", [data, *few], feed, 0, 1))
