"""Frames: their bytes, their limits, and what is skipped."""

import random

import msgpack
import msgspec
import pytest

from gossipmesh.dataplane.protocol import (
    Ack,
    AgentHello,
    ConnectionsDelta,
    Denial,
    Drain,
    EngineHello,
    FrameBuffer,
    IdentitiesSupply,
    Identity,
    Listeners,
    Need,
    Outcome,
    RequestsDelta,
    SectionsSupply,
    SnapshotOffer,
    Statistics,
    TakeListeners,
    TrafficDelta,
    UnknownService,
    decode_agent_frame_untrusted,
    decode_engine_frame_untrusted,
    encode_frame,
)
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput

AGENT_FRAMES = [
    AgentHello(b"n" * 16, "boot"),
    AgentHello(b"n" * 16, "boot", features=("requests",)),
    SnapshotOffer(1, "v", {"limits": b"h" * 16}, (b"section",)),
    SectionsSupply(1, (b"a", b"b"), True),
    IdentitiesSupply(2, (Identity("spiffe://m/node/a", b"chain", b"key"),), b"bundle"),
    Listeners(3, ("mesh", "proxy")),
    TakeListeners(4),
    Drain(5, 45_000),
    UnknownService("shop/ghost"),
]
TRAFFIC = TrafficDelta("outbound", "a", "b", "r", "http", (Outcome("2xx", "", 3),), (0,) * 26, 12, 1, 2, 0)
REQUESTS = RequestsDelta(
    "outbound", "a", "b", "b@v2", "r", "http", 200, "-", 3, 0, (3, *(0,) * 14), 2_500, 10, 20
)
CONNECTIONS = ConnectionsDelta("inbound", "a", "b", "", "", "UC", 0, 1, 0, 10, 20)
ENGINE_FRAMES = [
    EngineHello("reference/1", 1, ("http",), None, ("mesh",), 7),
    Ack(1, "v"),
    Need(1, (b"h" * 16,)),
    Statistics(1000, (TRAFFIC,), {"retries": 1}, {"downstream_connections": 2}),
    Statistics(1000, (), {"retries": 1}, {"downstream_connections": 2}, (REQUESTS,), (CONNECTIONS,)),
    Denial("spiffe://m/node/a", "shop/cart", "GET", "/", "default"),
]


@pytest.mark.parametrize("frame", AGENT_FRAMES, ids=lambda frame: type(frame).__name__)
def test_agent_frames_survive_the_wire(frame: object) -> None:
    assert decode_agent_frame_untrusted(encode_frame(frame)[4:]) == frame  # type: ignore[arg-type]


@pytest.mark.parametrize("frame", ENGINE_FRAMES, ids=lambda frame: type(frame).__name__)
def test_engine_frames_survive_the_wire(frame: object) -> None:
    assert decode_engine_frame_untrusted(encode_frame(frame)[4:]) == frame  # type: ignore[arg-type]


def test_bytes_are_a_length_and_a_map_that_begins_with_its_type() -> None:
    """As docs/ENGINE.md writes them out."""
    assert encode_frame(Ack(7, None)).hex() == (
        "0000001c83a474797065a361636ba77265717565737407a776657273696f6ec0"
    )


def test_unknown_type_and_unknown_fields_are_skipped() -> None:
    assert decode_agent_frame_untrusted(msgpack.packb({"type": "tap", "filter": "x"})) is None
    newer = {"type": "take_listeners", "request": 1, "since": "version 9"}
    assert decode_agent_frame_untrusted(msgpack.packb(newer)) == TakeListeners(1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgpack.packb([]),
        msgpack.packb({}),
        msgpack.packb({"type": 3}),
        msgpack.packb({"type": "drain"}),
        msgpack.packb({"type": "drain", "request": "1", "timeout_ms": 1}),
        msgpack.packb({"type": "drain", "request": 1, "timeout_ms": 1}) + b"\0",
    ],
)
def test_misshapen_frame_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedInput):
        decode_agent_frame_untrusted(body)


def test_length_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(MalformedInput):
        FrameBuffer().feed_untrusted((limits.ENGINE_FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


def test_frames_come_out_whole_however_they_were_cut() -> None:
    frames = [encode_frame(frame) for frame in AGENT_FRAMES]
    stream = b"".join(frames)
    for step in (1, 3, 1000):
        buffer, bodies = FrameBuffer(), []
        for start in range(0, len(stream), step):
            buffer.feed_untrusted(stream[start : start + step])
            while (body := buffer.next_body()) is not None:
                bodies.append(body)
        assert bodies == [frame[4:] for frame in frames]


def test_mutated_frames_raise_malformed_input_or_nothing() -> None:
    rng = random.Random(2)
    bodies = [encode_frame(frame)[4:] for frame in (*AGENT_FRAMES, *ENGINE_FRAMES)]
    refused = 0
    for _ in range(4_000):
        body = bytearray(rng.choice(bodies))
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        for decode in (decode_agent_frame_untrusted, decode_engine_frame_untrusted):
            try:
                decode(bytes(body))
            except MalformedInput:
                refused += 1
    assert refused > 1_000


def test_keys_are_not_in_any_repr() -> None:
    supply = IdentitiesSupply(1, (Identity("spiffe://m/node/a", b"chain", b"SECRET"),), b"bundle")
    assert "SECRET" not in f"{supply!r} {supply.identities!r} {msgspec.structs.replace(supply)}"
