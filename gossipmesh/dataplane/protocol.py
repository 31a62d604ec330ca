"""The engine protocol's frames and their bytes. Spec: docs/ENGINE.md.

A frame is a 4-byte big-endian length, then one msgpack map whose first key is `type`. Descriptors ride
beside a `listeners` frame (SCM_RIGHTS). Rules:

1. Lengths and container sizes are checked before anything is decoded, types after.
2. A frame of an unknown type and an unknown field are skipped: the other side may be newer.
3. A known frame that does not fit its shape ends the connection; the engine keeps serving.
4. Private keys cross this socket, so both sides check the other's uid before the first frame.
"""

from typing import Any, Final

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.engine_features import PINS, SECTION_FEATURES
from gossipmesh.model.errors import MalformedInput
from gossipmesh.wire import codec, versions

LENGTH_BYTES: Final = 4

LATENCY_BUCKETS_MS: Final[tuple[int, ...]] = (
    1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100, 200, 300, 400, 500, 1000, 2000, 3000, 4000, 5000,
    10000, 20000, 30000, 40000, 50000,
)  # fmt: skip
"""Upper bounds of the histogram an agent of 0.1 reads; one more bucket holds what is slower."""

DURATION_BUCKETS_MS: Final[tuple[int, ...]] = (
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000,
)  # fmt: skip
"""Upper bounds of a request's duration, each one of those above: what either side counts the other can read.

With the one for what is slower they are fifteen: each label set of requests has that many series.
"""

REQUESTS_FEATURE: Final = "requests"
"""Said by an agent that reads `requests` and `connections`, and by an engine that tells them."""

PINS_FEATURE: Final = PINS

FEATURES: Final[tuple[str, ...]] = tuple(
    sorted(("demand", "drain", "http", "listeners", "probe", REQUESTS_FEATURE, "tcp", *SECTION_FEATURES))
)
"""What the reference engine can execute, sorted."""


class AgentHello(msgspec.Struct, frozen=True, tag_field="type", tag="hello"):
    """The agent's first frame. `boot_id` names the agent process, so a log can tell two apart.

    `features`: what it reads beyond 0.1, sorted.
    """

    node_id: bytes
    boot_id: str
    protocol_min: int = versions.ENGINE_PROTOCOL
    protocol_max: int = versions.ENGINE_PROTOCOL
    features: tuple[str, ...] = ()


class EngineHello(msgspec.Struct, frozen=True, tag_field="type", tag="hello", omit_defaults=True):
    """The engine's first frame; `snapshot_version` None: nothing applied yet; `listeners` sorted.

    `draining`: it has been told to end, and serves what it has until then.
    """

    engine: str
    protocol: int
    features: tuple[str, ...]
    snapshot_version: str | None
    listeners: tuple[str, ...]
    pid: int
    draining: bool = False


class SnapshotOffer(msgspec.Struct, frozen=True, tag_field="type", tag="snapshot"):
    """A whole snapshot by name; `sections` are those the agent believes the engine lacks."""

    request: int
    version: str
    root: dict[str, bytes]
    sections: tuple[bytes, ...] = ()


class SectionsSupply(msgspec.Struct, frozen=True, tag_field="type", tag="sections"):
    """Sections answering `need`; the last frame of an answer says so."""

    request: int
    sections: tuple[bytes, ...]
    last: bool


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """One SVID with its key, PEM. The chain is the leaf, then intermediates.

    `carrier_pem`: a leaf of the same key by the carrier CA, presented when the chain's does not hold; empty:
    there is none. `chain_pem` is empty where no authority has issued one.
    """

    spiffe_id: str
    chain_pem: bytes
    key_pem: bytes
    carrier_pem: bytes = b""

    def __repr__(self) -> str:
        return f"Identity({self.spiffe_id!r})"

    def __rich_repr__(self) -> Any:
        yield self.spiffe_id


class IdentitiesSupply(msgspec.Struct, frozen=True, tag_field="type", tag="identities", omit_defaults=True):
    """All identities of the node, replacing the earlier ones, and the roots to trust.

    `carrier_root_pem`: the carrier CA's certificate, so that carrier leaves come through TLS; it makes them
    nobody's. Empty: none are taken.
    """

    request: int
    identities: tuple[Identity, ...]
    bundle_pem: bytes
    carrier_root_pem: bytes = b""

    def __repr__(self) -> str:
        return f"IdentitiesSupply({[identity.spiffe_id for identity in self.identities]!r})"

    def __rich_repr__(self) -> Any:
        yield self.identities


