"""A whole core of SWIM with Lifeguard, made of the product's parts and four of its own.

What it shares with the product is what the comparison must not measure: packets, sessions, records, repair,
dissemination, documents. Its own are the detector, and the catalog, intake and member that know claims.
Paper: SWIM (Das, Gupta, Motivala 2002), Lifeguard (Dadgar, Phillips, Currey 2017). Deviation: see each part.
"""

from gossipmesh.gossip.base.timers import joined
from gossipmesh.gossip.failure.detector import Detector
from gossipmesh.gossip.intake import Intake
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.node import GossipNode
from gossipmesh.testing.swim.catalog import SwimCatalog
from gossipmesh.testing.swim.detector import SwimDetector
from gossipmesh.testing.swim.intake import SwimIntake
from gossipmesh.testing.swim.settings import SwimStatistics


class SwimNode(GossipNode):
    """One member of a group that all run this core; inputs, effects and reads are `GossipNode`'s."""

    def _compose(self) -> None:
        super()._compose()
        self._deadlines = joined(self._deadlines, self._claim_intake.deadlines())

    def _make_catalog(self) -> Catalog:
        self._ctx.statistics = self._counts = SwimStatistics()
        self._claims = SwimCatalog(self._ctx, self._own_id, self._counts)
        return self._claims

    def _make_detector(self) -> Detector:
        self._suspecter = SwimDetector(
            self._ctx,
            self._claims,
            self._courier,
            self._own,
            self._counts,
            sums=self.state_sums,
            declared=lambda change: self._intake.follow(change, None),
            stream_ping=self._streams.ping,
        )
        return self._suspecter

    def _make_intake(self) -> Intake:
        self._claim_intake = SwimIntake(
            self._ctx, self._claims, self._courier, self._own, self._suspecter, self._haste
        )
        return self._claim_intake
