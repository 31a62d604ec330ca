"""The gossip core: the one facade a shell sees.

Datagrams, stream bytes and deadlines in, effects out; no socket, no clock, no randomness of its own.
It composes the parts and routes messages between them; each part says what it decides.
Rules:
1. Every input sets `now`, acts, and returns the effects of this step in order.
2. Nothing from outside raises: what cannot be used is counted in `statistics`.
Paper: SWIM (Das, Gupta, Motivala 2002), Lifeguard (Dadgar, Phillips, Currey 2017).
Deviation: named in each part; docs/GOSSIP.md lists them together.
"""

import random
from collections.abc import Sequence

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import CloseStream, Effect, KeysChanged, Revoked, StreamId
from gossipmesh.gossip.base.settings import (
    GossipSettings,
    NodeAddresses,
    NodeKeys,
    NodeProfile,
    RestoredState,
)
from gossipmesh.gossip.base.timers import fire, fire_due, joined
from gossipmesh.gossip.dissemination.carriers import Carriers
from gossipmesh.gossip.dissemination.courier import MESSAGES_BYTES_MAX, Courier
from gossipmesh.gossip.dissemination.documents import PolicySpreading
from gossipmesh.gossip.dissemination.opening import Opening
from gossipmesh.gossip.dissemination.roll_spreading import RollSpreading
from gossipmesh.gossip.failure.detector import Detector
from gossipmesh.gossip.failure.monitor_detector import MonitorDetector
from gossipmesh.gossip.intake import Intake
from gossipmesh.gossip.membership import views
from gossipmesh.gossip.membership.catalog import Catalog, Checks
from gossipmesh.gossip.membership.credential_watch import CredentialWatch
from gossipmesh.gossip.membership.facts import PingsDue
from gossipmesh.gossip.membership.key_sets import allowed_entries, key_set_of
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.gossip.membership.resigning import has_dropped_signer
from gossipmesh.gossip.membership.restoring import restore_members
from gossipmesh.gossip.membership.soundness import may_serve
from gossipmesh.gossip.reads import Reads
from gossipmesh.gossip.repair.comparisons import Repair
from gossipmesh.gossip.repair.haste import Haste
from gossipmesh.gossip.router import Rooms, Router
from gossipmesh.gossip.sessions.entrance import JOIN_FANOUT, Entrance
from gossipmesh.gossip.sessions.handshake import Handshake
from gossipmesh.gossip.sessions.rivals import Rivals
from gossipmesh.gossip.sessions.streams import Streams
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address, NodePhase
from gossipmesh.model.records import IdentityPins, RecordKind, SignedRecord
from gossipmesh.model.service import ServiceEntry
from gossipmesh.trust.documents import PolicySet, TrustedDocuments
from gossipmesh.trust.keys import Verifier
from gossipmesh.trust.records import open_credential_untrusted


