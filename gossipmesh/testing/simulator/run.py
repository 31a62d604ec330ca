"""One run of a scenario: a world of real gossip cores, and the words scenarios are written in."""

import random
from collections.abc import Sequence
from typing import Any, Final

from gossipmesh.gossip.base.settings import GossipSettings
from gossipmesh.gossip.node import GossipNode
from gossipmesh.model.identity import NodeId, node_id_of, node_spiffe_id
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.policy import Document
from gossipmesh.model.service import EndpointHealth, ServiceEntry
from gossipmesh.testing.builders import VALID_FROM_S, TrustDomainBuilder, service_entry
from gossipmesh.testing.simulator.faults import Loss
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.invariants import Invariants
from gossipmesh.testing.simulator.network import LinkSettings
from gossipmesh.testing.simulator.node import NodeFactory
from gossipmesh.testing.simulator.trace import Trace
from gossipmesh.testing.simulator.world import SimulationFailure, World
from gossipmesh.testing.swim.node import SwimNode
from gossipmesh.trust.documents import PolicyRefusal, PolicySet
from gossipmesh.trust.keys import Verifier

LOOK_NS = 100 * MILLISECOND_NS
SETTLE_NS = 12 * SECOND_NS
GRACE_NS = {"swim": 25 * SECOND_NS, "monitors": 12 * SECOND_NS}
CORES: Final[dict[str, type[GossipNode]]] = {"monitors": GossipNode, "swim": SwimNode}
"""The product, and what it is compared with, by the name of the failure detector."""


