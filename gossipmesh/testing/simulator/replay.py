"""Replays a flight recorder's file on the real core: `python -m gossipmesh.testing.simulator replay FILE`.

Every input is fed again in order; each step's outcome must be the recorded one, and the state at the end
the one the recorder's node had. Signatures come from the file, packets are sealed for its throwaway key.
"""

import json
import random
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gossipmesh.gossip import rehearsal
from gossipmesh.gossip.base.settings import NodeKeys
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.checkpoint import Documents, open_checkpoint_untrusted
from gossipmesh.gossip.replay.recording import (
    RESEED,
    CoreState,
    Entry,
    Recording,
    Start,
    code_fingerprint,
    failure_digest,
    inputs_of,
    message_digest,
    read_recording_untrusted,
    state_of,
    step_digest,
)
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier

_VERDICTS_MAX = 1_000_000


class RecordedSigner(SigningKey):
    """Gives the signatures of a recording in their order; has no private key."""

    __slots__ = ("problems", "waiting")

    def __init__(self, public: bytes) -> None:
        self.public = public
        self.waiting: deque[tuple[bytes, bytes]] = deque()
        self.problems: list[str] = []

    def sign(self, message: bytes) -> bytes:
        """Return the next recorded signature; a message that differs is a problem, not an error."""
        if not self.waiting:
            self.problems.append("it signs what was not signed")
            return bytes(64)
        digest, signature = self.waiting.popleft()
        if digest != message_digest(message):
            self.problems.append("it signs another message")
        return signature


class Replay(msgspec.Struct, frozen=True):
    """What came of it: `differences` are sentences, empty when every step and the end are as recorded."""

    node: str
    build: str
    steps_count: int
    matched_count: int
    virtual_s: float
    differences: tuple[str, ...]
    state: CoreState
    history: tuple[dict[str, Any], ...]

    @property
    def ok(self) -> bool:
        """Tell whether nothing differed."""
        return not self.differences


def replay(recording: Recording, node_class: type[GossipNode] = GossipNode) -> Replay:
    """Feed a recording to a new core.

    Raises:
        MalformedInput: it has no beginning, or its beginning or an input cannot be used. State unchanged.
    """
    signer = RecordedSigner(recording.signing_public)
    core = _build(recording, signer, node_class)
    differences: list[str] = []
    matched_count = 0
    for number, entry in enumerate(recording.entries):
        digest = _step(core, entry, signer, node_class)
        problems = list(signer.problems)
        if signer.waiting:
            problems.append("it leaves unsigned what was signed")
        if digest != entry.digest:
            problems.append("what it asks for, or its deadline, differs")
        if problems:
            differences.append(f"step {number} ({entry.method}): {'; '.join(problems)}")
            signer.problems.clear()
            signer.waiting.clear()
        else:
            matched_count += 1
    state = state_of(core)
    if differences and "+" in recording.build and not recording.build.endswith("+" + code_fingerprint()):
        differences.insert(0, f"recorded by another build ({recording.build}): replay it with that one")
    differences += _differences(recording.ending, state)
    return Replay(
        node=recording.node,
        build=recording.build,
        steps_count=len(recording.entries),
        matched_count=matched_count,
        virtual_s=round((recording.ended - recording.began) / SECOND_NS, 3),
        differences=tuple(differences),
        state=state,
        history=tuple(_history(core, recording.wall_offset_s)),
    )


def _build(recording: Recording, signer: RecordedSigner, node_class: type[GossipNode]) -> GossipNode:
    if recording.checkpoint is not None:
        return open_checkpoint_untrusted(recording.checkpoint, signer, ExchangeKey(recording.exchange_seed))
    if recording.start is None:
        raise MalformedInput("this recording has lost its beginning, so it cannot be replayed")
    try:
        return _start(recording, recording.start, signer, node_class)
    except (ValueError, TypeError, OverflowError) as error:
        raise MalformedInput(f"a beginning that cannot be used: {error}"[:300]) from None


def _start(
    recording: Recording, start: Start, signer: RecordedSigner, node_class: type[GossipNode]
) -> GossipNode:
    verifier = Verifier(_VERDICTS_MAX)
    rng = random.Random()
    rng.setstate(start.generator)
    return node_class(
        settings=start.settings,
        trust_domain=start.trust_domain,
        keys=NodeKeys(start.credential, signer, ExchangeKey(recording.exchange_seed)),
        profile=start.profile,
        documents=_documents(start, verifier),
        verifier=verifier,
        restored=start.restored,
        rng=rng,
        now=Instant(start.now),
        wall_offset_s=start.wall_offset_s,
    )


