"""What this node signs: its state, its services, its votes.

Rules:
1. An epoch is on disk before anyone hears of it, and before we are in it: until then we go on in the last.
2. A refutation only ever raises our own order; nobody else can.
3. A newer state of ours from another place is asked about there before it is outbid (`sessions.rivals`).
4. A later credential of our name, with other keys, is our successor's: we have nothing to say any more. Who
   has just come back believes so only once it had time to hear of a Trust that drops its signer.
Paper: SWIM section 4.2 (only the member itself raises its incarnation). Deviation: suspicion is refuted
by a higher sequence, death by a higher epoch, so that ordinary refutations need no fsync.
"""

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import EnrolledAgain, PersistKind, Revoked
from gossipmesh.gossip.base.settings import NodeAddresses, NodeProfile
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.base.writes import Continuation
from gossipmesh.gossip.membership.catalog import Catalog, Change
from gossipmesh.gossip.membership.key_sets import key_set_of
from gossipmesh.gossip.membership.soundness import (
    require_keys_allowed_untrusted,
    require_services_allowed_untrusted,
)
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.identity import NodeId
from gossipmesh.model.member import NodePhase
from gossipmesh.model.records import (
    IdentityPins,
    KeySet,
    NodeCredential,
    NodeState,
    PolicyStatus,
    RecordKind,
    ServiceSet,
    SignedRecord,
    Vote,
)
from gossipmesh.model.service import ServiceEntry
from gossipmesh.trust.records import sign_record, vote_bytes
from gossipmesh.wire.codec import encode
from gossipmesh.wire.versions import ENGINE_LACKS, WIRE_MAX, WIRE_MIN

_FORMER_RUNS_MAX: Final = 8
_TURNED_MAX: Final = 8  # an echo of an older set of ours is below the newest anyway


