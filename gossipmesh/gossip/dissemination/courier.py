"""Sends messages to members: seals them, fills packets with queued updates, pushes urgent ones on.

Rules:
1. A packet is never longer than its limit; what does not fit one packet travels by stream alone.
2. Urgent news is forwarded once, on first receipt, to a few members, within a budget that is counted.
3. Whoever has a carrier is told by it too, for random members may not reach it by datagram.
4. Whom no forwarding reached is looked for by two early ticks: a forwarding has crossed the mesh after some
   20 ms, and the few that it missed need not wait for the tick that everything else waits for.
Paper: SWIM section 4.1 (piggyback), memberlist's gossip tick. Deviation: urgent news does not wait
for a tick, because a death that waits for probes is a second of failed requests on every node.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.budgets import TokenBucket
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.carriers import Carriers
from gossipmesh.gossip.dissemination.queue import Key, UpdateQueue, sends_max
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import Member, short_id_of
from gossipmesh.gossip.sessions.handshake import Handshake
from gossipmesh.gossip.sessions.links import Link, LinkMaker
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.wire.datagram import HEADER_BYTES, TAG_BYTES

# Header, tag, the array prefix (3) and the `seen` message (22) are always there.
MESSAGES_BYTES_MAX = limits.DATAGRAM_BYTES_MAX - HEADER_BYTES - TAG_BYTES - 25
_PIGGYBACK_MAX = 32
_EARLY_GAP_NS = SECOND_NS
_GOSSIP_TO_DEAD_NS = 30 * SECOND_NS  # memberlist's GossipToTheDeadTime


@kept.part("courier")
class Courier:
    """Everything that leaves as a sealed datagram.

    `muted` while a first table is taken in: what a newcomer learns there the others know.
    """

    def __init__(
        self, ctx: Context, catalog: Catalog, own_id: bytes, handshake: Handshake, carriers: Carriers
    ) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._own_short = short_id_of(own_id)
        self._handshake = handshake
        self._carriers = carriers
        self._links = LinkMaker(ctx, own_id)
        self.queue = UpdateQueue()
        self._own_id = own_id
        self.muted = False
        self._early_again_at = 0
        self._eager = TokenBucket(ctx.settings.eager_per_s, ctx.settings.eager_burst, ctx.now)

    def link_untrusted(self, member: Member, run: int) -> Link:
        """Make sure the member's link is the one with `run`, and return it.

        Raises:
            Untrusted: its exchange key is unusable. Remote's fault. State unchanged.
        """
        if member.link is None or member.link.run != run:
            key = member.credential.exchange_key
            member.link = self._links.derive_untrusted(member.node_id, key, run)
            member.run = run
        return member.link

    def send(
        self, member: Member, messages: list[bytes], *, fill: bool = True, is_carried: bool = True
    ) -> None:
        """Send messages to a member, with as many queued updates as fit; says hello if we must.

        `is_carried`: they go by the member's carrier as well, if it has one.
        """
        address = member.address
        if address is None:
            return
        if member.run == 0:
            self._handshake.start(address)
            return
        link = member.link
        if link is None:
            try:
                link = self.link_untrusted(member, member.run)
            except MalformedInput:
                self._ctx.refused("exchange key")
                return
        room_bytes = MESSAGES_BYTES_MAX - sum(map(len, messages))
        if room_bytes < 0:
            self._ctx.dropped("message too long to send")
            return
        if fill and len(self.queue):
            messages = messages + self.queue.fill(room_bytes, _PIGGYBACK_MAX, member.node_id)
        own = self._ctx
        packet = link.packet(
            own.group_tag, self._own_short, own.run_id, messages, beat=own.beat, lag_ms=own.lag_ms
        )
        self._ctx.send(address, packet)
        if is_carried and member.carried_since >= 0:
            self._carriers.carry(member, packet)

    def enqueue(self, key: Key, message: bytes, *, refutation: bool = False) -> None:
        """Let an update ride on coming packets, and start the tick if it stands still."""
        if len(message) > MESSAGES_BYTES_MAX or (self.muted and key[1] != self._own_id):
            return
        settings = self._ctx.settings
        mult = settings.refutation_mult if refutation else settings.transmit_mult
        self.queue.put(key, message, sends_max(mult, self._catalog.serving_count))
        if not self._ctx.timers.pending(("tick", None)):
            self._ctx.timers.set(("tick", None), self._ctx.now + settings.tick_interval_ns)

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"tick": self._tick, "early tick": self._early_tick}

    def _tick(self) -> None:
        self._send_round()
        if len(self.queue):
            interval_ns = self._ctx.settings.tick_interval_ns
            self._ctx.timers.set(("tick", None), self._ctx.now + interval_ns)

    def _send_round(self) -> None:
        """Send what is queued to a few members, while there is something."""
        if not len(self.queue):
            return
        for member in self._tick_targets(self._ctx.settings.tick_fanout):
            self.send(member, [])
            if not len(self.queue):
                return

    def _tick_targets(self, count: int) -> list[Member]:
        """Return random members, one of them recently dead now and then: it may live and not know."""
        targets = self.choose(count, b"")
        dead = self._catalog.recently_dead(self._ctx.now - _GOSSIP_TO_DEAD_NS)
        # Their share is in proportion: a rack that dies at once does not take the packets of the living.
        if dead and self._ctx.rng.randrange(len(self._catalog.reachable) + len(dead)) < count * len(dead):
            targets = [*targets[: count - 1], self._ctx.rng.choice(dead)]
        return targets + self._carriers.others(targets, b"")

    def forget(self, node_id: bytes) -> None:
        """Send nothing more about a member that is no member any more."""
        self.queue.drop_subject(None, node_id)

    def push(self, messages: list[bytes], origin_id: bytes) -> None:
        """Forward urgent news at once to a few members, not back to where it came from."""
        messages = [message for message in messages if len(message) <= MESSAGES_BYTES_MAX]
        if not messages or (self.muted and origin_id):
            return
        settings = self._ctx.settings
        many = self._catalog.serving_count > settings.eager_many_members
        chosen = self.choose(settings.eager_fanout_many if many else settings.eager_fanout, origin_id)
        for member in chosen + self._carriers.others(chosen, origin_id):
            if not self._send_eagerly(member, messages):
                return
        self._tick_early()

    def push_name(self, name: bytes, body: bytes, origin_id: bytes, fanout: int) -> None:
        """Forward the name of urgent news; the body to members that say they are late, and would ask late."""
        gate_ns = self._ctx.settings.monitor.lag_gate_ns
        chosen = self.choose(fanout, origin_id)
        for member in chosen + self._carriers.others(chosen, origin_id):
            if not self._send_eagerly(member, [body if member.told_lag_ns > gate_ns else name]):
                return
        self._tick_early()

    def _tick_early(self) -> None:
        """Let what is queued ride on early ticks, too; the sendings of each update are as many as ever.

        Once a second: of many deaths at once, each would bring forward the ticks of all.
        """
        if self._ctx.now < self._early_again_at:
            return
        self._early_again_at = self._ctx.now + _EARLY_GAP_NS
        for number, wait_ns in enumerate(self._ctx.settings.early_ticks_ns):
            self._ctx.timers.set(("early tick", number), self._ctx.now + wait_ns)

    def _early_tick(self, _number: int) -> None:
        self._send_round()

    def _send_eagerly(self, member: Member, messages: list[bytes]) -> bool:
        if not self._eager.take(self._ctx.now):
            self._ctx.statistics.eager_limited += 1
            return False
        self._ctx.statistics.eager_sent += 1
        self.send(member, messages, fill=False)
        return True

    def choose(self, count: int, except_id: bytes) -> list[Member]:
        """Return up to `count` distinct random members that packets go to."""
        reachable = self._catalog.reachable
        if len(reachable) > count + 1:
            # One more than asked for, in case the excepted one is drawn: never a walk over all members.
            drawn = self._ctx.rng.sample(reachable, count + 1)
            return [member for member in drawn if member.node_id != except_id][:count]
        members = [member for member in reachable if member.node_id != except_id]
        return members if len(members) <= count else self._ctx.rng.sample(members, count)
