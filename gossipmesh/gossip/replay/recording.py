"""What a flight recorder's file holds: a beginning, every input since, and what the core was at the end.

Rules:
1. No key of the node is in it: signatures it made are, and packets are sealed for a throwaway key.
2. An input is a method of the core that takes `now`; its arguments are typed by its own annotations, so
   whoever reads a file gets what the shell gave or an error.
3. What a step did is kept as a digest; sealed bytes count by their header and length, for a replay
   seals under other keys.
Paper: none; deterministic replay from inputs is rr's and FoundationDB's idea.
Deviation: none.
"""

import hashlib
import inspect
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from gossipmesh.gossip.base.effects import Effect, SendDatagram, SendStream
from gossipmesh.gossip.base.settings import GossipSettings, NodeProfile, RestoredState
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import SignedRecord
from gossipmesh.wire.datagram import DATA, HEADER_BYTES, TYPE_AT

FORMAT: Final = 2
STEP_DIGEST_BYTES: Final = 8
_RINGS: Final = ("model", "wire", "trust", "gossip")
RESEED: Final = "reseed"  # the one entry that is no method: the random generator was seeded anew
_ENCODER: Final = msgspec.msgpack.Encoder()

Inputs = Mapping[str, tuple[tuple[str, ...], type]]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One input and what came of it.

    `signatures`: (digest of what was signed, signature) in order; `nonces`: (stream, nonce) of stream
    hellos this step sent; `digest` covers effects and the next deadline, or the exception's name.
    """

    method: str
    arguments: msgspec.Raw
    digest: bytes
    signatures: tuple[tuple[bytes, bytes], ...] = ()
    nonces: tuple[tuple[int, bytes], ...] = ()


class Start(msgspec.Struct, frozen=True):
    """What a core was built from; `generator` is `random.Random.getstate`."""

    settings: GossipSettings
    trust_domain: str
    credential: SignedRecord
    profile: NodeProfile
    trust_envelopes: tuple[bytes, ...]
    floors: tuple[tuple[str, int, bytes], ...]
    policy_sets: tuple[bytes, ...]
    restored: RestoredState
    generator: tuple[int, tuple[int, ...], float | None]
    now: int
    wall_offset_s: int


class MemberState(msgspec.Struct, frozen=True):
    """A member as the core held it."""

    name: str
    status: str
    order: tuple[int, int, int]
    unreachable: bool = False


class CoreState(msgspec.Struct, frozen=True):
    """What a replay must end with."""

    members: tuple[MemberState, ...]
    group_sum: bytes
    documents_sum: bytes
    local_health: int
    statistics: dict[str, Any]


class Recording(msgspec.Struct, frozen=True):
    """A whole file. Neither `start` nor `checkpoint`: the beginning was lost and it cannot be replayed.

    `exchange_seed` is the throwaway key all packets in here are sealed for; `began`, `ended` and
    `wall_offset_s` place the entries in time.
    """

    format: int
    build: str
    node: str
    signing_public: bytes
    exchange_seed: bytes
    began: int
    ended: int
    wall_offset_s: int
    dropped_count: int
    start: Start | None
    checkpoint: bytes | None
    entries: tuple[Entry, ...]
    ending: CoreState


def read_recording_untrusted(data: bytes) -> Recording:
    """Read a file.

    Raises:
        MalformedInput: not such a file, or of another format. State unchanged.
    """
    try:
        recording = msgspec.msgpack.decode(data, type=Recording)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedInput(f"not a recording: {error}"[:300]) from None
    if recording.format != FORMAT:
        raise MalformedInput(f"a recording of format {recording.format}; this build reads {FORMAT}")
    return recording


def inputs_of(core: Any) -> Inputs:
    """Return the inputs of a core class: name -> (parameters, type of the argument tuple)."""
    return _inputs_of(core)


@cache
def _inputs_of(core: Any) -> Inputs:
    found: dict[str, tuple[tuple[str, ...], type]] = {}
    for name, function in inspect.getmembers(core, inspect.isfunction):
        if name.startswith("_"):
            continue
        hints = typing.get_type_hints(function)
        returned = hints.pop("return", None)
        if "now" in hints and returned in (list[Effect], type(None)):
            parameters = tuple(hints)
            shape: Any = tuple[tuple(hints.values())]  # type: ignore[misc]
            found[name] = (parameters, shape)
    return found


def step_digest(effects: Sequence[Effect] | None, deadline: Instant) -> bytes:
    """Return what names a step's outcome, whatever keys its packets were sealed under."""
    shown: list[Any] = [deadline]
    for effect in effects or ():  # nothing, for most of what comes
        if type(effect) is SendDatagram:
            payload = effect.payload
            sealed = len(payload) > HEADER_BYTES and payload[TYPE_AT] == DATA
            told = payload[:HEADER_BYTES] if sealed else payload
            shown.append(("datagram", effect.destination, told, len(payload)))
        elif type(effect) is SendStream:
            shown.append(("stream", effect.stream, len(effect.payload)))
        else:
            shown.append((type(effect).__name__, effect))
    return hashlib.blake2b(_ENCODER.encode(shown), digest_size=STEP_DIGEST_BYTES).digest()


def code_fingerprint() -> str:
    """Return what names the code of the cores on disk; take it at a start, before an upgrade changes it."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.blake2b(digest_size=6)
    for ring in _RINGS:
        for path in sorted((package / ring).rglob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def failure_digest(error: Exception) -> bytes:
    """Return what names a step that raised."""
    return hashlib.blake2b(type(error).__name__.encode(), digest_size=STEP_DIGEST_BYTES).digest()


def message_digest(message: bytes) -> bytes:
    """Return what names a message that was signed."""
    return hashlib.blake2b(message, digest_size=STEP_DIGEST_BYTES).digest()


def state_of(core: Any) -> CoreState:
    """Return a core's state as a replay compares it."""
    group_sum, documents_sum = core.state_sums()
    members = tuple(
        MemberState(
            view.name,
            view.status.label,
            (view.state.generation, view.state.epoch, view.state.sequence),
            getattr(view, "unreachable", False),
        )
        for view in core.members()
    )
    statistics: dict[str, Any] = msgspec.to_builtins(core.statistics())
    return CoreState(members, group_sum, documents_sum, core.local_health, statistics)
