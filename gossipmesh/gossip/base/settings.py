"""What a shell gives a gossip core, and what it reads back.

Sources: durations and counts are memberlist's LAN defaults (config.go, DefaultLANConfig) unless a field
says otherwise. Paper: SWIM section 3; Lifeguard IV.
"""

from typing import Final

import msgspec

from gossipmesh.model.identity import NodeId
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.opening import Unconfirmed
from gossipmesh.model.records import NodeCredential, NodeState, SignedRecord
from gossipmesh.trust.keys import ExchangeKey, SigningKey
from gossipmesh.wire.versions import FEATURES


class NodeKeys(msgspec.Struct, frozen=True):
    """A node's right to speak: its credential and the private halves of the keys in it."""

    credential: SignedRecord
    signing: SigningKey
    exchange: ExchangeKey


class NodeProfile(msgspec.Struct, frozen=True):
    """What a node tells of itself; addresses are preferred first, 1 to 4 each; `features` are sorted."""

    name: str
    gossip_addresses: tuple[Address, ...]
    mesh_addresses: tuple[Address, ...]
    build: str
    features: tuple[str, ...] = FEATURES


class NodeAddresses(msgspec.Struct, frozen=True):
    """Where a node is found; preferred first, 1 to 4 each."""

    gossip: tuple[Address, ...]
    mesh: tuple[Address, ...]


class OpeningView(msgspec.Struct, frozen=True):
    """Whether this node answers calls, and what it waits for if not.

    `agreed` and `differing` are the names of open members that name its documents, and of those that name
    others; it needs `needed_count` of the former. `is_whole`: it holds all that some member holds.
    """

    is_closed: bool
    closed_ns: int = 0
    needed_count: int = 0
    agreed: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    is_whole: bool = False


class RestoredState(msgspec.Struct, frozen=True):
    """What was kept on disk: the last epoch, and `Persist(MEMBER)` entries as (key, value).

    `floors_unknown`: the disk was damaged, and what is in force may be older than what was. `unconfirmed`:
    this node is not open yet; None: it is. `roll`: the `Persist(ROLL)` entries' values, in any order.
    """

    epoch: int = 0
    members: tuple[tuple[bytes, bytes], ...] = ()
    floors_unknown: bool = False
    unconfirmed: Unconfirmed | None = None
    roll: tuple[bytes, ...] = ()


class MonitorSettings(msgspec.Struct, frozen=True):
    """Timing of the voting monitors; the profiles `fast` and `steady` differ in `silence_ns` alone.

    Source: what simulation says of the detector (docs/GOSSIP.md, "Failure detection").

    Attributes:
        silence_ns: a monitor votes once it has heard nothing for this long while it hears others; below
            2.5 s readers that are late by as much would be called dead.
        refusal_ns: least time between the two refusals of an engine that count as one verdict.
        probe_interval_ns: one random member is pinged per interval.
        probe_min_ns, probe_max_ns: bounds of the wait for a direct ack, four times the p99 round trip.
        indirect_ns: how long others then have.
        heartbeat_slot_ns: one heartbeat per slot, to each monitor in turn.
        heartbeat_grace_ns: how much later than its turn one may be before its sender is probed.
        monitors_max, voter_rank_max: monitors of a target; the worst rank whose vote is taken, since
            views differ for moments.
        case_tick_ns: pings and judgement of an open case; half as often while its target is heard.
        vote_life_ns: how long a vote counts.
        check_gap_ns: least time between two alarms of ours about one target.
        control_peers, control_percent: members pinged per round, and how many of two rounds must be heard
            before silence of one is believed.
        deaf_ns: sends and never answers for so long.
        degraded_ns, degraded_pings_min, degraded_percent: fewer answers than that over so long.
        answers_to_close: direct acks in a row that end a case.
        quarantine_ns, quarantine_max_ns, quarantine_forget_ns: how long a deaf or degraded member stays out,
            doubling up to the greatest; after how much quiet that is forgotten.
        lag_gate_ns: with more lag of our own, failed probes prove nothing.
        tolerance_max_ns: greatest patience a target's published lag earns it.
        beats_apart_max: votes that heard beats further apart are of different times.
        unreachable_after_ns: how much longer than silence until traffic avoids a target nobody condemns.
        mass_death_percent, mass_death_window_ns, mass_death_retain_ns: more deaths than that within the
            window keep their endpoints for so long.
    """

    silence_ns: int = 2_500 * MILLISECOND_NS
    refusal_ns: int = 300 * MILLISECOND_NS
    probe_interval_ns: int = 2 * SECOND_NS
    probe_min_ns: int = 100 * MILLISECOND_NS
    probe_max_ns: int = 500 * MILLISECOND_NS
    indirect_ns: int = 400 * MILLISECOND_NS
    heartbeat_slot_ns: int = 250 * MILLISECOND_NS
    heartbeat_grace_ns: int = 250 * MILLISECOND_NS
    monitors_max: int = 8
    voter_rank_max: int = 10
    case_tick_ns: int = 500 * MILLISECOND_NS
    vote_life_ns: int = 2 * SECOND_NS
    check_gap_ns: int = SECOND_NS
    control_peers: int = 8
    control_percent: int = 70
    deaf_ns: int = 8 * SECOND_NS
    degraded_ns: int = 10 * SECOND_NS
    degraded_pings_min: int = 12
    degraded_percent: int = 50
    answers_to_close: int = 3
    quarantine_ns: int = 120 * SECOND_NS
    quarantine_max_ns: int = 960 * SECOND_NS
    quarantine_forget_ns: int = 1_800 * SECOND_NS
    lag_gate_ns: int = 200 * MILLISECOND_NS
    tolerance_max_ns: int = 10 * SECOND_NS
    beats_apart_max: int = 64
    unreachable_after_ns: int = SECOND_NS
    mass_death_percent: int = 30
    mass_death_window_ns: int = 60 * SECOND_NS
    mass_death_retain_ns: int = 3_600 * SECOND_NS


