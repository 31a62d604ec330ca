"""A mesh that knows itself from the start: every core is given what the others signed.

Joining costs a mesh of N nodes more than N^2 records on the wire and most of a simulation's time.
Studies of what happens later (detection, idle bytes, spreading) begin here instead; the scenarios
of joining do not. The records are the real ones, merged and checked by the cores themselves.
"""

from typing import Any

from gossipmesh.gossip.catalog import Checks
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.records import RecordKind
from gossipmesh.testing.simulator.run import Run

_KINDS = (RecordKind.CREDENTIAL, RecordKind.NODE_STATE, RecordKind.SERVICE_SET)


def boot_known(run: Run, *, services: bool = True) -> None:
    """Start all hosts, have each publish a service, and let each know all the others at once."""
    run.invariants.watch(run.world)
    for host in run.hosts:
        run.world.start(host)
        if services:
            run.publish(host)
    known: list[tuple[Any, list[Any]]] = []
    for host in run.hosts:
        core = run.core(host)
        own = core._catalog.get(core.own_node_id)
        known.append((core, [own.records[kind] for kind in _KINDS if kind in own.records]))
    for core, _ in known:
        _tell(core, [record for other, records in known if other is not core for record in records])
        core._ctx.drain()
    run.world.run_for(SECOND_NS)
    run.require(run.invariants.roots_equal(run.world), "a primed mesh does not know itself")


def _tell(core: Any, records: list[Any]) -> None:
    checks = Checks(4 * len(records))
    for record in records:
        core._catalog.merge_untrusted(record, checks)
    for member in list(core._catalog):
        core._detector.status_changed(member, None)
    core._joined = True
    core._detector.view_complete()
