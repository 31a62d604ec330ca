"""Whether a verdict is older than life: then its target is asked first, and it waits for the answer.

True votes of a past moment can be kept and shown again. Rules:
1. Whoever was heard since the votes, or whose beats must have gone on far beyond those voted on, is
   shown the verdict; it takes effect if the target then stays silent.
2. Who was deaf or degraded sends all the while, so that it is heard proves nothing: it is asked when the
   votes are of another time, again and again, and only a new incarnation in `deaf_ns` is an answer. One that
   stays out (`quarantine`) gives none, and is held dead here as well.
3. How old votes are, their second latest beat says: one voter alone makes nothing look young.
Paper: none; docs/GOSSIP.md, "Failure detection", 7.
"""

from typing import NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.prober import Prober
from gossipmesh.gossip.failure.verdicts import is_of_the_deaf
from gossipmesh.gossip.membership.catalog import Change, order_start
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.records import RecordKind, SignedRecord, Verdict


@kept.value("held verdict")
class _Held(NamedTuple):
    """A verdict that waits, and when its target was last heard before it."""

    member: Member
    record: SignedRecord
    is_deaf: bool
    heard_at: int


@kept.part("life first")
class LifeFirst:
    """Whom we asked, and when; `release` returns the verdict again once the target had its time."""

    def __init__(self, ctx: Context, courier: Courier, prober: Prober) -> None:
        self._ctx = ctx
        self._courier = courier
        self._prober = prober
        self._asked_at: dict[bytes, int] = {}
        self._asked_anew_at: dict[bytes, tuple[tuple[int, int], int]] = {}
        self._held: dict[bytes, _Held] = {}

    def beats(self, member: Member, verdict: Verdict) -> bool:
        """Tell whether a verdict waits: it is older than life, and its target has not had its time."""
        settings = self._ctx.settings.monitor
        if member.beat_run != member.run or member.run == 0:
            return False
        unheard_ns = self._ctx.now - member.heard_at
        unheard_beats = unheard_ns // settings.heartbeat_slot_ns
        silence_beats = settings.silence_ns // settings.heartbeat_slot_ns
        heard_by_two = sorted(verdict.beats)[-2:][0]
        if is_of_the_deaf(verdict):
            beats_old = member.beat - heard_by_two + unheard_beats
            beats_old_max = 2 * silence_beats + settings.monitors_max
            return beats_old > beats_old_max and not self._had_its_time(member, verdict)
        beats_later = member.beat - heard_by_two - silence_beats
        beats_now = beats_later + unheard_beats
        if beats_later <= 0 and beats_now <= settings.beats_apart_max:
            return False
        asked_at = self._asked_at.get(member.node_id, -1)
        return asked_at <= member.heard_at or self._ctx.now - asked_at < settings.silence_ns

    def _asked_ns(self, member: Member, incarnation: tuple[int, int]) -> int | None:
        """Return how long ago we asked a deaf member's incarnation; None when that was not lately."""
        settings = self._ctx.settings.monitor
        asked, asked_at = self._asked_anew_at.get(member.node_id, ((0, 0), 0))
        ago_ns = self._ctx.now - asked_at
        is_lately = asked == incarnation and ago_ns < settings.deaf_ns + 2 * settings.silence_ns
        return ago_ns if is_lately else None

    def _had_its_time(self, member: Member, verdict: Verdict) -> bool:
        asked_ns = self._asked_ns(member, order_start(verdict.order))
        return asked_ns is not None and asked_ns >= self._ctx.settings.monitor.deaf_ns

    def ask(self, change: Change, sender: Member | None) -> None:
        """Show the target what is held against it, and whoever sent it the target's state."""
        member, record, verdict = change.member, change.record, change.verdict
        if record is None or verdict is None:
            return
        if self._asked_at.get(member.node_id, -1) <= member.heard_at:
            self._asked_at[member.node_id] = self._ctx.now
        is_deaf, incarnation = is_of_the_deaf(verdict), order_start(verdict.order)
        if is_deaf and self._asked_ns(member, incarnation) is None:
            self._asked_anew_at[member.node_id] = (incarnation, self._ctx.now)
        self._courier.send(member, [self._prober.fresh_ping(member), change.message])
        if sender is not None and RecordKind.NODE_STATE in member.messages:
            self._courier.send(sender, [member.messages[RecordKind.NODE_STATE]], fill=False)
        self._held[member.node_id] = _Held(member, record, is_deaf, member.heard_at)
        until = self._ctx.now + self._ctx.settings.monitor.silence_ns
        self._ctx.timers.set(("held", member.node_id), until)

    def release(self, node_id: bytes) -> SignedRecord | None:
        """Return a verdict whose target had its time (timer `held`); None where that was heard."""
        held = self._held.pop(node_id)
        return held.record if held.is_deaf or held.member.heard_at <= held.heard_at else None

    def settle(self, member: Member) -> None:
        """Let nothing wait for a member against whom a verdict took effect."""
        self._held.pop(member.node_id, None)
        self._ctx.timers.cancel(("held", member.node_id))

    def forget(self, member: Member) -> None:
        """Drop what waits for a member that is no more."""
        self._asked_at.pop(member.node_id, None)
        self._asked_anew_at.pop(member.node_id, None)
        self.settle(member)
