"""What is explored: documents and their floors, a death and its answer, and votes against a node that lives.

Each story prepares a mesh at the moment where it matters, so that a few actions reach what is of interest.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from gossipmesh.gossip.base.settings import GossipSettings
from gossipmesh.gossip.membership.catalog import order_start
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.limits import DATAGRAM_BYTES_MAX, RECORD_BYTES_MAX
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import SignedRecord, Verdict
from gossipmesh.testing.builders import http_route
from gossipmesh.testing.explorer.mesh import Mesh, Violation, kind_of
from gossipmesh.testing.explorer.search import Action, Story
from gossipmesh.testing.explorer.state import Watch, fingerprint, require_rest
from gossipmesh.trust.documents import PolicyRefusal, PolicySet
from gossipmesh.wire.codec import convert_untrusted, decode_untrusted, unpack_untrusted

MONITORS: Final = GossipSettings()
VICTIM: Final = "n1"
_CASE_NS: Final = 1_500 * MILLISECOND_NS
_STAGGER_NS: Final = 1_500 * MILLISECOND_NS


def names_of(nodes_count: int) -> list[str]:
    """Return n1, n2, ..."""
    return [f"n{number}" for number in range(1, nodes_count + 1)]


def _link_actions(mesh: Mesh) -> list[Action]:
    """Return: deliver, or drop, what waits on each link."""
    return [action for link in sorted(mesh.held) for action in _fates(mesh, link)]


def _fates(mesh: Mesh, link: tuple[str, str]) -> list[Action]:
    what = "+".join(sorted({kind for parcel in mesh.held[link] for kind in parcel.kinds}))
    name = f"{link[0]}>{link[1]} ({what})"
    return [
        Action(f"deliver {name}", lambda mesh: mesh.deliver(link)),
        Action(f"drop {name}", lambda mesh: mesh.drop(link), True),
    ]


class _Base:
    """Budgets that are part of the state: restarts and steps of time are few."""

    tick_ns = 500 * MILLISECOND_NS

    def __init__(self, nodes_count: int, *, restarts_max: int, ticks_max: int) -> None:
        self.names = names_of(nodes_count)
        self.watch = Watch()
        self.left = {"restart": restarts_max, "tick": ticks_max}
        self.alike: Sequence[str] = ()

    def _restarts(self, names: Sequence[str]) -> list[Action]:
        def restart(name: str) -> Callable[[Mesh], None]:
            def act(mesh: Mesh) -> None:
                self.left["restart"] -= 1
                mesh.restart(name)

            return act

        return [Action(f"restart {name}", restart(name)) for name in names if self.left["restart"]]

    def _ticks(self) -> list[Action]:
        def tick(mesh: Mesh) -> None:
            self.left["tick"] -= 1
            mesh.tick(self.tick_ns)

        return [Action(f"tick {self.tick_ns // MILLISECOND_NS} ms", tick)] if self.left["tick"] else []

    def _facts(self) -> Any:
        return sorted(self.left.items())

    def fingerprint(self, mesh: Mesh) -> bytes:
        """Return the state's name."""
        return fingerprint(mesh, self._facts(), self.alike)

    def check(self, mesh: Mesh) -> None:
        """Nothing goes back."""
        self.watch.check(mesh)


class Floors(_Base):
    """Two signers' pushes of one version, and a next one, meet in every order; power fails between."""

    def __init__(self, nodes_count: int) -> None:
        super().__init__(nodes_count, restarts_max=1, ticks_max=1)
        self.tick_ns = 1_200 * MILLISECOND_NS
        self.offers: dict[str, tuple[str, PolicySet]] = {}

    def prepare(self) -> Mesh:
        """Version 1 runs everywhere; three more sets are signed and not yet offered."""
        mesh = Mesh(self.names, MONITORS)
        mesh.join()
        first, second, third = self.names[0], self.names[1], self.names[-1]
        sets = {
            "left": (first, mesh.domain.policy_set(2, [http_route("left")])),
            "right": (second, mesh.domain.policy_set(2, [http_route("right")])),
            "next": (third, mesh.domain.policy_set(3, [http_route("next")])),
        }
        base = mesh.domain.policy_set(1, [http_route("base")])
        for _, policy_set in [("", base), *sets.values()]:
            accepted = mesh.domain.documents().check_untrusted(policy_set)
            self.watch.signed_sets.add((accepted.scope, accepted.version, accepted.manifest_hash))
        self._offer(mesh, first, base)
        if not mesh.tick_until(lambda: mesh.sums_equal, 10 * SECOND_NS, 500 * MILLISECOND_NS):
            raise Violation("the first set does not spread")
        mesh.hold = frozenset(("policy",))
        self.offers = sets
        return mesh

    def _offer(self, mesh: Mesh, name: str, policy_set: PolicySet) -> None:
        try:
            mesh.step(name, lambda core, now: core.offer_policy(policy_set, now))
        except PolicyRefusal as refusal:
            if refusal.code not in ("older", "same"):
                raise Violation(f"{name} refuses a good set as {refusal.code}") from refusal

    def actions(self, mesh: Mesh) -> list[Action]:
        """Offer, deliver, drop, restart; a little time, in which announcements are made again."""

        def offer(label: str) -> Callable[[Mesh], None]:
            def act(mesh: Mesh) -> None:
                name, policy_set = self.offers.pop(label)
                self._offer(mesh, name, policy_set)

            return act

        offers = [Action(f"offer {label} at {self.offers[label][0]}", offer(label)) for label in self.offers]
        return [*offers, *_link_actions(mesh), *self._restarts(self.names), *self._ticks()]

    def _facts(self) -> Any:
        return (super()._facts(), sorted(self.offers))

    def finish(self, mesh: Mesh) -> None:
        """All end with one winner: the greatest of what was offered."""
        offered = [version_hash for scope, *version_hash in sorted(self.watch.signed_sets) if scope == "mesh"]
        require_rest(mesh)
        self.check(mesh)
        floors = {mesh.factory.documents[name].floor("mesh") for name in mesh.running}
        if len(floors) != 1 or list(next(iter(floors))) not in offered:
            raise Violation(f"{len(floors)} winners of one version")