class Run:
    """A seed's world with `nodes_count` hosts named n1, n2, ..., and what was measured in it."""

    def __init__(
        self,
        seed: int,
        *,
        nodes_count: int,
        loss_ratio: float,
        verifier: Verifier,
        trace: Trace | None = None,
        detector: str | None = None,
    ) -> None:
        """Make the hosts; `detector` is a name in `CORES`, None for the product's."""
        self.seed = seed
        self.script = random.Random(f"{seed}/script")
        self.domain = TrustDomainBuilder(signers={"policy": ("mesh",), "other": ("elsewhere",)})
        self.verifier = verifier
        self.invariants = Invariants()
        self.detector = detector or "monitors"
        self.factory = NodeFactory(self.domain, verifier, GossipSettings())
        self.factory.node_class = CORES[self.detector]
        self.invariants.grace_ns = GRACE_NS[self.detector]
        self.invariants.expects_equal_views = self.votes  # a claim waits for its subject's answer, unheld
        settings = LinkSettings(duplicate_ratio=0.01, reorder_ratio=0.02)
        self.world = World(seed, self.factory, settings=settings, trace=trace, observer=self.invariants)
        self.is_lossy = loss_ratio > 0
        if loss_ratio:
            self.world.network.add_rule(Loss("loss", loss_ratio))
        self.hosts = [self.world.add_host(f"n{number}") for number in range(1, nodes_count + 1)]
        for host in self.hosts:
            host.wall_skew_s = self.script.randint(-30, 30)
        self.measured: dict[str, float] = {}
        self._published_count = 0
        self._serial = 1
        self._pushed: PolicySet | None = None

    @property
    def votes(self) -> bool:
        """Tell whether the monitors judge; otherwise SWIM with Lifeguard does."""
        return self.detector == "monitors"

    # -- choosing ---------------------------------------------------------------------------

    def draw_ns(self, from_s: float, to_s: float) -> int:
        """Return a random duration."""
        return self.script.randrange(int(from_s * SECOND_NS), int(to_s * SECOND_NS) + 1)

    def running(self) -> list[Host]:
        """Return the hosts whose agents run and are not paused."""
        return [host for host in self.hosts if host.core is not None and not host.is_paused]

    def sample(self, count: int, *, but_not: Sequence[Host] = ()) -> list[Host]:
        """Return `count` different running hosts."""
        return self.script.sample([host for host in self.running() if host not in but_not], count)

    def pick(self, *, but_not: Sequence[Host] = ()) -> Host:
        """Return one running host."""
        return self.sample(1, but_not=but_not)[0]

    def halves(self) -> tuple[list[str], list[str]]:
        """Return the names of all hosts in two random halves."""
        names = [host.name for host in self.hosts]
        self.script.shuffle(names)
        middle = len(names) // 2
        return names[:middle], names[middle:]

    def seeds(self) -> list[Address]:
        """Return the addresses new nodes are told."""
        return [self.hosts[0].address]

    def core(self, host: Host) -> Any:
        """Return the core of a running host."""
        assert host.core is not None, host.name
        return host.core

    # -- doing ------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start the first host at once and the others within two seconds, all knowing the first."""
        self.invariants.watch(self.world)
        self.world.start(self.hosts[0])
        for host in self.hosts[1:]:
            self.world.push(self.draw_ns(0, 2), self.world.start, host, self.seeds())

    def boot_and_settle(self) -> None:
        """Start everything, publish a service everywhere and come to rest."""
        self.boot()
        self.world.run_for(2 * SECOND_NS + 1)
        for host in self.hosts:
            self.publish(host)
        self.settle()

    def publish(
        self,
        host: Host,
        *,
        health: EndpointHealth = EndpointHealth.PASSING,
        entries: Sequence[ServiceEntry] | None = None,
    ) -> None:
        """Have a running host publish services no one published before; a stopped one is let be."""
        if host.core is None or host.is_paused:
            return
        self._published_count += 1
        label = (("change", str(self._published_count)),)
        chosen = entries or [service_entry(f"shop/svc{host.index % 7}", health=health, labels=label)]
        self.invariants.published(host, chosen)
        self.invariants.disturbed(self.world, [])
        self.world.call(host, lambda core, now: core.publish_services(chosen, now))

    def copy(self, host: Host) -> Host:
        """Return a new machine with a copy of a host's state folder as it is now; nothing runs there yet."""
        copy = self.world.copy_host(host)
        copy.wall_skew_s = self.script.randint(-30, 30)
        self.hosts.append(copy)
        self.invariants.copied(host, copy)
        return copy

    def renew(self, host: Host, ends: int, *, not_before: int = VALID_FROM_S) -> None:
        """Give a host the next credential over its keys; one that is down starts with it."""
        self._serial += 1
        keys = self.domain.node(
            host.name, generation=host.generation, serial=self._serial, not_before=not_before, ends=ends
        )
        self.factory.renewed[host.name, host.generation] = keys.credential
        if host.core is not None:
            self.world.call(host, lambda core, now: core.renew_credential(keys.credential, now))
        self.invariants.disturbed(self.world, [])

    def leave(self, host: Host) -> None:
        """Have a node leave, and end its process a little later."""
        host.has_left = True
        self.world.call(host, lambda core, now: core.leave(now))
        self.world.run_for(SECOND_NS)
        self.world.stop(host)

    def push_policy(self, host: Host, version: int, documents: Sequence[Document]) -> bytes:
        """Sign a set, offer it at one host and return its manifest's hash."""
        accepted = self.domain.documents(self.verifier).check_untrusted(
            self.domain.policy_set(version, documents)
        )
        self.invariants.signed(accepted.scope, accepted.version, accepted.manifest_hash)
        self.offer(host, accepted.raw)
        self._pushed = accepted.raw
        return accepted.manifest_hash

    def push_again(self, host: Host) -> None:
        """Offer the newest set once more, at a host that may have it already."""
        assert self._pushed is not None
        try:
            self.offer(host, self._pushed)
        except PolicyRefusal as refusal:
            self.require(refusal.code == "same", f"{host.name} refuses the newest set: {refusal}")

    def offer(self, host: Host, policy_set: PolicySet) -> None:
        """Give a set to one host, as its admin API does."""
        self.world.call(host, lambda core, now: core.offer_policy(policy_set, now))

    # -- waiting and requiring --------------------------------------------------------------

    def measure(self, name: str, duration_ns: int) -> None:
        """Keep a figure in seconds."""
        self.measured[name] = round(duration_ns / SECOND_NS, 3)

    def require(self, holds: bool, otherwise: str) -> None:
        """Fail the run with a sentence unless something holds."""
        if not holds:
            raise SimulationFailure(otherwise)

    def settle(self) -> None:
        """Let the mesh rest: equal state sums within the bound, and still equal at the end."""
        self.world.run_for(SETTLE_NS)
        self.wait_equal_sums(self.invariants.converge_ns)

    def wait_equal_sums(self, timeout_ns: int) -> None:
        """Let time pass until all reachable nodes hold the same."""
        rested = self.world.run_until_true(
            lambda: self.invariants.sums_equal(self.world), timeout_ns, LOOK_NS
        )
        self.require(rested, "the mesh does not come to rest")

    def node_id(self, host: Host) -> NodeId:
        """Return a host's node id, running or not."""
        return node_id_of(node_spiffe_id(self.domain.trust_domain, host.identity))

    def held_as(self, observer: Host, node_id: NodeId) -> MemberStatus | None:
        """Return the status a running host holds a member in; None when it does not know it."""
        view = self.core(observer).member(node_id)
        return None if view is None else view.status

    def holders(self, subject: Host, status: MemberStatus) -> list[str]:
        """Return the other running hosts that hold `subject` in `status`."""
        node_id = self.node_id(subject)
        others = [host for host in self.running() if host is not subject]
        return [host.name for host in others if self.held_as(host, node_id) is status]

    def wait_status(self, subject: Host, status: MemberStatus, timeout_ns: int) -> None:
        """Let time pass until every other running host holds `subject` in `status`."""
        others_count = len([host for host in self.running() if host is not subject])
        done = self.world.run_until_true(
            lambda: len(self.holders(subject, status)) == others_count, timeout_ns, LOOK_NS
        )
        holders_count = len(self.holders(subject, status))
        self.require(
            done,
            f"{subject.name} is {status.label} on {holders_count} of {others_count} after {timeout_ns} ns",
        )

    def require_status(self, subject: Host, status: MemberStatus) -> None:
        """Every other running host holds `subject` in `status` now."""
        self.wait_status(subject, status, 0)

    def wait_parted(self, left: Sequence[str], right: Sequence[str], timeout_ns: int) -> None:
        """Let time pass until all on each side hold all on the other dead (local health makes that slow)."""

        def parted() -> bool:
            for host in self.running():
                others = right if host.name in left else left
                held = [v.name for v in self.core(host).members() if v.status is MemberStatus.DEAD]
                if any(name not in held for name in others):
                    return False
            return True

        done = self.world.run_until_true(parted, timeout_ns, SECOND_NS)
        self.require(done, f"two sides do not hold each other dead after {timeout_ns // SECOND_NS} s")

    def require_nobody_dead(self, otherwise: str) -> None:
        """No running host holds a running host dead now."""
        names = [host.name for host in self.running()]
        for host in self.running():
            dead = [v.name for v in self.core(host).members() if v.status is MemberStatus.DEAD]
            self.require(not any(name in names for name in dead), f"{host.name}: {otherwise}")

    def wait_all_alive(self, timeout_ns: int) -> None:
        """Let time pass until everyone running is alive on everyone running."""
        node_ids = [self.node_id(host) for host in self.running()]

        def whole() -> bool:
            running = self.running()
            # Counting costs a hundredth of looking at each, so it comes first.
            if any(self.core(host).tally().by_status[MemberStatus.ALIVE] < len(node_ids) for host in running):
                return False
            return all(
                self.held_as(host, node_id) is MemberStatus.ALIVE for host in running for node_id in node_ids
            )

        done = self.world.run_until_true(whole, timeout_ns, LOOK_NS)
        self.require(done, f"not everyone is alive on everyone after {timeout_ns // SECOND_NS} s")

    def policy_hash(self, host: Host, scope: str) -> bytes:
        """Return the hash of the set a host runs; empty when it runs none."""
        accepted = self.factory.documents[host.name].in_force(scope)
        return b"" if accepted is None else accepted.manifest_hash

    def trust_version(self, host: Host) -> int:
        """Return the version of Trust a host holds."""
        trust = self.factory.documents[host.name].trust
        return 0 if trust is None else trust.version

    def require_policy(self, scope: str, version: int) -> None:
        """Every running host runs that version, and says so in its own record."""
        for host in self.running():
            held = [p.version for p in self.core(host).own_state.policies if p.scope == scope]
            self.require(held == [version], f"{host.name} runs {held} of {scope}, not version {version}")
            for view in self.core(host).members():
                subject = self.world.hosts[view.name]
                if subject.core is None:
                    continue
                told = [p.version for p in view.state.policies if p.scope == scope]
                self.require(told == [version], f"{host.name} believes {view.name} runs {told}")
