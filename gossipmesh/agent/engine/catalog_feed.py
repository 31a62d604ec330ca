"""From what gossip and policy say to what the engine runs.

Rules:
1. Changes are coalesced: 100 ms of quiet, 1 s at most; a death, a policy and a demand do not wait.
2. After a start nothing is delivered that removes an endpoint, or the rules of a policy this agent does
   not know any more, until the view is repaired or 30 s have passed: this agent may know less than the
   engine it found, or than the snapshot it left. An engine that runs another snapshot than the one left
   gets nothing at all until then, and not while this node is closed.
3. While this node is closed (`gate`) the engine gets no inbound section, but for those it served already when
   this agent found it. In a mesh that denies what nothing allows, no policy at all allows nobody.
4. A node that has put a policy in force once and cannot read it any more (an older build, a damaged disk)
   keeps the rules it left, and lets nobody call a service that had none to keep.
5. What time alone changes (an agent gone for too long) is compiled when it is due. What changed of services
   that nobody here asked for is not compiled at all, and of the others only those are read again.
6. A name becomes state when somebody vouches for it: a registration there is or was, or a policy. What
   applications ask for besides waits, a few names long, for that to happen.
7. What was delivered is on disk soon after, so that a node starts from it with nobody to ask.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import trio

from gossipmesh.agent.engine.endpoint_index import Catalog, EndpointIndex
from gossipmesh.agent.engine.peer_facts import PeerFacts
from gossipmesh.agent.engine.pin_index import Pins
from gossipmesh.agent.logs import fields
from gossipmesh.model import limits
from gossipmesh.model.documents import Access
from gossipmesh.model.engine_features import SECTION_FEATURES, STRICT_SECTIONS, UNREGISTERED
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.identity import NodeId, is_service_name, node_spiffe_id
from gossipmesh.model.instant import NEVER, SECOND_NS, Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.model.service import EndpointsDelta, NodeEndpoints
from gossipmesh.model.snapshot import (
    CallersSection,
    InboundSection,
    ListenersSection,
    RoutesSection,
    UpstreamSection,
)
from gossipmesh.net.clock import monotonic
from gossipmesh.net.files import read_file
from gossipmesh.net.secret_files import write_file
from gossipmesh.traffic.compiler import (
    DEFAULT_LIMITS,
    LocalService,
    PolicyInput,
    SnapshotCompiler,
    SnapshotInputs,
)
from gossipmesh.traffic.policies import services_named, unenforced
from gossipmesh.traffic.reliance import changes_at, reliance
from gossipmesh.traffic.sections import (
    Snapshot,
    decode_snapshot_untrusted,
    encode_section,
    encode_snapshot,
    make_snapshot,
)
from gossipmesh.trust.documents import TrustedDocuments

log = logging.getLogger("gossipmesh.agent.catalog")

QUIET_S: Final = 0.1
WAIT_S_MAX: Final = 1.0
HOLD_S_MAX: Final = 30.0
_MEMBERS_ON_LOOP_MAX: Final = 500  # a few milliseconds
_SNAPSHOT_MODE: Final = 0o600
_PEERS_AFTER_RESTART: Final = 2
_PEERS_AFTER_JOIN: Final = 1

_Place = tuple[str, str, str, Address]


class _Row(NamedTuple):
    """Who serves a service, as far as each is relied upon; from `due_at` on, `due_name` is less so.

    `listed`: the pins of each for the service.
    """

    members: tuple[NodeEndpoints, ...]
    due_at: Instant
    due_name: str
    listed: tuple[Pins, ...] = ()


class CatalogFeed:
    """Compiles when something changed, and delivers what may be delivered."""

    def __init__(
        self,
        *,
        trust_domain: str,
        node: str,
        catalog: Catalog,
        documents: TrustedDocuments,
        local: Callable[[], tuple[LocalService, ...]],
        snapshot_path: Path,
        deliver: Callable[[Snapshot], None],
        peers: PeerFacts,
        closed: Callable[[], str] = lambda: "",
        workloads: Callable[[], str | None] = lambda: None,
        clock: Callable[[], Instant] = monotonic,
    ) -> None:
        """Make a feed that compiles nothing yet.

        Args:
            deliver: gets each snapshot the engine should run.
            closed: says why this node answers no call, nothing when it does.
            workloads: tells the identity of processes of no service, None while the engine has none to show.
            clock: that of the catalog's views.
        """
        self._trust_domain = trust_domain
        self._node = node
        self._index = EndpointIndex(catalog)
        self._peers = peers
        self._rows: dict[str, _Row] = {}
        self._touched: dict[str, None] = {}
        self._reread: list[str] = []
        self._documents = documents
        self._local = local
        self._snapshot_path = snapshot_path
        self._deliver = deliver
        self._closed = closed
        self._workloads = workloads
        self._compiled_workloads: str | None = None
        self._clock = clock
        self._compiler = SnapshotCompiler()
        self._demanded: OrderedDict[str, None] = OrderedDict()
        self._unvouched: OrderedDict[str, None] = OrderedDict()
        self._named: frozenset[str] = frozenset()
        self._policies: tuple[tuple[tuple[str, int, bytes], ...], tuple[PolicyInput, ...]] = ((), ())
        self._dirty = trio.Event()
        self._delivered = trio.Event()
        self._urgent = self._isolated = False
        self._holding = False
        self._joins = self._knows_engine = False
        self.keeps_serving = False  # an engine ran before this agent, and was not closed
        self._kept: set[_Place] | None = None
        self._kept_rules = False
        self._left: dict[str, InboundSection] = {}
        self._left_unregistered: str | None = None
        self._saved: Snapshot | None = None
        self.snapshot: Snapshot | None = None
        self.unenforced: list[tuple[str, list[str]]] = []
        """Documents in force that the engines attached cannot enforce, with what they lack."""
        self.peers_needed = _PEERS_AFTER_RESTART

    @property
    def _features(self) -> frozenset[str]:
        return self._peers.features() & SECTION_FEATURES

    @property
    def holding(self) -> bool:
        """Tell whether rule 2 is in force."""
        return self._holding

    @property
    def without_key_sets(self) -> Collection[NodeId]:
        """Return the members whose build publishes no key sets."""
        return self._peers.without_key_sets

    def restore(self, running_version: str | None, *, joins: bool = False) -> None:
        """Take up what was left: the snapshot on disk, and the hold against the engine that runs.

        Args:
            running_version: of the snapshot an engine serves already; None when none does.
            joins: there is a mesh, and this node is not open yet.
        """
        self._saved = self._read_saved()
        self.keeps_serving = self._serves_already(running_version)
        left = running_version is not None or self._saved is not None
        self._holding = left or joins
        self._joins = joins and running_version is None
        self.peers_needed = _PEERS_AFTER_RESTART if left else _PEERS_AFTER_JOIN
        if self._saved is None:
            return
        self._left = _inbounds(self._saved)
        self._left_unregistered = _unregistered(self._saved)
        if running_version in (None, self._saved.version):
            self._knows_engine = True
            self._kept = _places(self._saved)
            closes = any(one.rules or not one.default_allow for one in self._left.values())
            self._kept_rules = closes or self._left_unregistered is not None
        for name in self._saved.root:
            section = self._saved.section(name) if name.startswith("routes/") else None
            if isinstance(section, RoutesSection):
                self._index.remember(section.service, section.protocol)
                self._want(section.service)
        if running_version is None:
            self._deliver_now(self._withheld(self._saved))

    def _serves_already(self, running_version: str | None) -> bool:
        """Tell whether an engine runs that answers calls; one that runs what nobody knows is taken to."""
        if self._saved is None or running_version != self._saved.version:
            return running_version is not None
        listeners = self._saved.section("listeners")
        return not (isinstance(listeners, ListenersSection) and listeners.closed)

    def _read_saved(self) -> Snapshot | None:
        """Return the snapshot on disk; None when there is none that this build can execute."""
        try:
            saved = decode_snapshot_untrusted(read_file(self._snapshot_path, limits.SNAPSHOT_BYTES_MAX))
            for name in saved.root:
                saved.section(name)
            self._require_own(saved)
        except FileNotFoundError:
            return None
        except (OSError, OperatorError, MalformedInput) as error:
            log.error("the saved snapshot cannot be used: %s", error, extra=fields(file=self._snapshot_path))
            return None
        return saved

    def _require_own(self, saved: Snapshot) -> None:
        """Check that a snapshot was made for this node.

        Raises:
            MalformedInput: it is another node's, or nobody's. State unchanged.
        """
        callers = saved.section("callers")
        if not isinstance(callers, CallersSection):
            raise MalformedInput("it does not say for whom it is")
        if callers.node_spiffe_id != node_spiffe_id(self._trust_domain, self._node):
            raise MalformedInput(f"it is made for {callers.node_spiffe_id[:300]}")

    def changed(self, *, urgent: bool = False) -> None:
        """Say that something a snapshot is made of changed."""
        self._urgent = self._urgent or urgent
        self._dirty.set()

    def endpoints_changed(self, delta: EndpointsDelta | None, *, urgent: bool = False) -> None:
        """Take in what changed of a member's endpoints; None is nothing."""
        if delta is None:
            return
        self._index.take(delta)
        asked = [one for one in delta.services if one in self._rows or one in self._unvouched]
        if asked:
            self._touched |= dict.fromkeys(asked)
            self.changed(urgent=urgent)

    def keys_changed(self, node_id: NodeId, keys: MemberKeys | None) -> None:
        """Take in what a member's keys are judged by now; who is revoked is cut off without delay."""
        if not self._peers.take(node_id, keys):
            return
        asked = [service for service in self._rows if self._index.serves(node_id, service)]
        self._touched |= dict.fromkeys(asked)
        self.changed(urgent=keys is None or keys.is_revoked)

    def look_around(self) -> None:
        """Compile if another engine is attached or shows other keys, or this node hears others or no more."""
        if self._peers.differ() or self._workloads() != self._compiled_workloads:
            self.changed(urgent=True)

    def isolated(self, is_isolated: bool) -> None:
        """Say whether this node reaches no other: their endpoints are the last resort meanwhile."""
        self._isolated = is_isolated
        self._touched |= dict.fromkeys(self._rows)
        self.changed(urgent=True)

    def demand(self, service: str) -> bool:
        """Have `service` compiled from now on; the least lately used one goes when there are too many.

        Returns:
            False when nobody vouches for it, so that it need not be waited for. It is compiled as soon as
            somebody does, unless too many others were asked for since.
        """
        if not is_service_name(service):
            return False
        if service in self._demanded or self._is_vouched(service):
            self._want(service)
            return True
        known = service in self._unvouched
        self._unvouched[service] = None
        self._unvouched.move_to_end(service)
        if len(self._unvouched) > limits.UNVOUCHED_SERVICES_MAX:
            self._unvouched.popitem(last=False)
        if self._index.begun and not self._holding:
            return False
        if not known:
            self.changed(urgent=True)
        return True  # what this agent does not know yet it cannot deny

    def _is_vouched(self, service: str) -> bool:
        self._policy_inputs()
        return self._index.knows(service) or service in self._named

    def _want(self, service: str) -> None:
        known = service in self._demanded
        self._demanded[service] = None
        self._demanded.move_to_end(service)
        if len(self._demanded) > limits.DEMANDED_SERVICES_MAX:
            self._demanded.popitem(last=False)
        if not known:
            self.changed(urgent=True)

    def touch(self, service: str) -> None:
        """Note that a service asked for earlier is in use."""
        if service in self._demanded:
            self._demanded.move_to_end(service)

    def release(self, why: str) -> None:
        """End the hold after a start: what is known now is what is true."""
        if self._holding:
            self._holding, self._kept = False, None
            log.info("removals are delivered from now on: %s", why)
            self.changed(urgent=True)

    def opened(self) -> None:
        """Note that this node is open: if it joined, it has no more to wait for, whoever let it in."""
        if self._joins:
            self.release("this node is open")
        self.changed(urgent=True)

    async def run(self) -> None:
        """Compile after changes, deliver, save; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_hold)
            nursery.start_soon(self._keep_saved)
            while True:
                await self._wait_for_quiet()
                await self.compile()

    @property
    def has_changes(self) -> bool:
        """Tell whether something a snapshot is made of changed since the last one was begun."""
        return self._dirty.is_set()

    async def compile(self) -> None:
        """Compile now, and deliver unless the hold forbids it."""
        self._dirty, self._urgent = trio.Event(), False
        inputs = await self.inputs()
        if sum(len(self._rows[service].members) for service in self._reread) > _MEMBERS_ON_LOOP_MAX:
            # A thread shares the interpreter with the loop by turns; compiling here would be one long turn.
            snapshot = await trio.to_thread.run_sync(self._compiler.compile, inputs)
        else:
            snapshot = self._compiler.compile(inputs)
        for service in self._reread:
            protocol = self._compiler.protocol_of(service)
            if protocol is not None:  # for when nobody says anything
                self._index.remember(service, protocol)
        if lacking_scopes(self._documents):
            snapshot = _with_rules(snapshot, self._left, self._left_unregistered, self._features)
        elif is_shut(self._documents):
            snapshot = _with_rules(snapshot, {}, None, self._features)
        snapshot = self._withheld(snapshot)
        if self.snapshot is not None and snapshot.version == self.snapshot.version:
            return
        if self._may_deliver(snapshot):
            self._deliver_now(snapshot)

    def _may_deliver(self, snapshot: Snapshot) -> bool:
        """Tell whether neither the hold nor a closed gate is against it."""
        if self._closed() and self.keeps_serving and not self._knows_engine:
            return False  # what that engine serves is known to nobody: it goes on with it
        return not self._holding or self._joins or self._keeps_all(snapshot)

    def _withheld(self, snapshot: Snapshot) -> Snapshot:
        """Return `snapshot` as a closed node runs it: with what its engine served already, no more."""
        why = self._closed()
        if not why:
            return snapshot
        served = self._left if self.keeps_serving else {}
        encoded = {
            name: snapshot.sections[digest]
            for name, digest in snapshot.root.items()
            if not name.startswith("inbound/")
        }
        encoded |= {name: encode_section(section) for name, section in served.items()}
        listeners = snapshot.section("listeners")
        tells = STRICT_SECTIONS in self._features and not self.keeps_serving
        if isinstance(listeners, ListenersSection) and tells:
            encoded["listeners"] = encode_section(msgspec.structs.replace(listeners, closed=why))
        return make_snapshot(encoded)

    async def inputs(self) -> SnapshotInputs:
        """Gather what a snapshot is made of; other tasks run meanwhile when there is much."""
        for walk in (self._index.begin(), self._peers.begin()):
            for _ in walk:
                await trio.lowlevel.checkpoint()
        for service in [name for name in self._unvouched if self._is_vouched(name)]:
            del self._unvouched[service]
            self._want(service)
        self._compiled_workloads = self._workloads()
        inputs = SnapshotInputs(
            trust_domain=self._trust_domain,
            node=self._node,
            local=self._local(),
            serving={},
            policies=self._policy_inputs(),
            wanted=tuple(self._demanded),
            limits=DEFAULT_LIMITS,
            workloads=self._compiled_workloads,
            features=self._features,
        )
        self.unenforced = unenforced(inputs.policies, inputs.features)
        services = self._compiler.reads(inputs)
        await self._read(services)
        serving = {service: self._rows[service].members for service in services}
        known = ((service, self._index.protocol_of(service)) for service in services)
        protocols = tuple((service, protocol) for service, protocol in known if protocol is not None)
        peers = self._peers.inputs({service: self._rows[service].listed for service in services})
        return msgspec.structs.replace(inputs, serving=serving, protocols=protocols, peers=peers)

    async def _read(self, services: list[str]) -> None:
        """Bring the rows of these services up to date, and keep no others."""
        self._reread = []
        for service in services:
            row = self._rows.get(service)
            if row is None or service in self._touched or row.due_at <= self._clock():
                for _ in self._index.read(service):
                    await trio.lowlevel.checkpoint()
                self._touched.pop(service, None)
                self._rows[service] = self._row(service)
                self._reread.append(service)
                await trio.lowlevel.checkpoint()
        wanted = dict.fromkeys(services)
        self._rows = {service: row for service, row in self._rows.items() if service in wanted}
        self._index.read_only(wanted)
        self._peers.read_only(wanted)

    def _row(self, service: str) -> _Row:
        """Read who serves a service."""
        members = self._index.serving(service)
        if self._isolated:
            members = tuple(one if one.node == self._node else _unreached(one) for one in members)
        listed = self._peers.listed(service, members)
        if not any(map(_is_doubted, members)):
            return _Row(members, NEVER, "", listed)
        now, due_at, due_name = self._clock(), NEVER, ""
        for member in members:
            at = changes_at(member.status, member.since)
            if now < at < due_at:
                due_at, due_name = at, member.node
        return _Row(tuple(_relied_upon(member, now) for member in members), due_at, due_name, listed)

    def _keeps_all(self, snapshot: Snapshot) -> bool:
        """Tell whether `snapshot` undoes nothing of what was left."""
        if self._kept is None or not self._kept <= _places(snapshot):
            return False
        return bool(self._documents.scopes()) or not self._kept_rules

    def _deliver_now(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._deliver(snapshot)
        self._delivered.set()

    def _policy_inputs(self) -> tuple[PolicyInput, ...]:
        """Return the documents in force; the same object while no scope changed."""
        in_force = [
            accepted for scope in self._documents.scopes() if (accepted := self._documents.in_force(scope))
        ]
        versions = tuple((accepted.scope, accepted.version, accepted.manifest_hash) for accepted in in_force)
        if versions != self._policies[0]:
            inputs = tuple(
                PolicyInput(document, entry.since)
                for accepted in in_force
                for document, entry in zip(accepted.documents, accepted.manifest.entries, strict=True)
            )
            self._policies = (versions, inputs)
            self._named = services_named(inputs)
        return self._policies[1]

    async def _wait_for_quiet(self) -> None:
        due = min(self._rows.values(), key=lambda row: row.due_at, default=_Row((), NEVER, ""))
        with trio.move_on_after(max(0, due.due_at - self._clock()) / SECOND_NS) as waiting:
            await self._dirty.wait()
        if waiting.cancelled_caught:
            text = (
                "an agent has been gone for ten minutes; its endpoints are used only when no others are left"
            )
            log.warning(text, extra=fields(node=due.due_name))
        latest = trio.current_time() + WAIT_S_MAX
        while not self._urgent and trio.current_time() < latest:
            self._dirty = trio.Event()
            with trio.move_on_at(min(trio.current_time() + QUIET_S, latest)) as waiting:
                await self._dirty.wait()
            if waiting.cancelled_caught:
                break

    async def _keep_saved(self) -> None:
        """Save in a thread: an fsync may take as long as the disk likes."""
        while True:
            await self._delivered.wait()
            self._delivered = trio.Event()
            snapshot = self.snapshot
            if snapshot is None or snapshot is self._saved:
                continue
            try:
                await trio.to_thread.run_sync(_write, self._snapshot_path, snapshot)
            except OperatorError as error:
                log.error("the snapshot was not saved: %s", error)
            else:
                self._saved = snapshot

    async def _end_hold(self) -> None:
        await trio.sleep(HOLD_S_MAX)
        self.release(f"{HOLD_S_MAX:g} s have passed since the start")


def _write(path: Path, snapshot: Snapshot) -> None:
    write_file(path, encode_snapshot(snapshot), mode=_SNAPSHOT_MODE)


def _unreached(member: NodeEndpoints) -> NodeEndpoints:
    return msgspec.structs.replace(member, unreachable=member.status is MemberStatus.ALIVE)


def _is_doubted(member: NodeEndpoints) -> bool:
    """Tell whether a member may be relied upon for less than what it says."""
    return member.unreachable or member.status is not MemberStatus.ALIVE


def _relied_upon(member: NodeEndpoints, now: Instant) -> NodeEndpoints:
    """Return a member's endpoints under the status they are compiled as."""
    held, unreachable = member.retained, member.unreachable
    status = reliance(member.status, member.since, now, unreachable=unreachable, held=held)
    return member if status is member.status else msgspec.structs.replace(member, status=status)