class Refutation(_Base):
    """A node that was cut off and condemned is back: its answer and the verdicts race."""

    def __init__(self, nodes_count: int) -> None:
        super().__init__(nodes_count, restarts_max=2, ticks_max=3)
        self.alike = self.names[1:]

    def prepare(self) -> Mesh:
        """n1 is dead on all others and does not know; the links have just come back."""
        mesh = Mesh(self.names, MONITORS)
        mesh.join()
        mesh.tick(3 * SECOND_NS)
        others = self.names[1:]
        mesh.cut = {(VICTIM, name) for name in others} | {(name, VICTIM) for name in others}

        def dead() -> bool:
            held = [mesh.member(name, VICTIM) for name in others]
            return all(member is not None and member.status is MemberStatus.DEAD for member in held)

        if not mesh.tick_until(dead, 30 * SECOND_NS, 250 * MILLISECOND_NS):
            raise Violation("the others never condemn a node that is cut off")
        mesh.cut.clear()
        mesh.hold = frozenset(("verdict", "verdict_id", "state"))
        mesh.tick(self.tick_ns)
        return mesh

    def actions(self, mesh: Mesh) -> list[Action]:
        """Deliver, drop, restart anyone, let time pass."""
        return [*_link_actions(mesh), *self._restarts(self.names), *self._ticks()]

    def check(self, mesh: Mesh) -> None:
        """Nothing goes back, and no verdict counts against a later incarnation."""
        super().check(mesh)
        for at in mesh.running:
            for of in self.names:
                member = mesh.member(at, of)
                if member is None or member.verdict is None:
                    continue
                held = member.verdict
                if (held.generation, held.epoch) < order_start(member.order):
                    raise Violation(f"{at} holds {of} by a verdict against an incarnation that ended")

    def finish(self, mesh: Mesh) -> None:
        """Once everything arrives all are alive again, and all hold the same."""
        require_rest(mesh)
        self.check(mesh)


class _Ballot:
    """Which votes about n1 stand where, by what the network carried: verdicts must keep to it."""

    def __init__(self, mesh: Mesh, names: Sequence[str]) -> None:
        self._mesh = mesh
        self._names = names
        self._quorum = (len(names) - 1) // 2 + 1
        self._stands: dict[tuple[str, str], int] = {}
        self._judged: list[Verdict] = []
        self.wrong = ""
        mesh.sent = self._sent
        mesh.arrived = self._arrived

    def facts(self) -> Any:
        """Return what makes two states differ."""
        return sorted((link, self._mesh.now_ns - at) for link, at in self._stands.items())

    def _arrived(self, source: str, target: str, message: bytes) -> None:
        kind = kind_of(message)
        if kind == "vote":
            self._stands[source, target] = self._mesh.now_ns
        elif kind == "unvote":
            self._stands.pop((source, target), None)

    def _sent(self, source: str, target: str, message: bytes) -> None:
        kind = kind_of(message)
        if kind == "vote":
            self._stands[source, source] = self._mesh.now_ns
            silent_ns = self._mesh.now_ns - self._mesh.heard_ns.get((VICTIM, source), 0)
            if silent_ns < MONITORS.monitor.silence_ns:
                self.wrong = f"{source} votes {silent_ns // MILLISECOND_NS} ms after a packet of its target"
        elif kind == "unvote":
            self._stands.pop((source, source), None)
        elif kind == "verdict":
            record = convert_untrusted(
                unpack_untrusted(message, bytes_max=DATAGRAM_BYTES_MAX)[1], SignedRecord
            )
            self._judge(source, decode_untrusted(record.body, Verdict, bytes_max=RECORD_BYTES_MAX))
        elif kind == "verdict_id":
            # A maker names its verdict at once; the body goes to who asks, when votes may be over.
            member = self._mesh.member(source, VICTIM)
            if member is not None and member.verdict is not None:
                self._judge(source, member.verdict)

    def _judge(self, maker: str, verdict: Verdict) -> None:
        """Hold one to the votes that stand; who first shows it has made it, others took it as it is."""
        if verdict in self._judged:
            return
        self._judged.append(verdict)
        voters = [self._mesh.names[bytes(vote.voter)] for vote in verdict.votes]
        if len(set(voters)) < self._quorum:
            self.wrong = f"{maker} condemns by {len(voters)} votes, a quorum is {self._quorum}"
        for voter in voters:
            at_ns = self._stands.get((voter, maker))
            if at_ns is None or self._mesh.now_ns - at_ns > MONITORS.monitor.vote_life_ns:
                self.wrong = f"{maker} condemns by a vote of {voter} that does not stand"


