"""Fetches verdicts by their names: a name is a twentieth of a body, and pushed in its stead.

Rules:
1. Whoever names one that we lack is asked, one member at a time; who else names it meanwhile is asked if the
   first has not answered soon, for names stop coming long before the last lost packet.
Paper: Plumtree (Leitao et al. 2007), lazy push. Deviation: every push is lazy, since ten deaths at one moment
    would otherwise make each member send forty bodies within the second.
"""

from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.membership.catalog import Catalog, order_start
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model.instant import MILLISECOND_NS
from gossipmesh.model.records import RecordKind, Verdict
from gossipmesh.wire.datagram import VerdictId, Want, encode_message

_HOLDERS_MAX: Final = 4
_AGAIN_NS: Final = 100 * MILLISECOND_NS


@kept.part("verdict wants")
class VerdictWants:
    """What we asked for and who else has it, by target."""

    def __init__(self, ctx: Context, catalog: Catalog, courier: Courier) -> None:
        self._ctx = ctx
        self._catalog = catalog
        self._courier = courier
        self._holders: dict[bytes, list[Member]] = {}
        self._names: dict[bytes, VerdictId] = {}

    def named(self, holder: Member, name: VerdictId) -> None:
        """Ask for a verdict we lack, or remember who has it as well."""
        if not self._lacks(name):
            return
        holders = self._holders.get(name.target)
        wanted = self._names.get(name.target)
        if wanted is None or _rank(name) > _rank(wanted):
            self._names[name.target] = name
        if holders is None:
            self._holders[name.target] = []
            self._ask(holder, name.target)
        elif len(holders) < _HOLDERS_MAX and holder not in holders:
            holders.append(holder)

    def _lacks(self, name: VerdictId) -> bool:
        target = self._catalog.get(name.target)
        if target is None or target.state is None:
            return False
        known = target.verdict
        if known is not None and _rank(known) >= _rank(name):
            return False
        return (name.generation, name.epoch) >= order_start(target.state.order)

    def _ask(self, holder: Member, target: bytes) -> None:
        self._courier.send(holder, [encode_message(Want(int(RecordKind.VERDICT), target))])
        self._ctx.timers.set(("want", target), self._ctx.now + _AGAIN_NS)

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"want": self._again}

    def _again(self, target: bytes) -> None:
        holders = self._holders[target]
        if holders and self._lacks(self._names[target]):
            self._ask(holders.pop(0), target)
        else:
            del self._holders[target], self._names[target]

    def forget(self, node_id: bytes) -> None:
        """Ask no more about a member that is no more."""
        self._holders.pop(node_id, None)
        self._names.pop(node_id, None)
        self._ctx.timers.cancel(("want", node_id))


def _rank(named: VerdictId | Verdict) -> tuple[int, int, int]:
    return named.generation, named.epoch, named.status