class Listeners(msgspec.Struct, frozen=True, tag_field="type", tag="listeners"):
    """Listening descriptors, one per name in order; in a reply `last` ends the series."""

    request: int
    names: tuple[str, ...]
    last: bool = True


class TakeListeners(msgspec.Struct, frozen=True, tag_field="type", tag="take_listeners"):
    """Asks for duplicates of every listening descriptor."""

    request: int


class UnknownService(msgspec.Struct, frozen=True, tag_field="type", tag="unknown_service"):
    """Answers a `demand`: neither catalogue nor policy knows the service. Nothing comes back."""

    service: str


class Drain(msgspec.Struct, frozen=True, tag_field="type", tag="drain", omit_defaults=True):
    """Stop accepting, finish within `timeout_ms`, acknowledge, exit.

    `succeeded`: another engine accepts on the same sockets, so that all of them are let go of at once.
    """

    request: int
    timeout_ms: int
    succeeded: bool = False


class Ack(msgspec.Struct, frozen=True, tag_field="type", tag="ack"):
    """Request done; `version` is the snapshot in force."""

    request: int
    version: str | None


class Nack(msgspec.Struct, frozen=True, tag_field="type", tag="nack"):
    """Request refused; nothing changed, `version` (the old snapshot) keeps serving."""

    request: int
    version: str | None
    error: str


class Need(msgspec.Struct, frozen=True, tag_field="type", tag="need"):
    """Sections of the offered snapshot the engine lacks, by hash."""

    request: int
    hashes: tuple[bytes, ...]


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """Requests that ended alike: status class (`2xx`, `tcp`, or `0` for none sent) and response flags."""

    code_class: str
    flag: str
    requests_count: int


class TrafficDelta(msgspec.Struct, frozen=True):
    """What one (direction, caller, service, route, protocol) did since the last frame, for an agent of 0.1.

    `direction` is `outbound` or `inbound`; `latency_counts` follows LATENCY_BUCKETS_MS plus one.
    """

    direction: str
    caller: str
    service: str
    route: str
    protocol: str
    outcomes: tuple[Outcome, ...]
    latency_counts: tuple[int, ...]
    latency_sum_ms: int
    received_bytes: int
    sent_bytes: int
    retries_count: int


class RequestsDelta(msgspec.Struct, frozen=True):
    """What requests that ended alike did since the last frame.

    `direction` is `outbound` or `inbound`; `service` is the one asked for, `upstream` the one chosen
    (`shop/cart@v2`), both empty when there is none; `response_code` 0: no answer went out; `response_flags`
    `-` for none; `duration_counts` follows DURATION_BUCKETS_MS plus one; bytes are those of bodies.
    """

    direction: str
    caller: str
    service: str
    upstream: str
    route: str
    protocol: str
    response_code: int
    response_flags: str
    requests_count: int
    retries_count: int
    duration_counts: tuple[int, ...]
    duration_sum_us: int
    received_bytes: int
    sent_bytes: int


class ConnectionsDelta(msgspec.Struct, frozen=True):
    """What TCP connections did since the last frame.

    With empty `response_flags`: those that opened, and the bytes of all; else those that ended so.
    """

    direction: str
    caller: str
    service: str
    upstream: str
    route: str
    response_flags: str
    opened_count: int
    closed_count: int
    retries_count: int
    received_bytes: int
    sent_bytes: int


class Statistics(msgspec.Struct, frozen=True, tag_field="type", tag="statistics", omit_defaults=True):
    """Once a second, or every two when nothing moved. `counters` are deltas, `gauges` levels.

    Their names are in docs/ENGINE.md. An agent that says REQUESTS_FEATURE is told `requests` and
    `connections`, one that does not is told `traffic`; never both.
    """

    interval_ms: int
    traffic: tuple[TrafficDelta, ...]
    counters: dict[str, int]
    gauges: dict[str, int]
    requests: tuple[RequestsDelta, ...] = ()
    connections: tuple[ConnectionsDelta, ...] = ()


class Demand(msgspec.Struct, frozen=True, tag_field="type", tag="demand"):
    """A request came for a service whose routes the snapshot does not hold."""

    service: str


