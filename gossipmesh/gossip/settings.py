"""What a shell gives a gossip core, and what it reads back.

Sources: durations and counts are memberlist's LAN defaults (config.go, DefaultLANConfig) unless a field
says otherwise. Paper: SWIM section 3; Lifeguard IV.
"""

import msgspec

from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.records import NodeCredential, NodeState, SignedRecord
from gossipmesh.trust.keys import ExchangeKey, SigningKey


class NodeKeys(msgspec.Struct, frozen=True):
    """A node's right to speak: its credential and the private halves of the keys in it."""

    credential: SignedRecord
    signing: SigningKey
    exchange: ExchangeKey


class NodeProfile(msgspec.Struct, frozen=True):
    """What a node tells of itself; addresses are preferred first, 1 to 4 each."""

    name: str
    gossip_addresses: tuple[Address, ...]
    mesh_addresses: tuple[Address, ...]
    build: str


class RestoredState(msgspec.Struct, frozen=True):
    """What was kept on disk: the last epoch, and `Persist(MEMBER)` entries as (key, value)."""

    epoch: int = 0
    members: tuple[tuple[bytes, bytes], ...] = ()


class GossipSettings(msgspec.Struct, frozen=True):
    """Timing of the protocol; every member of a group should use the same.

    Attributes:
        probe_interval_ns: one probe per interval; shorter finds deaths sooner and costs
            packets in proportion.
        probe_timeout_ns: wait for a direct ack before asking others; above the p99 round trip,
            below half the interval.
        indirect_probes: helpers asked when the direct ack is late (SWIM's k).
        suspicion_mult: shortest suspicion in intervals, times log10 of the members; less makes false deaths.
        suspicion_max_mult: longest suspicion as a multiple of the shortest, when nobody else confirms.
        local_health_max: greatest local health; interval and timeouts stretch up to this many times plus one.
        tick_interval_ns, tick_fanout: how often and to how many queued updates go besides probes.
        transmit_mult, refutation_mult: sendings per update, times log10(members + 1); 6 for one's own
            refutation, because losing that race is a false death.
        eager_fanout, eager_per_s, eager_burst: immediate forwarding of deaths, new epochs and the like.
        eager_fanout_many, eager_many_members: the fan-out in groups of more members than that.
        engine_interval_ns: how often somebody asks the engine of an unattended member.
        engine_timeout_ns: an engine probe the shell never answered counts as failed after this.
        obituary_interval_ns: how often one dead member is pinged, so that partitions heal.
        repair_after_ns: how long roots may differ before a stream comparison.
        repair_gap_ns: least time between two comparisons this node opens.
        full_compare_interval_ns: a comparison with someone regardless.
        hello_retry_ns: first wait for an answer to a hello; doubles once, for loss must not keep a node out.
        cookie_age_s: how long a cookie is good.
        pause_ns: a timer later than this means the process was stopped: probes in flight prove nothing.
    """

    probe_interval_ns: int = SECOND_NS
    probe_timeout_ns: int = 500 * MILLISECOND_NS
    indirect_probes: int = 3
    suspicion_mult: int = 4
    suspicion_max_mult: int = 6
    local_health_max: int = 8
    tick_interval_ns: int = 200 * MILLISECOND_NS
    tick_fanout: int = 3
    transmit_mult: int = 4
    refutation_mult: int = 6
    eager_fanout: int = 4
    eager_fanout_many: int = 6
    eager_many_members: int = 200
    eager_per_s: int = 50
    eager_burst: int = 200
    engine_interval_ns: int = 5 * SECOND_NS
    engine_timeout_ns: int = 10 * SECOND_NS
    obituary_interval_ns: int = 2 * SECOND_NS
    repair_after_ns: int = SECOND_NS
    repair_gap_ns: int = 500 * MILLISECOND_NS
    full_compare_interval_ns: int = 300 * SECOND_NS
    hello_retry_ns: int = 400 * MILLISECOND_NS
    cookie_age_s: int = 10
    pause_ns: int = 500 * MILLISECOND_NS


class MemberView(msgspec.Struct, frozen=True):
    """A member as the rest of the agent reads it."""

    name: str
    node_id: NodeId
    spiffe_id: str
    status: MemberStatus
    state: NodeState
    credential: NodeCredential
    changed_at: Instant


class GossipStatistics(msgspec.Struct):
    """Counters since start, and a few gauges; `dropped` and `refused` are by reason."""

    datagrams_sent: int = 0
    datagrams_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    refused_policies: dict[str, int] = msgspec.field(default_factory=dict)
    applied_policies: int = 0
    signature_checks: int = 0
    records_merged: int = 0
    records_stale: int = 0
    probes: int = 0
    probes_failed: int = 0
    probes_indirect: int = 0
    probes_voided: int = 0
    pauses: int = 0
    suspicions: int = 0
    suspicions_postponed: int = 0
    claims_held: int = 0
    refutations: int = 0
    epochs_raised: int = 0
    deaths_declared: int = 0
    unattended_declared: int = 0
    engine_probes: int = 0
    obituaries: int = 0
    hellos_sent: int = 0
    hellos_accepted: int = 0
    cookies_sent: int = 0
    eager_sent: int = 0
    eager_limited: int = 0
    streams_opened: int = 0
    streams_accepted: int = 0
    streams_refused: int = 0
    streams_failed: int = 0
    stream_bytes_sent: int = 0
    stream_bytes_received: int = 0
    repairs_started: int = 0
    repairs_completed: int = 0
    pages_sent: int = 0
    slices: int = 0
    queue_length: int = 0
    members: int = 0
    links: int = 0
    clock_skew_s: int = 0
