"""Takes datagrams: who sent it, is it new, does it open, and which part each message in it is for.

Rules:
1. Nothing of a packet is believed before its link opened it; strangers get a cookie and no more.
2. Every packet that opened is told to the detector, with its kernel's arrival, before it is acted on.
3. A packet is a packet's work: one ping of it is answered, and records are wanted within a budget.
4. Whoever is not held alive is shown why, at most once a second.
Paper: none; SWIM's packets are unauthenticated.
"""

from collections.abc import Callable
from typing import Any

from gossipmesh.gossip.base.budgets import KeyedBudgets
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.dissemination.documents import PolicySpreading
from gossipmesh.gossip.failure.detector import Detector
from gossipmesh.gossip.intake import Intake
from gossipmesh.gossip.membership.catalog import Catalog, Checks
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.sessions.handshake import Handshake
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.records import SignedRecord, Vote
from gossipmesh.wire.datagram import (
    DATA,
    HEADER_BYTES,
    Ack,
    CertificateId,
    Check,
    Header,
    Heartbeat,
    Hello,
    Message,
    Nack,
    Ping,
    PingReq,
    PolicyAnnouncement,
    RelayedAck,
    Seen,
    TrustAnnouncement,
    Unvote,
    Want,
    Welcome,
    decode_body_untrusted,
    decode_header_untrusted,
    decode_plain_untrusted,
)
from gossipmesh.wire.versions import WIRE_MAX, WIRE_MIN


class Reception:
    """Routes what arrives; `compared` takes the roots of each ping and ack."""

    def __init__(
        self,
        ctx: Context,
        catalog: Catalog,
        courier: Courier,
        handshake: Handshake,
        detector: Detector,
        intake: Intake,
        spreading: PolicySpreading,
        *,
        compared: Callable[[Member, bytes | None, bytes | None], None],
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._handshake = handshake
        self._detector = detector
        self._intake = intake
        self._spreading = spreading
        self._compared = compared
        self._plain: dict[type[Any], Callable[[Member, Any], None]] = {
            Heartbeat: detector.receive_heartbeat,
            PingReq: detector.receive_ping_req,
            Nack: detector.receive_nack,
            RelayedAck: detector.receive_relayed_ack,
            Check: detector.receive_check,
            Unvote: detector.receive_unvote,
            CertificateId: detector.receive_certificate_id,
            PolicyAnnouncement: spreading.receive_policy,
            TrustAnnouncement: spreading.receive_trust,
            Want: self._receive_want,
        }
        self._budgets = KeyedBudgets(
            limits.PACKETS_PER_MEMBER_PER_S, limits.PACKETS_PER_MEMBER_BURST, keys_max=1_024
        )

        self._wants = KeyedBudgets(
            limits.WANTS_PER_MEMBER_PER_S, limits.WANTS_PER_MEMBER_BURST, keys_max=1_024
        )

    def receive(self, payload: bytes, sender: Address, arrived: Instant) -> None:
        """Feed one packet; what cannot be used is counted and dropped."""
        self._ctx.statistics.datagrams_received += 1
        self._ctx.statistics.bytes_received += len(payload)
        try:
            self._receive_untrusted(payload, sender, arrived)
        except MalformedInput as error:
            self._ctx.dropped(type(error).__name__)

    def _receive_untrusted(self, payload: bytes, sender: Address, arrived: Instant) -> None:
        header = decode_header_untrusted(payload)
        if not WIRE_MIN <= header.version <= WIRE_MAX:
            self._ctx.dropped("version")
        elif header.group_tag != self._ctx.group_tag:
            self._ctx.dropped("foreign group")
        elif header.type == DATA:
            self._receive_data_untrusted(header, payload, sender, arrived)
        else:
            message = decode_plain_untrusted(header.type, payload[HEADER_BYTES:])
            if isinstance(message, Hello):
                self._handshake.receive_hello_untrusted(header, message, len(payload), sender)
            elif isinstance(message, Welcome):
                self._handshake.receive_welcome_untrusted(header, message)
            else:
                self._handshake.receive_cookie(header, message, sender)

    def _receive_data_untrusted(
        self, header: Header, payload: bytes, sender: Address, arrived: Instant
    ) -> None:
        member = self._catalog.by_short(header.sender)
        if member is None or member.run != header.run or member.node_id == self._catalog.own_id:
            self._ctx.dropped("unknown run")
            self._handshake.challenge(header, len(payload), sender)
            return
        link = self._courier.link_untrusted(member, header.run)
        if not link.fresh(header.counter):
            self._ctx.dropped("replayed")
            return
        try:
            body = link.open_untrusted(header.counter, payload[:HEADER_BYTES], payload[HEADER_BYTES:])
        except MalformedInput:
            self._ctx.dropped("does not open")
            self._handshake.challenge(header, len(payload), sender)
            return
        messages = decode_body_untrusted(body)
        first = messages[0] if messages else None
        self._detector.heard(member, arrived, first if isinstance(first, Seen) else Seen(0))
        self._tell_the_dead(member)
        # Whoever floods us is alive, and that is all we take from it.
        if not self._budgets.take_key(member.node_id, self._ctx.now):
            self._ctx.dropped("member over budget")
            return
        checks = Checks(limits.DATAGRAM_SIGNATURE_CHECKS_MAX)
        is_pinged = False
        for message in messages:
            if type(message) is Ping:
                if is_pinged:
                    self._ctx.dropped("second ping in a packet")
                    continue
                is_pinged = True
            if type(message) is not Seen:  # the detector took it above
                self._dispatch(member, message, checks, arrived)

    def _dispatch(self, member: Member, message: Message, checks: Checks, arrived: Instant) -> None:
        # Types are compared, most frequent first: `isinstance` on a struct that is another costs 0.15 us.
        if type(message) is Ping:
            self._detector.receive_ping(member, message, arrived)
            self._compared(member, message.group_root, message.documents_root)
        elif type(message) is Ack:
            self._detector.receive_ack(member, message, arrived)
            self._compared(member, message.group_root, message.documents_root)
        elif type(message) is SignedRecord:
            self._intake.take(message, member, checks)
        elif type(message) is Vote:
            self._detector.receive_vote(member, message, arrived, checks)
        else:
            self._plain[type(message)](member, message)

    def _receive_want(self, member: Member, want: Want) -> None:
        if not self._wants.take_key(member.node_id, self._ctx.now):
            self._ctx.dropped("want over budget")
            return
        subject = self._catalog.get(want.subject)
        message = None if subject is None else subject.messages.get(want.kind)
        if message is not None:
            self._courier.send(member, [message], fill=False)

    def _tell_the_dead(self, member: Member) -> None:
        verdict = member.verdict_message
        if verdict is None or member.status is MemberStatus.LEFT:
            return
        if member.told_at >= 0 and self._ctx.now - member.told_at < SECOND_NS:
            return
        member.told_at = self._ctx.now
        self._courier.send(member, [verdict], fill=False)
