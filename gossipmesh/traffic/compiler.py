"""Compile what a node knows into the snapshot its engine executes.

Everything clever happens here, once: which endpoints may be used and with what weight, which rules
apply in which order, who may call. Ends at a `Snapshot`; sending it is the engine protocol's. Rules:

1. Equal inputs, in any order, give equal bytes and so an equal version, in any process.
2. A section whose inputs are what they were is not made again: same bytes, same object.
3. Only what is wanted: declared upstreams, services asked for, and the backends their rules name.
4. An endpoint is used when its owner says passing and not draining and its node is not dead or left;
   a suspect node's is tier 1, an unattended node's has half its weight (`reliance` says for how long).
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from gossipmesh.model import limits as bounds
from gossipmesh.model.engine_features import STRICT_SECTIONS, UNREGISTERED
from gossipmesh.model.identity import node_spiffe_id, service_spiffe_id
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.policy import Unregistered
from gossipmesh.model.service import EndpointHealth, NodeEndpoints, ServiceEntry
from gossipmesh.model.snapshot import (
    Caller,
    CallersSection,
    CredentialsSection,
    InboundSection,
    LimitsSection,
    ListenersSection,
    PinsSection,
    RoutesSection,
    Section,
    SnapshotEndpoint,
    TrustSection,
    UpstreamListener,
    UpstreamSection,
)
from gossipmesh.traffic.inputs import LocalService, PeerInputs, PolicyInput, SnapshotInputs
from gossipmesh.traffic.policies import (
    PolicyIndex,
    compile_access,
    compile_routes,
    index_policies,
    required_of,
    split_upstream,
)
from gossipmesh.traffic.sections import Snapshot, encode_section, root_version, section_hash

__all__ = [
    "DEFAULT_LIMITS",
    "LocalService",
    "PeerInputs",
    "PolicyInput",
    "SnapshotCompiler",
    "SnapshotInputs",
]

# Sources of the numbers: docs/TRAFFIC.md, "Defaults".
DEFAULT_LIMITS: Final = LimitsSection(
    connect_timeout_ns=1 * SECOND_NS,
    idle_timeout_http_ns=300 * SECOND_NS,
    idle_timeout_tcp_ns=3_600 * SECOND_NS,
    drain_timeout_ns=45 * SECOND_NS,
    replay_body_bytes=bounds.HTTP_REPLAY_BODY_BYTES_MAX,
    retry_budget_ratio=0.2,
    retry_budget_floor_per_s=3,
    upstream_connections=1_024,
    upstream_requests=1_024,
    ejection_consecutive=5,
    ejection_base_ns=30 * SECOND_NS,
    ejection_share=0.1,
    panic_share=0.5,
    downstream_connections=bounds.DOWNSTREAM_CONNECTIONS_MAX,
)

_GONE: Final = (MemberStatus.DEAD, MemberStatus.LEFT)
_PROTOCOLS: Final = ("http", "tcp")
_Key = tuple[object, ...]
_Listed = tuple[tuple[bytes, ...] | None, ...]


class _Made:
    """A section and what it was made from; equal inputs find it again."""

    __slots__ = ("data", "digest", "inputs", "section")

    def __init__(self, inputs: _Key, section: Section) -> None:
        self.inputs = inputs
        self.section = section
        self.data = encode_section(section)
        self.digest = section_hash(self.data)


class _Serving:
    """The endpoints of one service as an engine takes them, whatever upstream they are chosen from.

    `protocol`: what most of them speak, HTTP when even; None when nobody serves. `usable` and `draining` are
    sorted by node and registration, each beside what its owner says of it. `listed`: the pins of each member
    for the service; who lists none that count yet is left out, because an engine would refuse it.
    """

    __slots__ = ("draining", "listed", "members", "protocol", "usable")

    def __init__(
        self,
        service: str,
        members: tuple[NodeEndpoints, ...],
        listed: _Listed,
        trust_domain: str,
        old: "_Serving | None",
    ) -> None:
        self.members, self.listed = members, listed
        pins_of = dict(zip((member.node for member in members), listed, strict=False))
        found = [
            (member, entry)
            for member in members
            if member.status not in _GONE and pins_of.get(member.node) != ()
            for entry in member.entries
            if entry.service == service
        ]
        found.sort(key=_place_of)
        tcp_count = sum(entry.protocol == "tcp" for _, entry in found)
        self.protocol = None if not found else "tcp" if 2 * tcp_count > len(found) else "http"
        made = {} if old is None else {(one.node, one.registration): one for _, one in old.usable}
        self.usable: list[tuple[ServiceEntry, SnapshotEndpoint]] = []
        self.draining: list[tuple[ServiceEntry, str]] = []
        for member, entry in found:
            if entry.draining or member.draining:
                # Who fails its check does not finish what it has.
                if entry.health != EndpointHealth.FAILING:
                    self.draining.append((entry, f"{member.node}/{entry.registration}"))
            elif entry.health == EndpointHealth.PASSING:
                known = made.get((member.node, entry.registration))
                pins = pins_of.get(member.node)
                self.usable.append((entry, _snapshot_endpoint(member, entry, trust_domain, pins, known)))


class SnapshotCompiler:
    """Keeps the sections of the last snapshot, so that a change costs what it touches.

    Cost: O(wanted services) per compile, plus O(its endpoints) for each service that changed.
    """

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}
        self._policies: tuple[PolicyInput, ...] | None = None
        self._index = PolicyIndex({}, {}, {})
        self._index_number = 0
        self._serving: dict[str, _Serving] = {}
        self._trust_domain = ""
        self._last: Snapshot | None = None
        self._reads: tuple[_Key, list[str]] = ((), [])
        self.sections_made_count = 0

    def compile(self, inputs: SnapshotInputs) -> Snapshot:
        """Return the snapshot of `inputs`; the previous object itself when nothing changed."""
        if inputs.trust_domain != self._trust_domain:
            self._trust_domain = inputs.trust_domain
            self._made, self._serving = {}, {}
        self._use(inputs.policies)
        round_ = _Round(self, inputs)
        round_.make_all()
        self._made, self._serving = round_.made, round_.serving
        return self._finish()

    def reads(self, inputs: SnapshotInputs) -> list[str]:
        """Return the services whose endpoints a snapshot of these inputs is made of, whatever the catalog."""
        self._use(inputs.policies)
        declared = [service for local in inputs.local for service, _ in local.upstreams]
        wanted = dict.fromkeys([*declared, *inputs.wanted])
        key = (self._index_number, tuple(wanted))
        if self._reads[0] != key:
            named = [
                split_upstream(backend.upstream)[0]
                for service in wanted
                for protocol in _PROTOCOLS
                for route in compile_routes(service, protocol, self._index).routes
                for backend in route.backends
            ]
            self._reads = (key, sorted(dict.fromkeys([*wanted, *named])))
        return self._reads[1]

    def _use(self, policies: tuple[PolicyInput, ...]) -> None:
        if policies != self._policies:
            self._policies = policies
            self._index = index_policies(policies)
            self._index_number += 1

    def protocol_of(self, service: str) -> str | None:
        """Return what most endpoints of a service in the last snapshot speak; None when it has none."""
        found = self._serving.get(service)
        return None if found is None else found.protocol

    def truncated_services(self) -> list[str]:
        """Return services whose rules reached limits.ROUTE_RULES_PER_SERVICE_MAX; the rest is left out."""
        sections = (made.section for made in self._made.values())
        return [
            section.service
            for section in sections
            if isinstance(section, RoutesSection)
            and len(section.routes) >= bounds.ROUTE_RULES_PER_SERVICE_MAX
        ]

    def _finish(self) -> Snapshot:
        root = {name: self._made[name].digest for name in sorted(self._made)}
        if self._last is None or self._last.root != root:
            sections = {made.digest: made.data for made in self._made.values()}
            ordered = {digest: sections[digest] for digest in root.values()}
            self._last = Snapshot(root_version(root), root, ordered)
        return self._last


class _Round:
    """One compilation: what is reached from the wanted services."""

    def __init__(self, compiler: SnapshotCompiler, inputs: SnapshotInputs) -> None:
        self.made: dict[str, _Made] = {}
        self._compiler = compiler
        self._inputs = inputs
        self._local = sorted(inputs.local, key=lambda one: (one.registration, one.service))
        self._protocols = dict(inputs.protocols)
        self.serving: dict[str, _Serving] = {}

    def make_all(self) -> None:
        inputs = self._inputs
        upstreams: dict[str, str] = {}
        for service in self._wanted():
            protocol = self._protocol(service)
            routes = self._make_routes(service, protocol)
            for route in routes.routes:
                for backend in route.backends:
                    upstreams[backend.upstream] = protocol
        for upstream in sorted(upstreams):
            self._make_upstream(upstream, upstreams[upstream])
        for local in self._local:
            self._make_inbound(local)
        listeners = self._listeners()
        self._make("listeners", (listeners,), lambda: listeners)
        callers = self._callers()
        self._make("callers", (callers,), lambda: callers)
        self._make("limits", (inputs.limits,), lambda: inputs.limits)
        if inputs.peers is not None:
            self._make_peers(inputs.peers)

    def _make_peers(self, peers: PeerInputs) -> None:
        """Make what peers are judged by; shards that stayed the same bytes are not made anew."""
        for shard, entries in peers.pins.items():
            self._make(f"pins/{shard}", (entries,), partial(PinsSection, entries))
        for shard, entries in peers.credentials.items():
            self._make(f"credentials/{shard}", (entries,), partial(CredentialsSection, entries))
        trust = TrustSection(peers.intermediates, peers.hears, peers.revoked_leaves)
        self._make("trust", (trust,), lambda: trust)

    def _wanted(self) -> list[str]:
        declared = [service for local in self._local for service, _ in local.upstreams]
        return sorted(dict.fromkeys([*declared, *self._inputs.wanted]))

    def _protocol(self, service: str) -> str:
        """Return what the service's endpoints speak: what most say, HTTP when even.

        When nobody serves it, what was last known: callers of a database must not be answered in HTTP.
        """
        return self._served(service).protocol or self._protocols.get(service, "http")

    def _served(self, service: str) -> _Serving:
        """Return the endpoints of a service; those of the last round when nobody's are others."""
        found = self.serving.get(service)
        if found is None:
            members = self._inputs.serving.get(service, ())
            peers = self._inputs.peers
            listed = () if peers is None else peers.listed.get(service, ())
            found = self._compiler._serving.get(service)
            if found is None or found.members != members or found.listed != listed:
                found = _Serving(service, members, listed, self._inputs.trust_domain, found)
            self.serving[service] = found
        return found

    def _make(self, name: str, inputs: _Key, make: Callable[[], Section]) -> Section:
        old = self._compiler._made.get(name)
        if old is not None and old.inputs == inputs:
            self.made[name] = old
            return old.section
        section = make()
        self._compiler.sections_made_count += 1
        if old is not None and old.section == section:
            # The inputs moved but not what they amount to (a failing endpoint got a new label, say).
            old.inputs = inputs
            self.made[name] = old
            return old.section
        self.made[name] = _Made(inputs, section)
        return section

    def _make_routes(self, service: str, protocol: str) -> RoutesSection:
        index, features = self._compiler._index, self._inputs.features
        section = self._make(
            f"routes/{service}",
            (protocol, self._compiler._index_number, features),
            lambda: compile_routes(service, protocol, index, features),
        )
        assert isinstance(section, RoutesSection)
        return section

    def _make_upstream(self, upstream: str, protocol: str) -> None:
        service, subset_name = split_upstream(upstream)
        served = self._served(service)
        labels: dict[str, str] | None = {}
        if subset_name is not None:
            namespace = service.partition("/")[0]
            subset = self._compiler._index.subsets.get((namespace, subset_name))
            labels = None if subset is None else subset.spec.labels
        self._make(
            f"upstream/{upstream}",
            (protocol, labels, served),
            lambda: UpstreamSection(
                upstream,
                service,
                protocol,
                tuple(one for entry, one in served.usable if _belongs(entry, protocol, labels)),
                tuple(sorted(name for entry, name in served.draining if _belongs(entry, protocol, labels))),
            ),
        )

    def _make_inbound(self, local: LocalService) -> None:
        trust_domain, index = self._inputs.trust_domain, self._compiler._index
        features = self._inputs.features

        def make() -> InboundSection:
            rules, default_allow = compile_access(local.service, index, features)
            return InboundSection(
                registration=local.registration,
                service=local.service,
                protocol=local.protocol,
                server_name=server_name(local.registration, local.service, trust_domain),
                spiffe_id=service_spiffe_id(trust_domain, local.service),
                workload=local.workload,
                rules=rules,
                default_allow=default_allow,
                requires=required_of(index.access.get(local.service, []), features),
            )

        self._make(f"inbound/{local.registration}", (local, self._compiler._index_number, features), make)

    def _listeners(self) -> ListenersSection:
        found: dict[str, UpstreamListener] = {}
        for local in self._local:
            for service, address in local.upstreams:
                name = f"upstream/{service}/{address}"
                listener = UpstreamListener(
                    name=name,
                    address=address,
                    service=service,
                    protocol=self._protocol(service),
                    spiffe_id=service_spiffe_id(self._inputs.trust_domain, local.service),
                    uid=local.uid,
                )
                # Registrations of one service may share a port; the first names whose it is.
                found.setdefault(name, listener)
        return ListenersSection(tuple(found[name] for name in sorted(found)))

    def _callers(self) -> CallersSection:
        trust_domain = self._inputs.trust_domain
        owned: dict[int, dict[str, None]] = {}
        for local in self._local:
            owned.setdefault(local.uid, {})[local.service] = None
        node = node_spiffe_id(trust_domain, self._inputs.node)
        word, workloads = self._compiler._index.unregistered, self._inputs.workloads
        # Two services of one user: nobody can tell which one calls, so neither name is lent.
        shared = node if word is None or workloads is None else workloads
        callers = tuple(
            Caller(
                uid, service_spiffe_id(trust_domain, next(iter(services))) if len(services) == 1 else shared
            )
            for uid, services in sorted(owned.items())
            if len(services) == 1 or word is not None
        )
        features = self._inputs.features
        if word is None or UNREGISTERED not in features:
            return CallersSection(node, callers)
        unregistered = "" if word is Unregistered.DENY else shared
        requires = (UNREGISTERED,) if STRICT_SECTIONS in features else ()
        return CallersSection(node, callers, unregistered, requires)