class GossipNode(Reads):
    """One member of the group.

    Every method that takes `now` returns the effects of that step, in order, at most
    `limits.EFFECTS_PER_STEP_MAX`; `now` is monotonic nanoseconds and never less than before.
    """

    def __init__(
        self,
        *,
        settings: GossipSettings,
        trust_domain: str,
        keys: NodeKeys,
        profile: NodeProfile,
        documents: TrustedDocuments,
        verifier: Verifier,
        restored: RestoredState,
        rng: random.Random,
        now: Instant,
        wall_offset_s: int,
    ) -> None:
        """Compose a node; nothing is sent before `start`.

        Args:
            documents: with Trust loaded, and floors and sets restored by the shell.
            rng: seeded from entropy in an agent; run ids, nonces and choices come from it.
            wall_offset_s: civil seconds minus `now` in seconds.

        Raises:
            MalformedInput: our own credential does not verify under `documents`. Local fault.
        """
        self._ctx = ctx = Context(
            settings=settings,
            trust_domain=trust_domain,
            keys=keys,
            documents=documents,
            verifier=verifier,
            rng=rng,
            now=now,
            wall_offset_s=wall_offset_s,
        )
        # Where Trust names a roll our credential may be on it, under the key that we do not have it from yet.
        rolled = documents.trust is not None and bool(documents.trust.roll)
        signers = documents.credential_keys_ever if rolled else documents.credential_keys
        credential = open_credential_untrusted(keys.credential, trust_domain, signers, verifier)
        self._own_id = credential.node_id
        self._catalog = catalog = self._make_catalog()
        self._credentials = CredentialWatch(ctx, catalog)
        catalog.install_credential(credential, keys.credential)
        restored_epoch, self._restored_verdicts = restore_members(ctx, catalog, restored)
        epoch = max(restored.epoch, restored_epoch) + 1
        self._own = OwnRecords(ctx, catalog, credential, profile, epoch)
        self._opening = Opening(ctx, catalog, self._own, restored.unconfirmed)
        self._floors_unknown = restored.floors_unknown
        self._compose()
        self._rolls.restore(restored.roll)
        self._finish()  # what it asked for while it was made came from its disk
        ctx.hush(has_begun=False)

    def _compose(self) -> None:
        """Make the rooms, each with those below it, and the router that knows them all."""
        ctx, catalog, own, own_id = self._ctx, self._catalog, self._own, self._own_id
        self._handshake = handshake = Handshake(ctx, catalog, own_id)
        self._rivals = Rivals(ctx, catalog, own, handshake)
        self._entrance = Entrance(ctx, catalog, handshake)
        self._streams = streams = Streams(ctx, catalog, handshake)
        self._carriers = Carriers(ctx, own_id, streams)
        self._courier = courier = Courier(ctx, catalog, own_id, handshake, self._carriers)
        self._spreading = spreading = PolicySpreading(ctx, catalog.sums, courier, own, streams)
        self._rolls = rolls = RollSpreading(ctx, catalog, courier, own, streams)
        self._detector = detector = self._make_detector()
        self._haste = Haste(ctx, catalog)
        self._repair = repair = Repair(ctx, catalog, own_id, streams, spreading, self._haste)
        self._intake = intake = self._make_intake()
        rooms = Rooms(
            catalog,
            own,
            handshake,
            self._rivals,
            self._entrance,
            streams,
            self._carriers,
            courier,
            spreading,
            rolls,
            self._opening,
            detector,
            repair,
            intake,
        )
        self._router = Router(ctx, rooms)
        self._deadlines = joined(
            {"credentials": self._forget_ended, "start": self._begin},
            own.deadlines(),
            handshake.deadlines(),
            self._rivals.deadlines(),
            self._entrance.deadlines(),
            streams.deadlines(),
            courier.deadlines(),
            spreading.deadlines(),
            rolls.deadlines(),
            self._opening.deadlines(),
            detector.deadlines(),
            repair.deadlines(),
        )
        self._continuations = joined(
            {"start": self._ctx.speak},
            spreading.continuations(),
            self._opening.continuations(),
            intake.continuations(),
        )
        own.policies = spreading.policy_statuses()
        if self._floors_unknown:
            spreading.doubt_floors()

    def _make_catalog(self) -> Catalog:
        return Catalog(self._ctx, self._own_id)

    def _make_intake(self) -> Intake:
        return Intake(self._ctx, self._catalog, self._courier, self._own, self._detector, self._haste)

    def _make_detector(self) -> Detector:
        ctx, catalog, courier, own = self._ctx, self._catalog, self._courier, self._own
        detector = MonitorDetector(ctx, catalog, courier, own, self._streams, self._carriers)
        detector.restore(self._restored_verdicts)
        return detector

    # Inputs

    def start(self, seeds: Sequence[Address], now: Instant) -> list[Effect]:
        """Begin: our epoch goes to disk first, and once it is there we introduce ourselves.

        Where our kept record names another place we first ask there whether we run already.

        Args:
            seeds: where members may be found; empty: the restored members are asked.
        """
        self._ctx.now = now
        if self._rivals.may_start(tuple(seeds)):
            self._begin()
        return self._finish()

    def _begin(self) -> None:
        """Be the node from now on."""
        self._rivals.started()
        if len(self._catalog) > 1:
            self._catalog.credentials.succession.note_absence()
        self._ctx.hush(has_begun=True)
        self._own.persist_epoch(("start", None))
        self._own.publish_state()
        self._detector.start()
        for member in list(self._catalog):
            self._detector.status_changed(member)
        self._entrance.start(self._rivals.seeds, self._own.state.gossip_addresses)
        self._forget_ended()
        self._tell_revocations()
        self._rolls.start()
        self._repair.start()
        self._opening.start()

    def seeds_changed(self, seeds: Sequence[Address], now: Instant) -> list[Effect]:
        """Take where members may be found from now on; where we know no member we say hello at once."""
        self._advance(now)
        if self._rivals.is_asking:
            self._rivals.seeds = tuple(seeds)
            return self._finish()
        held = self._entrance.seeds
        self._router.take(self._entrance.change_seeds(seeds, self._own.state.gossip_addresses))
        self._entrance.greet_unknown(held)
        return self._finish()

    def addresses_changed(self, addresses: NodeAddresses, now: Instant) -> list[Effect]:
        """Tell everyone where we are found from now on; what they were told last changes nothing."""
        self._advance(now)
        change = self._own.move(addresses)
        if change is not None:
            self._intake.follow(change, None)
        return self._finish()

    def next_deadline(self) -> Instant:
        """Return when `handle_deadline` is due; early, late and repeated calls are harmless."""
        return self._ctx.timers.next_deadline()

    def handle_deadline(self, now: Instant) -> list[Effect]:
        """Do what is due."""
        self._advance(now)
        timers = self._ctx.timers
        late_ns = now - timers.next_deadline()
        if late_ns > self._ctx.settings.pause_ns:
            self._detector.paused(late_ns)
        for fact in fire_due(timers, self._deadlines, now):
            if fact is not None:
                self._router.take_all(fact)
        return self._finish()

    def receive_datagram(
        self, payload: bytes, sender: Address, now: Instant, arrived: Instant | None = None
    ) -> list[Effect]:
        """Feed one packet; what cannot be used is counted and dropped.

        Args:
            payload: one UDP payload, untrusted.
            sender: transport address. Not an identity; a hello is bound to it by its cookie.
            arrived: when the kernel had it, at most `now`; None: just now.
        """
        self._advance(now)
        at = now = self._ctx.now
        if arrived is not None:
            if arrived < now:
                at = arrived
                self._ctx.lag.note(now - arrived, now)
            self._note_lag()
        self._router.receive(payload, sender, at)
        return self._finish()

    def port_refused(self, address: Address, now: Instant) -> list[Effect]:
        """Note that a packet of ours to a gossip port was refused (ICMP): a hint that anybody can forge."""
        self._advance(now)
        if not self._rivals.is_asking:
            self._detector.port_refused(address)
        return self._finish()

    def note_lag(self, lag_ns: int, now: Instant) -> list[Effect]:
        """Note how late the shell's loop ran."""
        self._advance(now)
        self._ctx.lag.note(lag_ns, self._ctx.now)
        self._note_lag()
        return self._finish()

    def stream_accepted(self, stream: StreamId, peer: Address, now: Instant) -> list[Effect]:
        """Take a connection; `stream` is odd and new."""
        self._advance(now)
        if self._rivals.is_asking:
            self._ctx.emit(CloseStream(stream))
        else:
            self._streams.accepted(stream, peer)
        return self._finish()

    def stream_opened(self, stream: StreamId, now: Instant) -> list[Effect]:
        """Note that a connection we asked for stands."""
        self._advance(now)
        self._streams.opened(stream)
        return self._finish()

    def receive_stream(self, stream: StreamId, data: bytes, now: Instant) -> list[Effect]:
        """Feed bytes of a connection, in any chunking."""
        self._advance(now)
        self._router.stream_bytes(stream, data)
        return self._finish()

    def stream_closed(self, stream: StreamId, now: Instant) -> list[Effect]:
        """Note that a connection ended or never came about."""
        self._advance(now)
        self._router.take(self._streams.closed(stream))
        return self._finish()

    def engine_probed(self, probe: int, answered: bool, now: Instant, refused: bool = False) -> list[Effect]:
        """Take the answer to a `ProbeEngine`; `refused`: the connection was refused, not just unanswered."""
        self._advance(now)
        self._detector.engine_probed(probe, answered, refused and not answered)
        return self._finish()

    def persisted(self, ticket: int, now: Instant) -> list[Effect]:
        """Note that a durable `Persist` is on disk, and with it all before it; go on with what waited."""
        self._advance(now)
        for ended in self._ctx.writes.end(ticket):
            self._router.take_all(fire(self._continuations, ended))
        return self._finish()

    def publish_services(self, entries: Sequence[ServiceEntry], now: Instant) -> list[Effect]:
        """Replace our services as a whole.

        Raises:
            Untrusted: one of them our credential does not allow. Local fault. State unchanged.
        """
        self._advance(now)
        self._intake.follow(self._own.publish_services(entries), None)
        return self._finish()

    def turn_keys(self, entries: Sequence[IdentityPins], now: Instant) -> list[Effect]:
        """Tell everyone which TLS keys we use from now on, unless they were told so in this incarnation.

        Raises:
            Untrusted: an identity our credential does not allow, or beyond limits. Local fault. State
                unchanged.
        """
        self._advance(now)
        self._turn_keys(entries)
        return self._finish()

    def _turn_keys(self, entries: Sequence[IdentityPins]) -> None:
        change = self._own.publish_keys(entries)
        if change is None:
            return
        self._intake.follow(change, None)
        # Who has taken it answers with our sum, so that a first key need not wait for a round of probes.
        for member in self._courier.choose(limits.KEY_SET_ASKED_MAX, b""):
            ping = self._detector.fresh_ping(member)
            if len(change.message) + len(ping) <= MESSAGES_BYTES_MAX:  # longer ones go by stream
                self._courier.send(member, [change.message, ping], fill=False)

    def offer_policy(self, policy_set: PolicySet, now: Instant) -> list[Effect]:
        """Verify a set; once its floor is on disk it is in force and announced.

        Raises:
            PolicyRefusal: with its code; the refusal is published with our state at the next
                deadline. Whoever made the set is at fault. State otherwise unchanged.
        """
        self._advance(now)
        self._spreading.offer(policy_set)
        return self._finish()

    def offer_trust(self, envelope: bytes, now: Instant) -> list[Effect]:
        """Verify the next Trust; once on disk it is in force and announced. One held already changes nothing.

        Raises:
            MalformedInput: it does not follow ours, or is not signed by both. Whoever made it is at
                fault. State unchanged.
        """
        self._advance(now)
        self._spreading.offer_trust(envelope)
        return self._finish()

    def offer_roll(self, piece: bytes, now: Instant) -> list[Effect]:
        """Take a piece of the roll that Trust names; one that is held already changes nothing.

        Raises:
            MalformedInput: it is no piece of that roll; the index comes first. Whoever made it is at fault.
                State unchanged.
        """
        self._advance(now)
        self._router.take(self._rolls.offer_untrusted(piece))
        return self._finish()

    def renew_credential(self, record: SignedRecord, now: Instant) -> list[Effect]:
        """Go on under a newer credential of the same keys; the one we have changes nothing.

        Raises:
            MalformedInput: it does not verify, is not ours, or is of other keys. Local fault.
                State unchanged.
        """
        self._advance(now)
        if record == self._ctx.keys.credential:
            return self._finish()
        own = self._own_member()
        checks = Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX)
        credential = self._catalog.open_credential_untrusted(record, checks)
        held = own.credential
        if (credential.node_id, credential.signing_key, credential.exchange_key) != (
            held.node_id,
            held.signing_key,
            held.exchange_key,
        ):
            raise MalformedInput("a credential that is not of this node and its keys")
        is_newer = (credential.generation, credential.serial) > (held.generation, held.serial)
        if not is_newer and not self._catalog.credentials.supersedes(record.key_id, own.signer):
            raise MalformedInput("a credential that is not newer than ours")
        entries, keys = own.entries, own.messages.keys
        change = self._own.go_on_by(credential, record)
        self._intake.follow(change, None)
        self._courier.push([change.message], b"")
        if credential.generation > held.generation:
            self._intake.follow(self._own.publish_state(), None)
        if entries is not None and own.entries is None:
            allowed = [entry for entry in entries if may_serve(credential, entry.service)]
            self._intake.follow(self._own.publish_services(allowed), None)
        if keys is not None and own.messages.keys is None:
            self._turn_keys(allowed_entries(key_set_of(keys).entries, credential))
        self._forget_ended()
        return self._finish()

    def offer_credential(self, record: SignedRecord, now: Instant) -> list[Effect]:
        """Take another node's credential, a tombstone perhaps, from whoever administers us; tell everybody.

        One that is held already, or overtaken, changes nothing.

        Raises:
            MalformedInput: not a credential, not signed by the authority, or not valid now. Whoever made it
                is at fault. State unchanged.
        """
        self._advance(now)
        self._intake.offer_untrusted(record)
        return self._finish()

    def set_draining(self, now: Instant) -> list[Effect]:
        """Tell everyone that we want no new work."""
        return self._set_phase(NodePhase.DRAINING, now)

    def set_restarting(self, for_s: int, now: Instant) -> list[Effect]:
        """Tell everyone that our agent stops and will be back within so many seconds, 60 at most."""
        self._advance(now)
        self._own.restarting_s = min(max(0, for_s), limits.RESTARTING_S_MAX)
        self._intake.follow(self._own.publish_state(), None)
        return self._finish()

    def set_engine_lacks(self, features: tuple[str, ...], now: Instant) -> list[Effect]:
        """Tell everyone which policy features our build has and our engine lacks, from now on; () is none."""
        self._advance(now)
        if self._own.say_engine_lacks(features):
            self._intake.follow(self._own.publish_state(), None)
        return self._finish()

    def release_mass_death(self, now: Instant) -> list[Effect]:
        """Let go the endpoints of members that died together, on the operator's word."""
        self._advance(now)
        self._detector.release_mass_death()
        return self._finish()

    def open_by_hand(self, now: Instant) -> list[Effect]:
        """Answer calls from now on, on the operator's word; one that does so already stays as it is."""
        self._advance(now)
        self._opening.open_by_hand()
        return self._finish()

    def ask_members(self, now: Instant) -> list[Effect]:
        """Ping a few members, those first whose state sum was found equal to ours longest ago.

        For whoever waits until all hold something: what they answer shows in their views (`agreed_age_ns`).
        """
        self._advance(now)
        members = [member for member in self._catalog.reachable if member.run]
        oldest = sorted(members, key=lambda member: (member.agreed_at, member.node_id))
        self._router.take(PingsDue(oldest[: limits.MEMBERS_ASKED_AT_ONCE]))
        return self._finish()

    def leave(self, now: Instant) -> list[Effect]:
        """Tell everyone that we go; final until the next start."""
        effects = self._set_phase(NodePhase.LEFT, now)
        for member in self._courier.choose(limits.MEMBERS_MAX, b"")[: 4 * JOIN_FANOUT]:
            self._courier.send(member, [self._own_member().messages[RecordKind.NODE_STATE]], fill=False)
        return effects + self._finish()

    def adjust_wall_clock(self, wall_offset_s: int, now: Instant) -> None:
        """Note that civil time was set; credentials are judged anew at the next deadline."""
        self._advance(now)
        self._credentials.clock_set(wall_offset_s)

    # Inside

    def _note_lag(self) -> None:
        if self._detector.lag_noted():
            self._intake.follow(self._own.publish_state(), None)

    def _advance(self, now: Instant) -> None:
        if now > self._ctx.now:
            self._ctx.now = now

    def _own_member(self) -> Member:
        member = self._catalog.get(self._own_id)
        assert member is not None
        return member

    def _set_phase(self, phase: NodePhase, now: Instant) -> list[Effect]:
        self._advance(now)
        if self._own.phase is not phase and self._own.phase is not NodePhase.LEFT:
            self._own.phase = phase
            self._intake.follow(self._own.publish_state(), None)
        return self._finish()

    def _tell_revocations(self) -> None:
        """Tell the shell whom Trust revokes, ourselves perhaps."""
        for keys in views.revoked_by_trust(self._catalog, self._ctx):
            self._ctx.notify(KeysChanged(keys.node_id, keys.name, keys))
        if self._catalog.credentials.is_revoked(self._own_member().name, self._own.generation):
            self._ctx.notify(Revoked(self._own.generation))

    def _forget_ended(self) -> None:
        """Drop everywhere whoever is a member no more."""
        for member in self._credentials.look():
            is_revoked = self._credentials.is_revoked(member) or self._is_off_the_roll(member)
            self._catalog.forget(member)
            self._courier.forget(member.node_id)
            self._detector.forget(member)
            if is_revoked:
                self._router.cut_off(member.node_id)  # who merely ended is not refused what is under way

    def _is_off_the_roll(self, member: Member) -> bool:
        """Tell whether a member is gone because a dropped key signed it and the roll does not have it."""
        return bool(self._catalog.credentials.roll.name) and has_dropped_signer(self._catalog, member)

    def _finish(self) -> list[Effect]:
        """See to what this step as a whole asks for, and return its effects."""
        if self._catalog.ending is not None:
            self._credentials.keep_up()
        if self._catalog.revoked:
            for member in self._catalog.take_revoked():
                self._router.cut_off(member.node_id)
        if self._spreading.has_new_trust:
            self._spreading.take_trust_change()
            self._router.take(self._rolls.follow_trust(self._spreading.trust_origin))
            self._forget_ended()
            self._tell_revocations()
        if self._rolls.is_whole_news:
            self._router.take(self._rolls.settle())
            self._forget_ended()
        return self._ctx.drain()