@kept.part("own records")
class OwnRecords:
    """Our own order and the records that carry it."""

    def __init__(
        self, ctx: Context, catalog: Catalog, credential: NodeCredential, profile: NodeProfile, epoch: int
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._credential = credential
        self._profile = profile
        self.generation = credential.generation
        self.epoch = epoch
        self.epoch_ahead = epoch  # the highest that is on disk or on its way there
        self._sequence = 0
        self.phase = NodePhase.SERVING
        self.policies: tuple[PolicyStatus, ...] = ()
        self.lag_ms = 0
        self.restarting_s = 0
        self.words: tuple[str, ...] = ()  # what we say of ourselves beside our build's features
        self.contested: NodeState | None = None
        self.former_runs: tuple[int, ...] = ()
        self.keys_signed_at = -1  # when our newest key set was signed in this run
        self._turned: deque[tuple[bytes, ...]] = deque(maxlen=_TURNED_MAX)  # the pins of our last key sets
        self.state = self._next_state()

    @property
    def node_id(self) -> NodeId:
        """Return our id."""
        return self._credential.node_id

    @property
    def signing_key(self) -> bytes:
        """Return the public half of the key we sign by."""
        return self._credential.signing_key

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"successor": self._judge_successor}

    def _judge_successor(self) -> None:
        """Believe what was put off, if Trust still names who signed it (rule 4)."""
        record = self._catalog.credentials.succession.take()
        if record is None:
            return
        try:
            credential = self._catalog.credentials.open_untrusted(record)
        except MalformedInput:
            self._ctx.refused("successor whose signer Trust dropped")
        else:
            tell_successor(self._ctx, self._catalog, credential)

    def go_on_by(self, credential: NodeCredential, record: SignedRecord) -> Change:
        """Go on under a credential of the same keys, signed anew or renewed; it is the catalog's as well."""
        change = self._catalog.install_credential(credential, record)
        self._ctx.keys = msgspec.structs.replace(self._ctx.keys, credential=record)
        self._credential = credential
        self.generation = credential.generation
        return change

    def persist_epoch(self, then: Continuation) -> None:
        """Put our newest epoch on disk, before anything that shows it."""
        self._ctx.persist_durably(PersistKind.EPOCH, b"", encode(self.epoch_ahead), then)

    def contest(self, state: NodeState) -> bool:
        """Note a newer state of ours that we did not sign, to be asked about where it says it is.

        False when there is nobody to ask: it is of this place, an earlier run of ours.
        """
        if state.run_id == self._ctx.run_id or any(
            address in self.state.gossip_addresses for address in state.gossip_addresses
        ):
            return False
        if self.contested is None or self.contested.order < state.order:
            self.contested = state
        self._ctx.timers.set(("contested", None), self._ctx.now)
        return True

    def renew_run(self) -> None:
        """Be known by a new run from the next state on, as if we had started again.

        Others kept no link with our run while they followed another one. Those that they make anew count from
        the beginning, under keys that we have seen greater counts of.
        """
        self.former_runs = (self._ctx.run_id, *self.former_runs)[:_FORMER_RUNS_MAX]
        self._ctx.run_id = self._ctx.fresh_number()
        for member in self._catalog:
            member.link = None

    def raise_epoch(self, above: int, goes_on: str, about: tuple[bytes | bool | None, ...]) -> None:
        """Write an epoch above `above`; once it is on disk `goes_on` goes on with (epoch, *about)."""
        self.epoch_ahead = max(self.epoch_ahead, above) + 1
        self.persist_epoch((goes_on, (self.epoch_ahead, *about)))

    def begin_epoch(self, epoch: int) -> None:
        """Begin the incarnation whose epoch is on disk now; the next record signed carries it."""
        self.epoch = epoch
        self._ctx.statistics.epochs_raised += 1

    def _next_state(self) -> NodeState:
        self._sequence += 1
        return NodeState(
            node_id=self._credential.node_id,
            generation=self.generation,
            epoch=self.epoch,
            sequence=self._sequence,
            name=self._profile.name,
            gossip_addresses=self._profile.gossip_addresses,
            mesh_addresses=self._profile.mesh_addresses,
            phase=int(self.phase),
            build=self._profile.build,
            wire_min=WIRE_MIN,
            wire_max=WIRE_MAX,
            features=tuple(sorted({*self._profile.features, *self.words})),
            policies=self.policies,
            run_id=self._ctx.run_id,
            lag_ms=self.lag_ms,
            restarting_s=self.restarting_s,
        )

    def move(self, addresses: NodeAddresses) -> Change | None:
        """Sign where we are found from now on; None when nothing is new about it."""
        profile = msgspec.structs.replace(
            self._profile, gossip_addresses=addresses.gossip, mesh_addresses=addresses.mesh
        )
        if profile == self._profile:
            return None
        self._profile = profile
        return self.publish_state()

    def publish_state(self) -> Change:
        """Sign our state anew, one sequence higher, and take it into the catalog."""
        self.state = self._next_state()
        record = self._sign(RecordKind.NODE_STATE, self.state)
        member = self._catalog.get(self._credential.node_id)
        assert member is not None
        return self._catalog.install_state(member, self.state, record)

    def publish_services(self, entries: Sequence[ServiceEntry]) -> Change:
        """Sign our services as a whole.

        Raises:
            Untrusted: a service our credential does not allow. Local fault. State unchanged.
        """
        ordered = tuple(sorted(entries, key=lambda entry: entry.registration))
        services = ServiceSet(
            self._credential.node_id, self.generation, self.epoch, self._sequence + 1, ordered
        )
        require_services_allowed_untrusted(services, self._credential)
        self._sequence += 1
        member = self._catalog.get(self._credential.node_id)
        assert member is not None
        return self._catalog.install_services(member, services, self._sign(RecordKind.SERVICE_SET, services))

    def publish_keys(self, entries: Sequence[IdentityPins]) -> Change | None:
        """Sign which TLS keys we use, as a whole; None when that is what we signed in this incarnation.

        Raises:
            Untrusted: an identity our credential does not allow, or beyond limits. Local fault. State
                unchanged.
        """
        ordered = tuple(sorted(entries, key=lambda entry: entry.path))
        keys = KeySet(self._credential.node_id, self.generation, self.epoch, self._sequence + 1, ordered)
        require_keys_allowed_untrusted(keys, self._profile.name, self._credential)
        member = self._catalog.get(self._credential.node_id)
        assert member is not None
        held = None if member.messages.keys is None else key_set_of(member.messages.keys)
        if held is not None and (held.entries, held.generation, held.epoch) == (
            ordered,
            self.generation,
            self.epoch,
        ):
            return None
        record = self._sign(RecordKind.KEY_SET, keys)
        if len(record.body) > limits.RECORD_BYTES_MAX:
            raise Untrusted(
                f"a key set of {len(record.body)} bytes, {limits.RECORD_BYTES_MAX} allowed: fewer services"
                " with shorter names fit one node"
            )
        self._sequence += 1
        self.keys_signed_at = self._ctx.now
        self._turned.append(tuple(pin for entry in ordered for pin in entry.pins))
        return self._catalog.install_keys(member, keys, record)

    def knows_keys(self, keys: KeySet) -> bool:
        """Tell whether every pin of a set stood in one of the last sets that this run signed."""
        known = {pin for pins in self._turned for pin in pins}
        return all(pin in known for entry in keys.entries for pin in entry.pins)

    def say(self, word: str) -> bool:
        """Add a word to our features, for the next state that is signed; False when it stood there."""
        if word in self.words:
            return False
        self.words = (*self.words, word)
        return True

    def unsay(self, word: str) -> None:
        """Take a word out of our features, from the next state that is signed."""
        self.words = tuple(said for said in self.words if said != word)

    def say_engine_lacks(self, features: Collection[str]) -> bool:
        """Say of our engine that it cannot do these and everything else; False when that was said."""
        others = tuple(word for word in self.words if not word.startswith(ENGINE_LACKS))
        words = (*others, *(ENGINE_LACKS + feature for feature in sorted(features)))
        is_news, self.words = words != self.words, words
        return is_news

    def sign_vote(self, vote: Vote) -> Vote:
        """Return a vote of ours with its signature."""
        message = vote_bytes(self._ctx.trust_domain, vote)
        return msgspec.structs.replace(vote, signature=self._ctx.keys.signing.sign(message))

    def _sign(self, kind: RecordKind, value: msgspec.Struct) -> SignedRecord:
        return sign_record(self._ctx.trust_domain, kind, value, self._ctx.keys.signing)


def hear_of_successor(
    ctx: Context, catalog: Catalog, credential: NodeCredential, record: SignedRecord
) -> None:
    """Tell the shell of a successor that somebody showed us; who has just come back waits a moment (rule 4).

    Args:
        credential: verified by our Trust.
        record: as it was shown.
    """
    is_told = _ending(catalog, credential) is not None
    if is_told and not catalog.credentials.succession.put_off(record):
        tell_successor(ctx, catalog, credential)


def tell_successor(ctx: Context, catalog: Catalog, credential: NodeCredential) -> None:
    """Tell the shell if a verified credential of our own name is another agent's, or a tombstone."""
    ending = _ending(catalog, credential)
    if ending is not None:
        ctx.notify(ending)


def _ending(catalog: Catalog, credential: NodeCredential) -> EnrolledAgain | Revoked | None:
    """Return how a credential of our name ends us, None: it does not."""
    own = catalog.get(catalog.own_id)
    if own is None or credential.generation < own.credential.generation:
        return None
    if credential.is_tombstone:
        return Revoked(credential.generation)
    is_later = credential.generation > own.credential.generation
    if is_later and credential.signing_key != own.credential.signing_key:
        return EnrolledAgain(credential.generation)
    return None
