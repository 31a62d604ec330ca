"""A mesh that knows itself from the start: every core is given what the others signed.

Joining costs a mesh of N nodes more than N^2 records on the wire and most of a simulation's time.
Studies of what happens later (detection, idle bytes, spreading) begin here instead; the scenarios
of joining do not. The records are the real ones, merged and checked by the cores themselves, and stand on
their disks; what is equal on many nodes and never changes is one object in this process.
"""

from typing import Any

from gossipmesh.gossip.catalog import Checks
from gossipmesh.gossip.effects import Persist, PersistKind
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.records import RecordKind
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run

_START_NS = 2 * SECOND_NS  # the longest period of what every core does
_KINDS = (RecordKind.CREDENTIAL, RecordKind.NODE_STATE, RecordKind.SERVICE_SET)


def boot_known(run: Run, *, services: bool = True) -> None:
    """Start all hosts, have each publish a service, and let each know all the others at once.

    They start one after the other, as machines do: timers that march in step would hide what meets when.
    """
    run.invariants.watch(run.world)
    for host in run.hosts:
        run.world.run_for(_START_NS // len(run.hosts))
        run.world.start(host)
        if services:
            run.publish(host)
    known: list[tuple[Host, list[Any]]] = []
    for host in run.hosts:
        core = run.core(host)
        own = core._catalog.get(core.own_node_id)
        known.append((host, [own.records[kind] for kind in _KINDS if kind in own.records]))
    shared: dict[bytes, bytes] = {}
    for host, _ in known:
        core = run.core(host)
        _tell(core, [record for other, records in known if other is not host for record in records])
        _keep(host, core, shared)
    run.world.run_for(SECOND_NS)
    run.require(run.invariants.roots_equal(run.world), "a primed mesh does not know itself")


def reseed(run: Run, name: str) -> None:
    """Give everything that draws a fresh story, so that forks of one mesh differ by their seeds."""
    run.script.seed(f"{name}/script")
    run.world.reseed(name)
    for host in run.hosts:
        run.core(host)._ctx.rng.seed(f"{name}/{host.name}")


def _tell(core: Any, records: list[Any]) -> None:
    checks = Checks(4 * len(records))
    for record in records:
        core._catalog.merge_untrusted(record, checks)
    for member in list(core._catalog):
        core._detector.status_changed(member, None)
    core._joined = True
    # Only a newcomer forwards nothing of its first comparison, and tries again until there was one.
    core._streams._repair._conversation.is_first = False
    core._detector.view_complete()


def _keep(host: Host, core: Any, shared: dict[bytes, bytes]) -> None:
    """Write to disk what the core asked for, once a member; keep one copy of equal bytes."""
    entries: dict[bytes, bytes] = {}
    for effect in core._ctx.drain():
        if isinstance(effect, Persist) and effect.kind is PersistKind.MEMBER and effect.value is not None:
            entries[effect.key] = effect.value
    for key, value in entries.items():
        one = Persist(PersistKind.MEMBER, shared.setdefault(key, key), shared.setdefault(value, value), True)
        host.disk.write(one)
    for member in core._catalog:
        for kind, message in list(member.messages.items()):
            member.messages[kind] = shared.setdefault(message, message)