FAST: Final = MonitorSettings()
STEADY: Final = MonitorSettings(silence_ns=6 * SECOND_NS)


class GossipSettings(msgspec.Struct, frozen=True):
    """Timing of the protocol; every member of a group should use the same.

    Attributes:
        monitor: timing of the failure detector.
        local_health_max: greatest local health; waits for answers are stretched by 1 plus that.
        tick_interval_ns, tick_fanout: how often and to how many queued updates go besides probes.
        early_ticks_ns: how long after urgent news was forwarded ticks of their own follow.
        transmit_mult, refutation_mult: sendings per update, times log10(members + 1); 6 for one's own
            refutation, because losing that race is a false death.
        eager_fanout, eager_per_s, eager_burst: immediate forwarding of deaths, new epochs and the like.
        eager_fanout_many, eager_many_members: the fan-out in groups of more members than that.
        engine_interval_ns: how often somebody asks the engine of an unattended member.
        engine_timeout_ns: an engine probe the shell never answered counts as failed after this.
        obituary_interval_ns: how often one dead member is pinged, so that partitions heal.
        repair_after_ns: how long state sums may differ before a stream comparison.
        repair_gap_ns: least time between two comparisons this node opens.
        full_compare_interval_ns: a comparison with someone regardless.
        hello_retry_ns: first wait for an answer to a hello; doubles once, for loss must not keep a node out.
        cookie_age_s: how long a cookie is good.
        pause_ns: a timer later than this means the process was stopped: probes in flight prove nothing.
    """

    monitor: MonitorSettings = FAST
    local_health_max: int = 8
    tick_interval_ns: int = 200 * MILLISECOND_NS
    tick_fanout: int = 3
    early_ticks_ns: tuple[int, ...] = (50 * MILLISECOND_NS, 100 * MILLISECOND_NS)
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
    repair_after_ns: int = 700 * MILLISECOND_NS
    repair_gap_ns: int = 500 * MILLISECOND_NS
    full_compare_interval_ns: int = 300 * SECOND_NS
    hello_retry_ns: int = 200 * MILLISECOND_NS
    cookie_age_s: int = 10
    pause_ns: int = 500 * MILLISECOND_NS


class MemberView(msgspec.Struct, frozen=True):
    """A member as the rest of the agent reads it.

    `unreachable`: not heard here for a while and nobody condemned it; for routing only. `heard_age_ns`:
    since its last packet, None when there was none. `answered_age_ns`: since it answered, having heard us.
    `agreed_age_ns`: since its state sum was ours. `wall_offset_s`: its civil time as it last told it, less
    our monotonic seconds. `lag_ms`: the step it published. `quarantine_until`: it was deaf or degraded and
    stays out until then, longer if that happened lately, None when it does not. `endpoints_retained`: it died
    with many others, so its endpoints are kept. `is_tcp_only`: streams prove it alive, and no datagram passes
    both ways between it and this node; `datagram_age_ns`: since its last one came, None when there was none.
    """

    name: str
    node_id: NodeId
    spiffe_id: str
    status: MemberStatus
    state: NodeState
    credential: NodeCredential
    changed_at: Instant
    unreachable: bool = False
    heard_age_ns: int | None = None
    answered_age_ns: int | None = None
    agreed_age_ns: int | None = None
    wall_offset_s: int | None = None
    lag_ms: int = 0
    quarantine_until: Instant | None = None
    endpoints_retained: bool = False
    is_tcp_only: bool = False
    datagram_age_ns: int | None = None


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
    refutations: int = 0
    epochs_raised: int = 0
    engine_probes: int = 0
    obituaries: int = 0
    hellos_sent: int = 0
    hellos_accepted: int = 0
    cookies_sent: int = 0
    cookies_elsewhere: int = 0
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
    packets_carried: int = 0
    tcp_only: int = 0
    slices: int = 0
    queue_length: int = 0
    members: int = 0
    links: int = 0
    clock_skew_s: int = 0
    clock_peers: int = 0
    clock_below_records_s: int = 0
    clock_off: int = 0
    heartbeats_sent: int = 0
    heartbeats_missed: int = 0
    checks_sent: int = 0
    cases_opened: int = 0
    cases_open: int = 0
    votes_sent: int = 0
    votes_cast: int = 0
    votes_received: int = 0
    votes_refused: int = 0
    unvotes: int = 0
    control_rounds: int = 0
    control_failures: int = 0
    verdicts_made: int = 0
    verdicts_applied: int = 0
    verdicts_deferred: int = 0
    ports_refused: int = 0
    unreachable: int = 0
    quarantines: int = 0
    isolations: int = 0
    mass_deaths: int = 0
    endpoints_retained: int = 0
    history_noted: int = 0
    lag_ms: int = 0
