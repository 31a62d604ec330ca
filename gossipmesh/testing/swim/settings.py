"""Timing and counters of SWIM with Lifeguard, beside what it shares with every core of this project.

Sources: memberlist's LAN defaults (config.go, DefaultLANConfig). Paper: SWIM section 3; Lifeguard IV.
"""

from typing import Final

import msgspec

from gossipmesh.gossip.base.settings import GossipStatistics
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS


class SwimTiming(msgspec.Struct, frozen=True):
    """How fast this detector is; every member of a group uses the same.

    Attributes:
        probe_interval_ns: one probe per interval; shorter finds deaths sooner and costs
            packets in proportion.
        probe_timeout_ns: wait for a direct ack before asking others; above the p99 round trip,
            below half the interval.
        indirect_probes: helpers asked when the direct ack is late (SWIM's k).
        suspicion_mult: shortest suspicion in intervals, times log10 of the members; less makes false deaths.
        suspicion_max_mult: longest suspicion as a multiple of the shortest, when nobody else confirms.
    """

    probe_interval_ns: int = SECOND_NS
    probe_timeout_ns: int = 500 * MILLISECOND_NS
    indirect_probes: int = 3
    suspicion_mult: int = 4
    suspicion_max_mult: int = 6


LAN: Final = SwimTiming()


class SwimStatistics(GossipStatistics):
    """Every core's counters, and how often somebody was suspected or declared gone here."""

    suspicions: int = 0
    suspicions_postponed: int = 0
    claims_held: int = 0
    deaths_declared: int = 0
    unattended_declared: int = 0