class Ejection(msgspec.Struct, frozen=True, tag_field="type", tag="ejection"):
    """An endpoint was taken out of use, or let back (`ejected` False)."""

    upstream: str
    registration: str
    node: str
    reason: str
    ejected: bool


class Denial(msgspec.Struct, frozen=True, tag_field="type", tag="denial"):
    """A caller was refused; `rule` is the rule's name or `default`."""

    caller: str
    service: str
    method: str
    path: str
    rule: str


AgentFrame = (
    AgentHello
    | SnapshotOffer
    | SectionsSupply
    | IdentitiesSupply
    | Listeners
    | TakeListeners
    | Drain
    | UnknownService
)
EngineFrame = EngineHello | Ack | Nack | Need | Listeners | Statistics | Demand | Ejection | Denial
EngineEvent = Statistics | Demand | Ejection | Denial

_AGENT_FRAMES: Final[dict[str, Any]] = {
    "hello": AgentHello,
    "snapshot": SnapshotOffer,
    "sections": SectionsSupply,
    "identities": IdentitiesSupply,
    "listeners": Listeners,
    "take_listeners": TakeListeners,
    "drain": Drain,
    "unknown_service": UnknownService,
}
_ENGINE_FRAMES: Final[dict[str, Any]] = {
    "hello": EngineHello,
    "ack": Ack,
    "nack": Nack,
    "need": Need,
    "listeners": Listeners,
    "statistics": Statistics,
    "demand": Demand,
    "ejection": Ejection,
    "denial": Denial,
}


def encode_frame(frame: AgentFrame | EngineFrame) -> bytes:
    """Return a frame's bytes, length first.

    Raises:
        ValueError: longer than limits.ENGINE_FRAME_BYTES_MAX. Local fault. State unchanged.
    """
    body = codec.encode(frame)
    if len(body) > limits.ENGINE_FRAME_BYTES_MAX:
        raise ValueError(f"a {type(frame).__name__} of {len(body)} bytes does not fit a frame")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode_agent_frame_untrusted(body: bytes) -> AgentFrame | None:
    """Read what an agent sent, without its length; None for a type this version does not know.

    Raises:
        MalformedInput: not such a frame. Remote's fault. State unchanged.
    """
    frame: AgentFrame | None = _decode_untrusted(body, _AGENT_FRAMES)
    return frame


def decode_engine_frame_untrusted(body: bytes) -> EngineFrame | None:
    """Read what an engine sent, without its length; None for a type this version does not know.

    Raises:
        MalformedInput: not such a frame. Remote's fault. State unchanged.
    """
    frame: EngineFrame | None = _decode_untrusted(body, _ENGINE_FRAMES)
    return frame


def _decode_untrusted(body: bytes, shapes: dict[str, Any]) -> Any:
    value = codec.unpack_untrusted(body, bytes_max=limits.ENGINE_FRAME_BYTES_MAX)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise MalformedInput("a frame is a map with a type")
    shape = shapes.get(value["type"])
    return None if shape is None else codec.convert_untrusted(value, shape)


class FrameBuffer:
    """Cuts a byte stream into frame bodies; holds at most one frame and one read beyond it."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed_untrusted(self, data: bytes) -> None:
        """Take bytes as they came.

        Raises:
            MalformedInput: the frame begun announces more than a frame may hold. State: unusable after.
        """
        self._data += data
        self._check_length()

    def next_body(self) -> bytes | None:
        """Return the next whole body, or None when more bytes are needed.

        Raises:
            MalformedInput: the frame after it announces too much. State: unusable after.
        """
        if len(self._data) < LENGTH_BYTES:
            return None
        end = LENGTH_BYTES + int.from_bytes(self._data[:LENGTH_BYTES], "big")
        if len(self._data) < end:
            return None
        with memoryview(self._data) as view:
            body = bytes(view[LENGTH_BYTES:end])
        del self._data[:end]
        self._check_length()
        return body

    def _check_length(self) -> None:
        if len(self._data) >= LENGTH_BYTES:
            length = int.from_bytes(self._data[:LENGTH_BYTES], "big")
            if length > limits.ENGINE_FRAME_BYTES_MAX:
                raise MalformedInput(f"a frame of {length} bytes, {limits.ENGINE_FRAME_BYTES_MAX} allowed")
