"""What must hold in every run, checked while it goes on.

1. No live, reachable node is held dead (or unattended, or left) by anyone, once its last disturbance is
   `grace_ns` past; a verdict on an earlier incarnation is no false death, and who left is never dead.
2. A node's own order never goes back, and each start has a greater (generation, epoch), also after
   a crash; nor does anyone's view of a member's order within a run.
   Nor does anyone hold a state of a member that differs from what its owner signed under that order.
3. A scope's floor never goes back, also after a crash, and only sets that were signed are applied.
4. Datagrams, effect lists and queues stay within their limits.
5. What a node tells of its epoch and its policy, and what it puts in force, a power cut leaves on its disk.
6. Unequal state sums among reachable nodes mean that something changed less than `converge_ns` ago.
7. Equal state sums mean equal views (`equal_views`), where the core promises that.
8. Two agents of one identity never alternate: they sign few incarnations, and nobody's view goes to and fro.
9. Nobody says that it is isolated while it is not cut off, late or just disturbed.
All but 6 and 7 are looked at after each event that can break them; in meshes of more than
`EVERY_CHANGE_HOSTS_MAX` hosts what is held of others is looked at from time to time.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from gossipmesh.gossip.base.effects import (
    Effect,
    Isolated,
    MemberChanged,
    Notify,
    PersistKind,
    PolicyApplied,
    SendDatagram,
    SendStream,
    ServicesChanged,
    TrustChanged,
)
from gossipmesh.gossip.inspection import untold
from gossipmesh.model import limits
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import Address, MemberStatus, Order
from gossipmesh.model.records import NodeState
from gossipmesh.model.service import ServiceEntry
from gossipmesh.testing.simulator.equal_views import EqualViews
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.world import Observer, SimulationFailure, World
from gossipmesh.trust.documents import decode_policy_set_untrusted
from gossipmesh.trust.envelope import decode_envelope_untrusted
from gossipmesh.wire.codec import decode_untrusted
from gossipmesh.wire.datagram import DATA, TYPE_AT

_EPOCH_BYTES_MAX = 16
_FLOOR_BYTES_MAX = 64
SAMPLE_NS = 100 * MILLISECOND_NS
OUT = (MemberStatus.DEAD, MemberStatus.UNATTENDED, MemberStatus.LEFT)
EVERY_CHANGE_HOSTS_MAX = 50
INCARNATIONS_PER_COPY_MAX = 3  # beside one for each start: signing above the other, lost packets included
MOVES_PER_COPY_MAX = 4  # there and back, and once more where a start and a heal cross
SWEEPS_PER_S = 4  # hosts looked at in a second, one after the other


class Invariants(Observer):
    """Watches one world. `watch` starts the periodic looks; the rest follows the events.

    `hostile` members may sign what they like; of `unwell` ones (their links are ill) no verdict is false.
    With `counts_deaths` false verdicts are counted in `false_deaths` instead of ending the run.
    """

    def __init__(self, *, grace_ns: int = 25 * SECOND_NS, converge_ns: int = 10 * SECOND_NS) -> None:
        self.grace_ns = grace_ns
        self.converge_ns = converge_ns
        self.last_change_ns = 0
        self.convergences_ns: list[int] = []
        self.deaths: dict[tuple[str, str], int] = {}
        self.is_converged = False
        self.expects_convergence = True
        self.hostile: list[str] = []
        self.unwell: set[str] = set()
        self.counts_deaths = False
        self.false_deaths: dict[str, int] = {}
        self._published: dict[str, list[tuple[ServiceEntry, ...]]] = {}
        self._signed_sets: set[tuple[str, int, bytes]] = set()
        self._disturbed_ns: dict[str, int] = {}
        self._own: dict[str, tuple[int, Order]] = {}
        self._own_state: dict[str, Any] = {}
        self._signed_states: dict[tuple[str, Order], Any] = {}
        self._sums: dict[str, bytes] = {}
        self._hosts: dict[str, Host] = {}
        self._verdicts: set[tuple[str, MemberStatus, Order | None]] = set()
        self._changes: dict[tuple[str, str], int] = {}
        self._given_up: set[tuple[str, MemberStatus]] = set()
        self._views: dict[tuple[str, int, str], Order] = {}
        self._told: dict[str, NodeState] = {}
        self._floors: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._names: dict[bytes, str] = {}
        self.equal_views = EqualViews()
        self.expects_equal_views = True
        self._copies: dict[str, list[Host]] = {}
        self._incarnations: dict[str, set[tuple[int, int]]] = {}
        self._moves: dict[tuple[str, int, str], list[Address]] = {}
        self._datagrams_max = limits.DATAGRAM_BYTES_MAX

    # -- what scenarios tell ----------------------------------------------------------------

    def published(self, host: Host, entries: Sequence[ServiceEntry]) -> None:
        """Note what the owner of `host` published; nothing else may be seen of it."""
        self._published.setdefault(host.name, [()]).append(tuple(entries))

    def signed(self, scope: str, version: int, manifest_hash: bytes) -> None:
        """Note a set that a signer made; no other may be applied anywhere."""
        self._signed_sets.add((scope, version, manifest_hash))

    def copied(self, host: Host, copy: Host) -> None:
        """Note that from now on another machine holds the identity of `host` as well."""
        self._copies.setdefault(host.identity, [host]).append(copy)

    def watch(self, world: World) -> None:
        """Look at everything from time to time until the end of the run."""
        self._hosts = world.hosts
        self._sample(world)
        self._sweep(world)

    # -- what the world tells ---------------------------------------------------------------

    def started(self, world: World, host: Host) -> None:
        """Nothing may be held against a run that just began."""
        self._changed(world)
        self._view_changed(host)
        self._disturbed_ns[host.name] = world.now_ns

    def disturbed(self, world: World, hosts: Sequence[str]) -> None:
        """Excuse what follows from it for a while."""
        self._changed(world)
        for name in hosts:
            self._disturbed_ns[name] = world.now_ns

    def stepped(self, world: World, host: Host, effects: Sequence[Effect]) -> None:
        """Check what a step shows of its own node: order and sizes."""
        assert host.core is not None, host.name
        state = host.core.own_state
        if self._own_state.get(host.name) is not state and _epoch_kept(host) >= state.epoch:
            self._check_own_order(world, host, state)
        if len(world.hosts) <= EVERY_CHANGE_HOSTS_MAX:
            state_sum = host.core.state_sums()[0]
            if self._sums.get(host.name) != state_sum:
                self._sums[host.name] = state_sum
                self._view_changed(host)
                for view in host.core.members():
                    self._check_view_order(host, view)
        if not effects:
            return
        if len(effects) > limits.EFFECTS_PER_STEP_MAX:
            raise SimulationFailure(f"{host.name} asked for {len(effects)} effects in one step")
        is_news = host.name not in self.hostile and self._told.get(host.name) is not state
        if is_news and any(_shows_state(effect) for effect in effects):
            self._told[host.name] = state
            self._check_kept(host, state)
        for effect in effects:
            if type(effect) is SendDatagram and len(effect.payload) > self._datagrams_max:
                raise SimulationFailure(f"{host.name} sent a datagram of {len(effect.payload)} bytes")
            if type(effect) is SendStream and len(effect.payload) > 4 * limits.FRAME_BYTES_MAX:
                raise SimulationFailure(f"{host.name} sent {len(effect.payload)} bytes on a stream at once")

    def notified(self, world: World, host: Host, effect: Notify) -> None:
        """Check deaths and policies the moment they are told."""
        event = effect.event
        if isinstance(event, MemberChanged | ServicesChanged) and len(world.hosts) <= EVERY_CHANGE_HOSTS_MAX:
            self._view_changed(host)
        if isinstance(event, Isolated) and event.is_isolated:
            self._check_isolated(world, host)
        if isinstance(event, MemberChanged) and event.status in OUT:
            self._note_verdict(world, event.name, event.status)
            if event.previous not in OUT:
                pair = (host.name, event.name)
                self._changes[pair] = self._changes.get(pair, 0) + 1
            self._check_leaver(world, event.name, event.status)
            self._check_verdict(world, host, event.name, event.status)
            if event.status is MemberStatus.DEAD:
                self.deaths.setdefault((host.name, event.name), world.now_ns)
        elif isinstance(event, MemberChanged):
            self.deaths.pop((host.name, event.name), None)
        elif isinstance(event, PolicyApplied) and host.name not in self.hostile:
            applied = (event.scope, event.version, event.manifest_hash)
            if applied not in self._signed_sets:
                raise SimulationFailure(f"{host.name} applied a set nobody signed: {event}")
            self._check_floor(host, event.scope, (event.version, event.manifest_hash))
            self._check_floor_kept(host, event.scope, (event.version, event.manifest_hash))
        elif isinstance(event, TrustChanged):
            key = event.version.to_bytes(8, "big")
            if host.disk.synced(PersistKind.TRUST, key) is None:
                raise SimulationFailure(f"{host.name} has Trust {event.version} in force, not on its disk")
        elif isinstance(event, ServicesChanged) and len(world.hosts) <= EVERY_CHANGE_HOSTS_MAX:
            self._check_services(host, event.node_id)

    def was_held(self, host: Host, status: MemberStatus) -> bool:
        """Tell whether anyone ever held this host in a status that is not alive."""
        return (host.name, status) in self._given_up

    def forgive(self, host: Host) -> None:
        """Forget what was held against a host so far."""
        self._given_up = {(name, status) for name, status in self._given_up if name != host.name}

    def changes(self, observer: Host, subject: Host) -> int:
        """Return how often one host took another out of use."""
        return self._changes.get((observer.name, subject.name), 0)

    def was_given_up(self, host: Host) -> bool:
        """Tell whether anyone ever held this host dead, unattended or left."""
        return any((host.name, status) in self._given_up for status in OUT)

    # -- looks ------------------------------------------------------------------------------

    def reachable(self, world: World) -> list[Host]:
        """Return the hosts whose agents run; empty while a partition stands."""
        if any(rule.is_cut for rule in world.network.rules):
            return []
        return [host for host in world.hosts.values() if host.core is not None and not host.is_paused]

    def sums_equal(self, world: World) -> bool:
        """Tell whether all reachable nodes hold the same records and documents."""
        hosts = self.reachable(world)
        sums = [host.core.state_sums() for host in hosts if host.core is not None]
        return bool(sums) and all(state_sum == sums[0] for state_sum in sums)

    def final(self, world: World) -> list[str]:
        """Return what is wrong at rest: differing sums, wrong statuses, foreign services, idle faults."""
        problems = []
        if self.expects_convergence and not self.sums_equal(world):
            problems.append(
                f"state sums differ at the end, {self._since_change_s(world):.1f} s after the last change"
            )
        for host in self.reachable(world):
            problems.extend(self._final_of(world, host))
        problems.extend(f"the fault {name!r} never fired" for name in world.faults.idle())
        return problems[:20]

    def bearer(self, world: World, name: str) -> Host | None:
        """Return the host that runs an identity; where none does, or several do, the one enrolled first."""
        bearers = self._copies.get(name)
        if bearers is None:
            return world.hosts.get(name)
        return next((host for host in bearers if host.core is not None), bearers[0])

    def _final_of(self, world: World, host: Host) -> list[str]:
        core: Any = host.core
        problems = []
        seen = []
        for view in core.members():
            subject = self.bearer(world, view.name)
            seen.append(view.name)
            if subject is None:
                problems.append(f"{host.name} knows {view.name}, which does not exist")
            elif subject.core is not None and not subject.is_paused:
                if (
                    view.status is not MemberStatus.ALIVE
                    and not subject.has_left
                    and view.name not in self.unwell
                ):
                    problems.append(f"{host.name} holds {view.name} {view.status.label} at rest")
            elif view.status in (MemberStatus.ALIVE, MemberStatus.SUSPECT) and not subject.is_paused:
                problems.append(f"{host.name} holds {view.name} {view.status.label}, which is gone")
        missing = [h.name for h in self.reachable(world) if h.identity not in seen and not h.has_left]
        if missing:
            problems.append(f"{host.name} does not know {', '.join(missing[:5])}")
        problems += [f"{host.name} told nobody what changed of {name}'s endpoints" for name in untold(core)]
        self._check_services(host, None)
        return problems

    def _sample(self, world: World) -> None:
        self.equal_views.look(world)
        equal = self.sums_equal(world)
        if equal and not self.is_converged:
            self.convergences_ns.append(world.now_ns - self.last_change_ns)
        overdue = world.now_ns - self.last_change_ns > self.converge_ns
        if not equal and overdue and self.expects_convergence and self.reachable(world):
            raise SimulationFailure(
                f"state sums differ {self._since_change_s(world):.1f} s after the last change"
            )
        self.is_converged = equal
        world.push(world.now_ns + SAMPLE_NS, self._sample, world)

    def _sweep(self, world: World, turn: int = 0) -> None:
        """Look at one host after the other, each in turn."""
        hosts = list(world.hosts.values())
        host = hosts[turn % len(hosts)]
        if host.core is not None and not host.is_paused:
            core: Any = host.core
            views = core.members()
            for view in views:
                if view.status in OUT:
                    self._check_verdict(world, host, view.name, view.status, view)
                self._check_view_order(host, view)
            self._check_queue(host, core, len(views))
            self._view_changed(host)
        world.push(world.now_ns + SECOND_NS // SWEEPS_PER_S, self._sweep, world, turn + 1)

    def _view_changed(self, host: Host) -> None:
        if self.expects_equal_views and host.name not in self.hostile:
            self.equal_views.changed(host)

    # -- the checks -------------------------------------------------------------------------

    def _check_verdict(
        self, world: World, host: Host, subject_name: str, status: MemberStatus, view: Any = None
    ) -> None:
        subject = self.bearer(world, subject_name)
        if subject is None or subject.core is None or self._is_excused(world, host, subject):
            return
        if view is None:
            core: Any = host.core
            view = next((v for v in core.members() if v.name == subject_name), None)
        order = subject.core.own_state.order
        if view is None or (view.state.generation, view.state.epoch) != (order.generation, order.epoch):
            return
        if self.counts_deaths:
            self.false_deaths.setdefault(subject_name, world.now_ns)
            return
        raise SimulationFailure(f"false death: {host.name} holds the live {subject_name} {status.label}")

    def _check_isolated(self, world: World, host: Host) -> None:
        is_cut = any(rule.is_cut for rule in world.network.rules) or host.name in self.unwell
        others = [other for other in world.hosts.values() if other.core is not None and not other.is_paused]
        is_young = world.now_ns - self._disturbed_ns.get(host.name, -self.grace_ns) < self.grace_ns
        if not is_cut and not is_young and host.read_late_ns is None and len(others) > 2:
            raise SimulationFailure(f"{host.name} says that it is isolated, and is not")

    def _check_leaver(self, world: World, name: str, status: MemberStatus) -> None:
        subject = world.hosts.get(name)
        is_cut = any(rule.is_cut for rule in world.network.rules)
        if subject is not None and subject.has_left and status is not MemberStatus.LEFT and not is_cut:
            raise SimulationFailure(f"{name} left in order and is held {status.label}")

    def _note_verdict(self, world: World, subject_name: str, status: MemberStatus) -> None:
        """The first verdict on an order of a member is a change: state sums count it."""
        known = self._own.get(subject_name)
        verdict = (subject_name, status, None if known is None else known[1])
        self._given_up.add((subject_name, status))
        if verdict not in self._verdicts:
            self._verdicts.add(verdict)
            self._changed(world)

    def _is_excused(self, world: World, host: Host, subject: Host) -> bool:
        """Tell whether `host` may be wrong about `subject`: it was disturbed, or is cut off."""
        if subject.is_paused or subject.has_left or subject.name in self.unwell:
            return True
        cuts = [rule for rule in world.network.rules if rule.is_cut]
        for rule in cuts:
            if rule.separates(subject.name, host.name) or rule.separates(host.name, subject.name):
                return True
        disturbed_ns = self._disturbed_ns.get(subject.name, -self.grace_ns)
        return not cuts and world.now_ns - disturbed_ns < self.grace_ns

    def _check_own_order(self, world: World, host: Host, state: NodeState) -> None:
        order = state.order
        self._signed_states[host.name, order] = self._own_state[host.name] = state
        known = self._own.get(host.name)
        if known is not None and known == (host.run, order):
            return
        self._changed(world)
        if known is not None:
            run, before = known
            if host.disk.is_stale and run != host.run:
                before = order  # a machine rolled back knows nothing better until its peers tell it
            if order < before:
                raise SimulationFailure(f"{host.name} went back from {before} to {order}")
            same_start = (order.generation, order.epoch) == (before.generation, before.epoch)
            if run != host.run and same_start and not host.disk.is_stale:
                raise SimulationFailure(f"{host.name} started again within the incarnation {order}")
        self._own[host.name] = (host.run, order)
        if host.identity in self._copies:
            self._check_incarnations(host, order)

    def _check_incarnations(self, host: Host, order: Order) -> None:
        """Bound what agents of one identity sign, by how often one of them was started."""
        bearers = self._copies[host.identity]
        known = self._incarnations.setdefault(host.identity, set())
        known.add((order.generation, order.epoch))
        starts_count = sum(bearer.run for bearer in bearers)
        if len(known) > starts_count + INCARNATIONS_PER_COPY_MAX * (len(bearers) - 1):
            raise SimulationFailure(f"{host.identity} was signed for in {len(known)} incarnations")

    def _check_moves(self, host: Host, view: Any) -> None:
        """Bound how often one node's view of a copied one goes from one machine to another."""
        moves = self._moves.setdefault((host.name, host.run, view.name), [])
        address = view.state.gossip_addresses[0]
        if not moves or moves[-1] != address:
            moves.append(address)
        if len(moves) > 1 + MOVES_PER_COPY_MAX * (len(self._copies[view.name]) - 1):
            raise SimulationFailure(f"{host.name} saw {view.name} go to and fro {len(moves)} times")

    def _check_view_order(self, host: Host, view: Any) -> None:
        order = view.state.order
        name = (host.name, host.run, view.name)
        before = self._views.get(name, order)
        if order == before and name in self._views:
            return
        if order < before:
            raise SimulationFailure(f"{host.name} went back on {view.name} to {order}")
        self._views[name] = order
        if view.name in self._copies:
            self._check_moves(host, view)
            return
        known = self._own.get(view.name)
        subject_is_stale = view.name in self.hostile or self._may_be_stale(view.name)
        if known is not None and order > known[1] and view.name != host.name and not subject_is_stale:
            raise SimulationFailure(f"{host.name} holds {view.name} at {order}, which it never signed")
        signed = self._signed_states.get((view.name, order))
        if signed is not None and signed != view.state and not subject_is_stale:
            raise SimulationFailure(f"{host.name} holds a state of {view.name} that it never signed")

    def _may_be_stale(self, name: str) -> bool:
        host = self._hosts.get(name)
        return host is not None and host.disk.is_stale

    def _check_floor(self, host: Host, scope: str, floor: tuple[int, bytes]) -> None:
        before = self._floors.get((host.name, scope), (0, b""))
        if floor < before and host.generation == 1:
            raise SimulationFailure(
                f"{host.name} went back in {scope} from version {before[0]} to {floor[0]}"
            )
        self._floors[host.name, scope] = max(before, floor)

    def _check_kept(self, host: Host, state: NodeState) -> None:
        """Check a state that a node tells of from now on against what a power cut would leave of it."""
        if _epoch_kept(host) < state.epoch:
            raise SimulationFailure(f"{host.name} tells of epoch {state.epoch}, which is not on its disk")
        for policy in state.policies:
            if policy.version:
                self._check_floor_kept(host, policy.scope, (policy.version, policy.manifest_hash))

    def _check_floor_kept(self, host: Host, scope: str, told: tuple[int, bytes]) -> None:
        kept = host.disk.synced(PersistKind.FLOOR, scope.encode())
        if kept is not None and decode_untrusted(kept, tuple[int, bytes], bytes_max=_FLOOR_BYTES_MAX) >= told:
            return
        # A disk that was damaged, or cut off between the two, holds a set above its floor.
        kept = host.disk.synced(PersistKind.POLICY_SET, scope.encode())
        if kept is not None:
            envelope = decode_envelope_untrusted(decode_policy_set_untrusted(kept).manifest)
            if hashlib.sha256(envelope.payload).digest() == told[1]:
                return
        raise SimulationFailure(f"{host.name} runs {scope} at version {told[0]}, which is not on its disk")

    def _check_services(self, host: Host, node_id: bytes | None) -> None:
        core: Any = host.core
        for one in core.endpoints() if node_id is None else filter(None, [core.endpoints_of(node_id)]):
            bearers = [bearer.name for bearer in self._copies.get(one.node, ())] or [one.node]
            published = [entries for name in bearers for entries in self._published.get(name, [()])]
            if one.entries not in published:
                raise SimulationFailure(f"{host.name} holds services that {one.node} never published")

    def _check_queue(self, host: Host, core: Any, members_count: int) -> None:
        queued = getattr(core.statistics(), "queue_length", 0)
        bound = 4 * members_count + 2 * limits.SCOPES_MAX
        if queued > bound:
            raise SimulationFailure(f"{host.name} queues {queued} updates, at most {bound} can differ")

    def _changed(self, world: World) -> None:
        self.last_change_ns = world.now_ns
        self.is_converged = False

    def _since_change_s(self, world: World) -> float:
        return (world.now_ns - self.last_change_ns) / SECOND_NS


def _shows_state(effect: Effect) -> bool:
    """Tell whether whoever gets this knows by it that its sender is in the run and epoch of its state."""
    if type(effect) is SendDatagram:
        return effect.payload[TYPE_AT] == DATA
    return type(effect) is SendStream


def _epoch_kept(host: Host) -> int:
    """Return the epoch that a power cut would leave on a host's disk."""
    epoch = host.disk.synced(PersistKind.EPOCH, b"")
    return 0 if epoch is None else decode_untrusted(epoch, int, bytes_max=_EPOCH_BYTES_MAX)