def _belongs(entry: ServiceEntry, protocol: str, labels: dict[str, str] | None) -> bool:
    """Tell whether an endpoint is of an upstream's protocol and has its labels; None: nobody has."""
    if entry.protocol != protocol or labels is None:
        return False
    return not labels or labels.items() <= dict(entry.labels).items()


def _place_of(found: tuple[NodeEndpoints, ServiceEntry]) -> tuple[str, str]:
    member, entry = found
    return member.node, entry.registration


def server_name(registration: str, service: str, trust_domain: str) -> str:
    """Return the SNI that names one workload: `<registration>.<service>.<namespace>.<trust domain>`."""
    namespace, _, name = service.partition("/")
    return f"{registration}.{name}.{namespace}.{trust_domain}"


def _snapshot_endpoint(
    member: NodeEndpoints,
    entry: ServiceEntry,
    trust_domain: str,
    pins: tuple[bytes, ...] | None,
    known: SnapshotEndpoint | None,
) -> SnapshotEndpoint:
    """Return an endpoint as an engine takes it: `known`, what it was before, where nothing changed."""
    halved = member.status is MemberStatus.UNATTENDED
    tier = 1 if member.status is MemberStatus.SUSPECT else 0
    weight = max(entry.weight // 2 if halved else entry.weight, 1)
    now = (tier, weight, member.address, pins)
    if known is not None and (known.tier, known.weight, known.address, known.pins) == now:
        return known
    return SnapshotEndpoint(
        registration=entry.registration,
        node=member.node,
        address=member.address,
        server_name=server_name(entry.registration, entry.service, trust_domain),
        spiffe_id=service_spiffe_id(trust_domain, entry.service),
        tier=tier,
        weight=weight,
        pins=pins,
    )
