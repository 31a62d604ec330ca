"""A mesh that knows itself from the start: every core is given what the others signed.

Joining costs a mesh of N nodes more than N^2 records on the wire and most of a simulation's time.
Studies of what happens later (detection, idle bytes, spreading) begin here instead; the scenarios
of joining do not. The records are the real ones, merged and checked by the cores themselves, and stand on
their disks; what is equal on many nodes and never changes is one object in this process.
"""

from collections.abc import Callable, Sequence

from gossipmesh.gossip import rehearsal
from gossipmesh.gossip.base.effects import Effect, Persist, PersistKind
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.records import SignedRecord
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run

_START_NS = 2 * SECOND_NS  # the longest period of what every core does


def boot_known(
    run: Run, *, services: bool = True, prepare: Callable[[Run, Host], None] | None = None
) -> None:
    """Start all hosts, have each publish a service, and let each know all the others at once.

    `prepare` has a host publish more, which all of them know as well. They start one after the other, as
    machines do: timers that march in step would hide what meets when.
    """
    run.invariants.watch(run.world)
    for host in run.hosts:
        run.world.run_for(_START_NS // len(run.hosts))
        run.world.start(host)
        if services:
            run.publish(host)
        if prepare is not None:
            prepare(run, host)
    known: list[tuple[Host, list[SignedRecord]]] = [
        (host, rehearsal.own_records(run.core(host))) for host in run.hosts
    ]
    shared: dict[bytes, bytes] = {}
    for host, _ in known:
        core = run.core(host)
        others = [record for other, records in known if other is not host for record in records]
        _keep(host, rehearsal.know(core, others), shared)
        rehearsal.share_messages(core, shared)
    run.world.run_for(SECOND_NS)
    run.require(run.invariants.sums_equal(run.world), "a primed mesh does not know itself")


def reseed(run: Run, name: str) -> None:
    """Give everything that draws a fresh story, so that forks of one mesh differ by their seeds."""
    run.script.seed(f"{name}/script")
    run.world.reseed(name)
    for host in run.hosts:
        rehearsal.reseed(run.core(host), f"{name}/{host.name}")


def _keep(host: Host, effects: Sequence[Effect], shared: dict[bytes, bytes]) -> None:
    """Write to disk what a core asked for, once a member; keep one copy of equal bytes."""
    entries: dict[bytes, bytes] = {}
    for effect in effects:
        if isinstance(effect, Persist) and effect.kind is PersistKind.MEMBER and effect.value is not None:
            entries[effect.key] = effect.value
    for key, value in entries.items():
        one = Persist(PersistKind.MEMBER, shared.setdefault(key, key), shared.setdefault(value, value), True)
        host.disk.write(one)
