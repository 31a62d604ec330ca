"""Equal state sums mean equal views: what a node holds of others follows from the records its sum counts.

A view is the status of every member and whose services are in use, at which order. Not of it: `unreachable`,
which is one node's own; endpoints that are retained of many who died together, which one node decides and its
operator ends; a node's own services, which it uses itself while others hold it dead.
Rule: whatever was seen with a sum must be seen with it ever after, on any node and after any restart.
"""

from collections import OrderedDict
from typing import Any, Final

from gossipmesh.gossip.inspection import services_order
from gossipmesh.model.member import MemberStatus, Order
from gossipmesh.model.service import ServiceEntry
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.world import SimulationFailure, World

_SUMS_MAX: Final = 512

_Services = tuple[Order | None, tuple[ServiceEntry, ...]]
_View = dict[str, tuple[str, _Services | None]]


class EqualViews:
    """The views seen lately, by state sum; `changed` names a host that has to be looked at again."""

    def __init__(self) -> None:
        self._views: OrderedDict[bytes, tuple[str, int, _View]] = OrderedDict()
        self._changed: dict[str, None] = {}
        self.looks_count = 0

    def changed(self, host: Host) -> None:
        """Note that a host's sum is another, or that it told of a member or of services."""
        self._changed[host.name] = None

    def look(self, world: World) -> None:
        """Look at whoever changed.

        Raises:
            SimulationFailure: a view differs from one that was seen with the same sum. State unchanged.
        """
        names, self._changed = list(self._changed), {}
        for name in names:
            if world.hosts[name].core is not None:
                self._look_at(world, world.hosts[name])

    def _look_at(self, world: World, host: Host) -> None:
        core: Any = host.core
        state_sum, view = core.state_sums()[0], view_of(core)
        self.looks_count += 1
        other, at_ns, seen = self._views.setdefault(state_sum, (host.name, world.now_ns, view))
        self._views.move_to_end(state_sum)
        if len(self._views) > _SUMS_MAX:
            self._views.popitem(last=False)
        if seen != view:
            differing = sorted(name for name in {*seen, *view} if seen.get(name) != view.get(name))
            one, two = (_told(held, differing[0]) for held in (seen, view))
            raise SimulationFailure(
                f"equal sums, two views: {host.name} holds {differing[0]} {two}, "
                f"and {other} held it {one} at {at_ns} ns"
            )


def view_of(core: Any) -> _View:
    """Return by name what a core holds of each member: its status, and its services if they are in use."""
    services = {one.node: (services_order(core, one.node_id), one.entries) for one in core.endpoints()}
    return {
        view.name: (
            view.status.label,
            services.get(view.name) if view.status < MemberStatus.DEAD else None,
        )
        for view in core.members()
    }


def _told(view: _View, name: str) -> str:
    status, services = view.get(name, ("unknown", None))
    return status if services is None else f"{status} with services of {services[0]}"