def _documents(start: Start, verifier: Verifier) -> TrustedDocuments:
    held = Documents(start.trust_envelopes, start.floors, start.policy_sets)
    return held.restore(start.trust_domain, verifier)


def _step(core: GossipNode, entry: Entry, signer: RecordedSigner, node_class: type[GossipNode]) -> bytes:
    inputs = inputs_of(node_class)
    if entry.method == RESEED:
        (seed,) = _arguments(entry, tuple[bytes])
        rehearsal.reseed(core, seed)
        return entry.digest
    if entry.method not in inputs:
        raise MalformedInput(f"an input {entry.method[:80]!r} that this build does not know")
    parameters, shape = inputs[entry.method]
    arguments = _arguments(entry, shape)
    signer.waiting.extend(entry.signatures)
    try:
        effects = getattr(core, entry.method)(**dict(zip(parameters, arguments, strict=True)))
    except Exception as error:
        return failure_digest(error)
    return step_digest(effects, core.next_deadline())


def _arguments(entry: Entry, shape: Any) -> Any:
    try:
        return msgspec.msgpack.decode(entry.arguments, type=shape)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedInput(f"arguments of {entry.method} that do not fit: {error}"[:300]) from None


def _differences(recorded: CoreState, replayed: CoreState) -> list[str]:
    found = []
    for name in ("members", "group_sum", "documents_sum", "local_health"):
        if getattr(recorded, name) != getattr(replayed, name):
            found.append(f"at the end: {name} differ")
    keys = recorded.statistics.keys() | replayed.statistics.keys()
    differing = [key for key in keys if recorded.statistics.get(key) != replayed.statistics.get(key)]
    return found + [f"at the end: the count of {key} differs" for key in sorted(differing)]


def _history(core: GossipNode, wall_offset_s: int) -> list[dict[str, Any]]:
    names = {view.node_id: view.name for view in core.members()}
    return [
        {
            "subject": names.get(entry.subject, entry.subject.hex()),
            "kind": entry.kind,
            "by": names.get(entry.by, entry.by.hex()),
            "cause": entry.cause,
            "detail": entry.detail,
            "wall": round(entry.at / SECOND_NS + wall_offset_s, 3),
        }
        for name, node_id in sorted((name, node_id) for node_id, name in names.items())
        for entry in core.history(node_id)
    ]


def main(words: Sequence[str]) -> int:
    """Replay the file named in `words` (`--json` for one object) and return the exit code."""
    files = [word for word in words if not word.startswith("-")]
    if len(files) != 1:
        print("usage: python -m gossipmesh.testing.simulator replay FILE [--json]")  # noqa: T201
        return 2
    try:
        result = replay(read_recording_untrusted(Path(files[0]).read_bytes()))
    except (OSError, MalformedInput) as error:
        print(f"cannot replay {files[0]}: {error}")  # noqa: T201
        return 2
    if "--json" in words:
        print(json.dumps({"ok": result.ok, **msgspec.to_builtins(result)}))  # noqa: T201
    else:
        print(_text(result))  # noqa: T201
    return 0 if result.ok else 1


def _text(result: Replay) -> str:
    lines = [
        f"{result.node}, build {result.build}: {result.steps_count} steps over {result.virtual_s} s, "
        f"{result.matched_count} as recorded",
        *(f"  {m.name}: {m.status} {'.'.join(map(str, m.order))}" for m in result.state.members),
    ]
    counts = result.state.statistics
    lines.append(
        f"  cases open at the end: {counts.get('cases_open', 0)}; votes cast {counts.get('votes_cast', 0)}, "
        f"verdicts applied {counts.get('verdicts_applied', 0)}"
    )
    for row in result.history:
        at = datetime.fromtimestamp(row["wall"], UTC).strftime("%H:%M:%S.%f")[:-5]
        words = " ".join(filter(None, (row["kind"], row["cause"], f"by {row['by']}", row["detail"])))
        lines.append(f"  {at} {row['subject']}: {words}")
    if result.ok:
        return "\n".join([*lines, "every step and the state at the end are as recorded"])
    return "\n".join(
        [*lines, f"FAILED: first difference: {result.differences[0]}", *result.differences[1:20]]
    )
