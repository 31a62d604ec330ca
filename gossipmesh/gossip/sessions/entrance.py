"""How a node that starts finds its group: hello to seeds and to those it knew, until somebody answers.

Ends at the answer: a first table is `repair`'s. Rules:
1. Our first table is taken from whoever answered us, not from newcomers who come to us meanwhile.
2. Whom we ask may be gone for good: after some rounds one of those who came to us will do.
3. A seed where no member is known is asked again now and then: two halves that are apart for longer than
   credentials live forget each other, and only a seed on the other side brings them together again.
Paper: none; memberlist's Join asks its list once. Deviation: that.
"""

from collections.abc import Sequence
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.member import short_id_of
from gossipmesh.gossip.sessions.facts import LetIn
from gossipmesh.gossip.sessions.handshake import Handshake
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address, MemberStatus

JOIN_FANOUT: Final = 4
_JOIN_WAIT_NS: Final = SECOND_NS
_JOIN_ROUNDS_MAX: Final = 5  # whom we ask may be gone for good, while others have come to us
_SEEDS_AGAIN_NS: Final = 300 * SECOND_NS  # 12 padded hellos each: below 50 B/s for a seed that is gone


@kept.part("entrance")
class Entrance:
    """Whom we ask to let us in, and whether somebody did."""

    def __init__(self, ctx: Context, catalog: Catalog, handshake: Handshake) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._handshake = handshake
        self.seeds: tuple[Address, ...] = ()
        self._rounds_count = 0
        self.is_in = False

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"join": self.ask, "seeds": self.ask_seeds}

    def start(self, seeds: Sequence[Address], own_addresses: tuple[Address, ...]) -> None:
        """Ask for the first time; each node looks after its seeds at a moment of its own."""
        self.seeds = tuple(address for address in seeds if address not in own_addresses)
        self.ask()
        self._look_after_seeds()

    def _look_after_seeds(self) -> None:
        # Each node at a moment of its own: a mesh that starts at once does not knock at once.
        self._set_seeds_timer(short_id_of(self._catalog.own_id) % _SEEDS_AGAIN_NS)

    def change_seeds(self, seeds: Sequence[Address], own_addresses: tuple[Address, ...]) -> LetIn | None:
        """Take where members may be found from now on, and ask there if we are still outside."""
        held, self.seeds = self.seeds, tuple(address for address in seeds if address not in own_addresses)
        if not held:
            self._look_after_seeds()
        return self.ask()

    def greet_unknown(self, held: tuple[Address, ...]) -> None:
        """Say hello to the seeds that are not among those held before, where no member is known."""
        for seed in self._without_member():
            if seed not in held:
                self._handshake.start(seed)

    def ask(self) -> LetIn | None:
        """Say hello to every seed and a few restored members, again until somebody answers (rule 2)."""
        if self.is_in:
            return None
        met = [member for member in self._catalog.reachable if member.link is not None]
        if met and self._rounds_count >= _JOIN_ROUNDS_MAX:
            return LetIn(self._ctx.rng.choice(met))
        known = [
            m for m in self._catalog if m.messages.state is not None and m.node_id != self._catalog.own_id
        ]
        known = [m for m in known if m.status is not MemberStatus.LEFT]
        if len(known) > JOIN_FANOUT:
            known = self._ctx.rng.sample(known, JOIN_FANOUT)
        addresses = [*self.seeds, *(m.address for m in known if m.address is not None)]
        for address in dict.fromkeys(addresses):
            self._handshake.start(address)
        if addresses:
            self._rounds_count += 1
            self._ctx.timers.set(("join", None), self._ctx.now + _JOIN_WAIT_NS)
        return None

    @property
    def asked_nobody(self) -> bool:
        """Tell whether there was nobody to ask: then anybody who comes to us lets us in."""
        return self._rounds_count == 0

    def answered(self) -> None:
        """Note that somebody let us in."""
        self.is_in = True
        self._ctx.timers.cancel(("join", None))

    def _set_seeds_timer(self, wait_ns: int) -> None:
        if self.seeds:
            self._ctx.timers.set(("seeds", None), self._ctx.now + wait_ns)

    def ask_seeds(self) -> None:
        """Say hello to a seed where we know no member (rule 3)."""
        self._set_seeds_timer(_SEEDS_AGAIN_NS)
        unknown = self._without_member()
        if self.is_in and unknown:
            self._handshake.start(self._ctx.rng.choice(unknown))

    def _without_member(self) -> list[Address]:
        """Return the seeds where no member is known to be."""
        hosts = [seed.host.encode() for seed in self.seeds]
        near = [member.state for member in self._catalog if any(map(member.may_be_at, hosts))]
        held = [address for state in near if state is not None for address in state.gossip_addresses]
        return [seed for seed in self.seeds if seed not in held]