class Votes(_Base):
    """A node is silent to some of its monitors: their votes, withdrawals and quorums in every order.

    One monitor less than a quorum is deaf to it, so that nobody may ever hold it dead; with `is_quorum_deaf`
    as many as a quorum are, one after the other, and a verdict may be made of votes that stand alone.
    """

    def __init__(self, nodes_count: int, *, is_quorum_deaf: bool = False) -> None:
        super().__init__(nodes_count, restarts_max=1, ticks_max=6)
        self.is_quorum_deaf = is_quorum_deaf
        quorum = (nodes_count - 1) // 2 + 1
        self.deaf = self.names[1 : 1 + (quorum if is_quorum_deaf else quorum - 1)]
        self.ballot: _Ballot | None = None

    def prepare(self) -> Mesh:
        """Some monitors have heard nothing of n1 for so long that they are about to vote."""
        mesh = Mesh(self.names, MONITORS)
        mesh.join()
        mesh.tick(8 * SECOND_NS)
        mesh.hold = frozenset(("vote", "unvote", "verdict", "verdict_id"))
        mesh.lost = frozenset(("relayed_ack",))  # with a helper's word no case is ever opened
        self.ballot = _Ballot(mesh, self.names)
        for number, name in enumerate(self.deaf):
            mesh.tick(min(number, 1) * _STAGGER_NS)
            mesh.cut.add((VICTIM, name))
        late_ns = _STAGGER_NS if self.is_quorum_deaf else 0
        # A case opens once a heartbeat was missed, and control rounds take as long as the silence.
        mesh.tick(MONITORS.monitor.silence_ns + _CASE_NS - late_ns)
        return mesh

    def actions(self, mesh: Mesh) -> list[Action]:
        """Deliver, drop, mend a link, restart a monitor, let time pass."""

        def mend(link: tuple[str, str]) -> Callable[[Mesh], None]:
            return lambda mesh: mesh.cut.discard(link)

        mends = [Action(f"mend {link[0]}>{link[1]}", mend(link)) for link in sorted(mesh.cut)]
        return [*_link_actions(mesh), *mends, *self._restarts(self.names[1:]), *self._ticks()]

    def _facts(self) -> Any:
        return (super()._facts(), None if self.ballot is None else self.ballot.facts())

    def check(self, mesh: Mesh) -> None:
        """No vote without silence; no verdict but by a quorum of votes that stand."""
        super().check(mesh)
        if self.ballot is not None and self.ballot.wrong:
            raise Violation(self.ballot.wrong)
        for at in mesh.running:
            member = mesh.member(at, VICTIM)
            if member is not None and not self.is_quorum_deaf and member.status is not MemberStatus.ALIVE:
                raise Violation(f"{at} holds {VICTIM} {member.status.label}: a live node that a quorum hears")

    def finish(self, mesh: Mesh) -> None:
        """All are alive in the end; who never was condemned never had to answer."""
        incarnation = mesh.core(VICTIM).incarnation
        require_rest(mesh)
        self.check(mesh)
        if not self.is_quorum_deaf and mesh.core(VICTIM).incarnation != incarnation:
            raise Violation(f"{VICTIM} had to answer a verdict")


STORIES: Final[dict[str, Callable[[int], Story]]] = {
    "floors": Floors,
    "refutation": Refutation,
    "votes": Votes,
    "quorum": lambda nodes_count: Votes(nodes_count, is_quorum_deaf=True),
}
