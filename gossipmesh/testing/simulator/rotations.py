"""The stories of the authority's keys given to new ones, in a large mesh of which a tenth is away meanwhile.

Root, intermediate or credential key: named, used, and dropped a day later. Civil time goes by in hours, the
mesh lives on for a second in each, and nodes renew at half life as they do. Whatever is online shakes hands
all the while, by sample; who was away is started at the end, from its disk as it was left.
Rules:
1. A fifth of those online sign no key sets, as nodes of 0.2: they are judged by certificates.
2. What a node does at its return is what an agent does: it asks the authority after a second, and again at
   once when Trust came, where it could not tell that the authority was one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from gossipmesh.agent.identity.key_turning import LeafKey
from gossipmesh.agent.identity.renewed import RenewedIdentity
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.identity import node_spiffe_id, service_spiffe_id, workloads_spiffe_id
from gossipmesh.model.instant import DAY_S, HOUR_S, MILLISECOND_NS, SECOND_NS, WallSeconds
from gossipmesh.testing.simulator.authority import SimulatedAuthority, leaf_key_of, record_in
from gossipmesh.testing.simulator.handshakes import Judge, Shown, authority_refusal, civil_time
from gossipmesh.testing.simulator.host import WALL_START_S, Host
from gossipmesh.testing.simulator.priming import boot_known
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.pins import pin_of
from gossipmesh.trust.svid import spki_of_key

_AWAY_SHARE: Final = 10
_WITHOUT_KEY_SETS_SHARE: Final = 5
_JUDGES: Final = 20
_PEERS_EACH: Final = 4
_PANEL: Final = 3
_LOOK_NS: Final = 100 * MILLISECOND_NS
_LOOK_WHILE_SPREADING_NS: Final = 250 * MILLISECOND_NS
_SPREAD_NS: Final = 10 * SECOND_NS
_HOURS: Final = 26  # a certificate lives for 24
_WHOLE_NS: Final = 5 * SECOND_NS
_WATCHED_NS: Final = 30 * SECOND_NS  # for how long the return is looked at, so that a miss is a figure
_BACK_WITHIN_S: Final = 1.0
_FIRST_ASKED_NS: Final = SECOND_NS
_JITTER: Final = 0.1


class _Return:
    """One that was away, from its start on; `at_ns` of what came about, None before it has."""

    def __init__(self, host: Host, started_ns: int) -> None:
        self.host = host
        self.started_ns = started_ns
        self.ask_at_ns = started_ns + _FIRST_ASKED_NS
        self.refused_under = 0  # the version of Trust under which the authority was not taken
        self.renewed: RenewedIdentity | None = None
        self.trust_ns: int | None = None
        self.shakes_ns: int | None = None
        self.whole_ns: int | None = None


class Rotated:
    """A mesh with an authority, and what each host's agent and engine hold beside the core."""

    def __init__(self, run: Run, kind: str) -> None:
        self.run = run
        self.kind = kind
        self.authority = SimulatedAuthority(
            run.domain.trust_domain, run.seed, WallSeconds(WALL_START_S - DAY_S)
        )
        self.shown: dict[str, Shown] = {}
        self.handshakes_count = self.renewals_count = 0
        self._due: dict[str, float] = {}
        self._hours = 0

    @property
    def now(self) -> WallSeconds:
        """Return the authority's time."""
        return WallSeconds(WALL_START_S + self.run.world.now_ns // SECOND_NS + self._hours * HOUR_S)

    def boot(self) -> None:
        """Enrol everybody, some hours ago each, and start a mesh that knows itself."""
        run, authority = self.run, self.authority
        run.domain.credential_key = authority.authority.credential_key
        run.domain.trust, run.domain.trust_envelope = authority.authority.trust, authority.trust_envelopes[0]
        for host in run.hosts:
            keys = run.domain.node(host.identity)
            publishes = host.index == 0 or run.script.randrange(_WITHOUT_KEY_SETS_SHARE) > 0
            shown = self.shown[host.name] = Shown(keys, self._leaf_keys(host), publishes=publishes)
            at = WallSeconds(WALL_START_S - run.script.randrange(10 * HOUR_S))
            issued = authority.enrol(keys, shown.key_pems, at)
            shown.take(issued, authority.authority.trust, at)
            run.factory.renewed[host.identity, host.generation] = record_in(issued)
            self._due[host.name] = self._next_due(shown)
        boot_known(run, prepare=self._publish_keys)

    def _leaf_keys(self, host: Host) -> dict[str, LeafKey]:
        domain, name = self.run.domain.trust_domain, host.identity
        names = [node_spiffe_id(domain, name), workloads_spiffe_id(domain, name)]
        names.append(service_spiffe_id(domain, f"shop/svc{host.index % 7}"))
        pems = {one: leaf_key_of(f"{name}{one}") for one in names}
        return {one: LeafKey(pin_of(one, spki_of_key(pem)), pem) for one, pem in pems.items()}

    def _publish_keys(self, run: Run, host: Host) -> None:
        shown = self.shown[host.name]
        if shown.publishes:
            entries = shown.entries()
            run.invariants.disturbed(run.world, [])
            run.world.call(host, lambda core, now: core.turn_keys(entries, now))

    def _next_due(self, shown: Shown) -> float:
        """Return when a node renews: at half life, a little earlier or later."""
        keys = shown.leaf_keys.values()
        half = min(key.not_before + (key.not_after - key.not_before) // 2 for key in keys)
        end = min(key.not_after for key in keys)
        return half + self.run.script.uniform(-_JITTER, _JITTER) * (end - half)

    # -- what nodes do ----------------------------------------------------------------------

    def renew(self, host: Host) -> RenewedIdentity:
        """Have a running host renew at the authority, and hand what it is answered to its core."""
        shown, now = self.shown[host.name], civil_time(self.run, host)
        issued = self.authority.renew(shown.keys, shown.key_pems, now)
        shown.take(issued, self.authority.authority.trust, now)
        self._due[host.name] = self._next_due(shown)
        self.renewals_count += 1
        run, record = self.run, record_in(issued)
        run.factory.renewed[host.identity, host.generation] = record
        run.invariants.disturbed(run.world, [])
        renewed = RenewedIdentity(run.factory.documents[host.name], lambda step: run.world.call(host, step))
        renewed.take(issued.trust, record)
        return renewed

    def live_an_hour(self) -> None:
        """Let civil time go by; whoever is due renews, and everything that is online shakes hands."""
        run = self.run
        self._hours += 1
        for host in run.hosts:
            run.world.jump_clock(host, HOUR_S)
        for host in run.running():
            if civil_time(run, host) >= self._due[host.name]:
                refusal = authority_refusal(run, host, self.authority.shown(self.now))
                run.require(not refusal, refusal)
                run.require(not self.renew(host).waits, f"{host.name} knows no key of its new credential")
        run.world.run_for(SECOND_NS)
        self.shake_hands()

    def spread(self, envelope: bytes, figure: str) -> None:
        """Give a Trust to one agent, and let it spread to all that are online, who shake hands meanwhile."""
        run, began_ns = self.run, self.run.world.now_ns
        operator = run.pick()
        run.world.call(operator, lambda core, now: core.offer_trust(envelope, now))
        version = self.authority.authority.trust.version
        while any(run.trust_version(host) != version for host in run.running()):
            run.require(run.world.now_ns - began_ns < _SPREAD_NS, f"Trust {version} is not everywhere")
            run.world.run_for(_LOOK_WHILE_SPREADING_NS)
            self.shake_hands()
        run.measure(figure, run.world.now_ns - began_ns)

    # -- handshakes -------------------------------------------------------------------------

    def shake_hands(self) -> None:
        """Have a sample of those online call each other; every one of these handshakes has to succeed."""
        hosts = self.run.sample(min(_JUDGES, len(self.run.running())))
        judges = [Judge.of(self.run, host) for host in hosts]
        for at, caller in enumerate(judges):
            for callee in [*judges[at + 1 :], *judges[:at]][:_PEERS_EACH]:
                refusal = self.handshake(caller, callee)
                self.run.require(not refusal, refusal)

    def handshake(self, caller: Judge, callee: Judge) -> str:
        """Return why one that calls another's service and node is not taken, or does not take it."""
        self.handshakes_count += 1
        there, here = self.shown[callee.host.name], self.shown[caller.host.name]
        for name in there.leaf_keys:
            refusal = caller.refusal(there, name, civil_time(self.run, callee.host), is_dialled=True)
            if refusal:
                return refusal
        for name in here.leaf_keys:
            refusal = callee.refusal(here, name, civil_time(self.run, caller.host), is_dialled=False)
            if refusal:
                return refusal
        return ""

    # -- who was away -----------------------------------------------------------------------

    def leave(self) -> list[Host]:
        """Cut the power of a tenth, of present builds all."""
        run = self.run
        others = [host for host in run.hosts[1:] if self.shown[host.name].publishes]
        away = run.script.sample(others, min(len(others), max(1, len(run.hosts) // _AWAY_SHARE)))
        for host in away:
            run.world.kill_node(host)
        return away

    def come_back(self, away: Sequence[Host]) -> None:
        """Start those who were away within a second, and measure until each of them is whole."""
        run = self.run
        panel = run.sample(_PANEL)
        returns: list[_Return] = []
        for host in away:
            run.world.run_for(int(_BACK_WITHIN_S * SECOND_NS) // len(away))
            run.world.start(host)
            run.publish(host)
            self._publish_keys(run, host)
            returns.append(_Return(host, run.world.now_ns))
        until_ns = run.world.now_ns + _WATCHED_NS
        while any(one.whole_ns is None for one in returns) and run.world.now_ns < until_ns:
            run.world.run_for(_LOOK_NS)
            judges = [Judge.of(run, host) for host in panel]
            for one in returns:
                if one.whole_ns is None:
                    self._look_at(one, judges)
        _measure(run, returns)

    def _look_at(self, one: _Return, panel: Sequence[Judge]) -> None:
        run, host, now_ns = self.run, one.host, self.run.world.now_ns
        self._ask_authority(one)
        if run.trust_version(host) != self.authority.authority.trust.version:
            return
        one.trust_ns = one.trust_ns or now_ns
        if one.shakes_ns is None:
            judge = Judge.of(run, host)
            pairs = [pair for other in panel for pair in ((judge, other), (other, judge))]
            if any(self.handshake(*pair) for pair in pairs):
                return
            one.shakes_ns = now_ns
        if run.core(host).state_sums() == run.core(panel[0].host).state_sums():
            one.whole_ns = now_ns

    def _ask_authority(self, one: _Return) -> None:
        """Have a node that came back renew as soon as it would."""
        run, version = self.run, self.run.trust_version(one.host)
        if one.renewed is not None:
            one.renewed.go_on()
        elif run.world.now_ns >= one.ask_at_ns and version != one.refused_under:
            if authority_refusal(run, one.host, self.authority.shown(self.now)):
                one.refused_under = version
            else:
                one.renewed = self.renew(one.host)


def _measure(run: Run, returns: Sequence[_Return]) -> None:
    """Keep how long after its start each had Trust, shook hands, and held what all hold."""
    figures = {
        "trust": [one.trust_ns for one in returns],
        "handshakes": [one.shakes_ns for one in returns],
        "whole": [one.whole_ns for one in returns],
    }
    for name, at_ns in figures.items():
        lacking = [one.host.name for one, at in zip(returns, at_ns, strict=True) if at is None]
        run.require(not lacking, f"{len(lacking)} that came back have no {name}: {', '.join(lacking[:5])}")
        lasts = sorted(at - one.started_ns for one, at in zip(returns, at_ns, strict=True) if at is not None)
        run.measure(f"back_{name}_p50_s", lasts[len(lasts) // 2])
        run.measure(f"back_{name}_last_s", lasts[-1])
        run.require(lasts[-1] <= _WHOLE_NS, f"{name} took {lasts[-1]} ns after the return")


@contextmanager
def _rotated(run: Run, kind: str) -> Iterator[Rotated]:
    mesh = Rotated(run, kind)
    try:
        yield mesh
    finally:
        mesh.authority.close()


def rotation_of(kind: str) -> Callable[[Run], None]:
    """Return the story of one kind of key."""

    def story(run: Run) -> None:
        with _rotated(run, kind) as mesh:
            _rotate(mesh)

    return story


def _rotate(mesh: Rotated) -> None:
    run, kind = mesh.run, mesh.kind
    mesh.boot()
    away = mesh.leave()
    run.world.run_for(SECOND_NS)
    mesh.spread(mesh.authority.name_new(kind, mesh.now), "named_s")
    mesh.authority.use_new(kind, mesh.now)
    for _ in range(_HOURS):
        mesh.live_an_hour()
    run.wait_equal_sums(run.invariants.converge_ns)
    mesh.spread(_drop(mesh, away), "dropped_s")
    run.world.run_for(SECOND_NS)
    mesh.shake_hands()
    run.measured["handshakes"], run.measured["renewals"] = mesh.handshakes_count, mesh.renewals_count
    mesh.come_back(away)
    run.wait_equal_sums(run.invariants.converge_ns)
    mesh.shake_hands()


def _drop(mesh: Rotated, away: Sequence[Host]) -> bytes:
    """Return the Trust without the old one; who is away has a credential of the old key, which is said."""
    if mesh.kind != "credential":
        return mesh.authority.drop_old(mesh.kind, mesh.now)
    try:
        mesh.authority.drop_old(mesh.kind, mesh.now)
    except OperatorError as error:
        mesh.run.require(
            str(error).startswith(f"{len(away)} nodes have credentials of the old key"), str(error)
        )
    else:
        mesh.run.require(not away, "the old credential key is dropped though nodes need it")
    return mesh.authority.drop_old(mesh.kind, mesh.now, force=True)


ROTATIONS: Final[dict[str, Callable[[Run], None]]] = {
    f"rotated-{kind}": rotation_of(kind) for kind in ("credential", "intermediate", "root")
}