def lacking_scopes(documents: TrustedDocuments) -> list[str]:
    """Return the scopes this node has put a set of in force, and has none of now."""
    floors = documents.kept_floors()
    return [scope for scope, version, _ in floors if version and documents.in_force(scope) is None]


def is_shut(documents: TrustedDocuments) -> bool:
    """Tell whether Trust denies what nothing allows, and no policy is in force that could allow anything."""
    trust = documents.trust
    return trust is not None and trust.access is Access.DENY and not documents.scopes()


def _with_rules(
    snapshot: Snapshot,
    left: Mapping[str, InboundSection],
    unregistered: str | None,
    features: frozenset[str],
) -> Snapshot:
    """Return `snapshot` with what was `left` for each workload, and for processes of no service.

    A workload whose rules are beyond the engine, which names `features`, is closed.
    """
    encoded = {name: snapshot.sections[digest] for name, digest in snapshot.root.items()}
    for name, section in _inbounds(snapshot).items():
        kept = left.get(name)
        changes: dict[str, Any] = {"rules": (), "default_allow": False, "requires": ()}
        if kept is not None and features.issuperset(kept.requires):
            changes = {one: getattr(kept, one) for one in changes}
        encoded[name] = encode_section(msgspec.structs.replace(section, **changes))
    callers = snapshot.section("callers")
    if isinstance(callers, CallersSection) and unregistered is not None and UNREGISTERED in features:
        requires = (UNREGISTERED,) if STRICT_SECTIONS in features else ()
        encoded["callers"] = encode_section(
            msgspec.structs.replace(callers, unregistered=unregistered, requires=requires)
        )
    return make_snapshot(encoded)


def _unregistered(snapshot: Snapshot) -> str | None:
    """Return whom a snapshot has processes of no service speak as, None where it does not say."""
    callers = snapshot.section("callers") if "callers" in snapshot.root else None
    return callers.unregistered if isinstance(callers, CallersSection) else None


def _inbounds(snapshot: Snapshot) -> dict[str, InboundSection]:
    """Return who may call which workload of this node, by section."""
    return {
        name: section
        for name in snapshot.root
        if name.startswith("inbound/") and isinstance(section := snapshot.section(name), InboundSection)
    }


def _places(snapshot: Snapshot) -> set[_Place]:
    """Return every endpoint of every upstream: what rule 2 does not let go."""
    return {
        (name, endpoint.node, endpoint.registration, endpoint.address)
        for name in snapshot.root
        if name.startswith("upstream/") and isinstance(section := snapshot.section(name), UpstreamSection)
        for endpoint in section.endpoints
    }
