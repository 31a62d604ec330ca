"""Prometheus metrics: the agent's plain counts behind one custom collector.

Metric names begin with `gossipmesh_`, units stand last before `_total`. Imported at the first scrape
only: prometheus-client costs 1.5 MB.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from gossipmesh import __version__
from gossipmesh.agent.admin.admin_views import Parts
from gossipmesh.agent.admin.policy_alarms import alarms_of
from gossipmesh.agent.admin.process_usage import usage_of
from gossipmesh.agent.engine.engine_counts import EngineCounts
from gossipmesh.agent.identity.identity_keeper import answered_at, horizon, leaves_end
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.net.clock import monotonic, wall_seconds
from gossipmesh.telemetry.traffic import ConnectionLabels, RequestLabels
from gossipmesh.wire.versions import FOREIGN_KEYS

_SERIES_PER_STEP: Final = 20  # of traffic: 2 ms
_MICROSECONDS_PER_SECOND: Final = 1_000_000
_GAUGES_OF_GOSSIP: Final = (
    "queue_length",
    "members",
    "links",
    "clock_skew_s",
    "clock_peers",
    "clock_off",
    "clock_below_records_s",
    "cases_open",
    "endpoints_retained",
    "lag_ms",
    "tcp_only",
)
_UNITS_OF_GOSSIP: Final = {
    "clock_skew_s": ("clock_skew_seconds", 1),
    "clock_below_records_s": ("clock_below_records_seconds", 1),
    "lag_ms": ("lag_seconds", 1_000),
}
"""Statistics whose unit is no base unit: the name it has here, and how many make one."""

_Counted = Sequence[tuple[tuple[str, ...], int]]

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class _Collected(Collector):
    """Hands prometheus-client what was collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(families: list[Family]) -> bytes:
    """Return the text format; takes no shared state, so it may run in a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    return generate_latest(registry)


def collect(parts: Parts, counts: EngineCounts) -> Iterator[Family | None]:
    """Yield every family with its present values, and None now and then: other tasks may run there."""
    yield from _traffic(counts)
    yield from _engine(parts, counts)
    yield from _gossip(parts)
    yield from _addresses(parts)
    yield from _policy(parts)
    yield from _disk(parts)
    yield _limits(parts, counts)
    yield from _processes(parts)
    yield from _identity(parts)


def _counter(name: str, text: str, labels: tuple[str, ...] = ()) -> CounterMetricFamily:
    return CounterMetricFamily(f"gossipmesh_{name}", text, labels=labels)


def _gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gossipmesh_{name}", text, labels=labels)


def _count(name: str, text: str, count: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"gossipmesh_{name}", text, value=count)


def _level(name: str, text: str, level: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gossipmesh_{name}", text, value=level)


def _labelled(name: str, text: str, labels: tuple[str, ...], counts: _Counted) -> CounterMetricFamily:
    family = _counter(name, text, labels)
    for values, count in counts:
        family.add_metric(list(values), count)
    return family


def _traffic(counts: EngineCounts) -> Iterator[Family | None]:
    labels = RequestLabels._fields
    requests = _counter("requests", "Requests that ended.", labels)
    durations = HistogramMetricFamily(
        "gossipmesh_request_duration_seconds", "Time to the last byte.", labels=labels
    )
    retries = _counter("retries", "Tries after the first.", labels)
    asked = _counter("request_bytes", "Bytes of requests' bodies.", labels)
    answered = _counter("response_bytes", "Bytes of answers' bodies.", labels)
    for number, (key, series) in enumerate(counts.requests, 1):
        requests.add_metric(key, series.requests_count)
        buckets = [(_seconds(bound), count) for bound, count in series.duration_us.cumulative()]
        durations.add_metric(key, buckets, series.duration_us.total / _MICROSECONDS_PER_SECOND)
        asked.add_metric(key, series.received_bytes)
        answered.add_metric(key, series.sent_bytes)
        if series.retries_count:
            retries.add_metric(key, series.retries_count)
        if number % _SERIES_PER_STEP == 0:
            yield None
    yield from (requests, durations, retries, asked, answered)
    yield from _connections(counts)
    text = "Series added to `other` because there were too many."
    evicted_count = counts.requests.evicted_count + counts.connections.evicted_count
    yield _count("traffic_series_evicted", text, evicted_count)


def _connections(counts: EngineCounts) -> Iterator[Family | None]:
    labels = ConnectionLabels._fields
    flagless = tuple(name for name in labels if name != "response_flags")
    opened = _counter("tcp_connections_opened", "TCP connections taken.", flagless)
    closed = _counter("tcp_connections_closed", "TCP connections that ended.", labels)
    retries = _counter("tcp_connection_retries", "Endpoints tried after the first.", labels)
    received = _counter("tcp_received_bytes", "Bytes from callers.", flagless)
    sent = _counter("tcp_sent_bytes", "Bytes to callers.", flagless)
    for number, (key, series) in enumerate(counts.connections, 1):
        if not key.response_flags:
            named = zip(labels, key, strict=True)
            values = [value for name, value in named if name != "response_flags"]
            opened.add_metric(values, series.opened_count)
            received.add_metric(values, series.received_bytes)
            sent.add_metric(values, series.sent_bytes)
        else:
            closed.add_metric(key, series.closed_count)
        if series.retries_count:
            retries.add_metric(key, series.retries_count)
        if number % _SERIES_PER_STEP == 0:
            yield None
    yield from (opened, closed, retries, received, sent)


def _seconds(bound_ms: str) -> str:
    """Return a bucket's upper bound, given in milliseconds, as Prometheus writes it."""
    return bound_ms if bound_ms == "+Inf" else str(int(bound_ms) / 1_000)


def _engine(parts: Parts, counts: EngineCounts) -> Iterator[Family]:
    view = parts.engine.view()
    yield _level("engine_attached", "1 while the engine is attached.", int(view.attached))
    yield _level("engine_serving", "1 while it has acked a snapshot and answers.", int(parts.engine.serving))
    yield _count("engine_starts", "Engines this agent started.", view.starts_count)
    text = "What the engine counted, by its own names."
    yield _labelled("engine_events", text, ("name",), counts.counters.items())
    levels = _gauge("engine_level", "What the engine measures, by its own names.", ("name",))
    for name, level in sorted(counts.gauges.items()):
        levels.add_metric([name], level)
    yield levels
    text = "Endpoints taken out of use or let back."
    yield _labelled("ejections", text, ("upstream", "move"), counts.ejections.items())
    labels = ("source_principal", "destination_service", "rule")
    yield _labelled("denials", "Callers refused.", labels, counts.denials.items())


def _gossip(parts: Parts) -> Iterator[Family]:
    statistics: dict[str, Any] = msgspec.to_builtins(parts.node.statistics())
    for name, value in statistics.items():
        words = name.replace("_", " ")
        if name == "refused_policies":
            continue  # policy_refused tells them by scope
        if isinstance(value, dict):
            by_reason = [((reason,), count) for reason, count in sorted(value.items())]
            yield _labelled(f"gossip_{name}", f"Gossip: {words}, by reason.", ("reason",), by_reason)
        elif name in _GAUGES_OF_GOSSIP:
            told, divisor = _UNITS_OF_GOSSIP.get(name, (name, 1))
            yield _level(f"gossip_{told}", f"Gossip: {told.replace('_', ' ')} now.", value / divisor)
        else:
            yield _count(f"gossip_{name}", f"Gossip: {words}.", value)
    yield from _gossip_state(parts)
    members = _gauge("members", "Members by status.", ("status",))
    tally = parts.node.tally()
    text = "1 while this node hears nobody and nobody answers it: it is itself cut off."
    yield _level("isolated", text, int(parts.node.isolated_since is not None))
    yield _level("closed", "1 while this node answers no call yet.", int(parts.gate.is_closed))
    text = "Members this node alone does not reach."
    yield _level("members_unreachable", text, tally.unreachable_count)
    for status, count in tally.by_status.items():
        members.add_metric([status.label], count)
    yield members
    yield _level("local_health", "How much this node distrusts itself; 0: healthy.", parts.node.local_health)
    lag_s = parts.shell.statistics.deadline_lag_ns_max / SECOND_NS
    yield _level("loop_lag_max_seconds", "Latest timer since the start.", lag_s)
    stalls_count = parts.shell.statistics.stalls_count
    yield _count("loop_stalls", "Timers that were more than 20 ms late.", stalls_count)
    yield from _loop(parts)
    udp = parts.shell.udp.statistics
    drops: _Counted = [
        (("oversized",), udp.oversized_count),
        (("receive_error",), udp.receive_errors_count),
        (("send_error",), udp.send_errors_count),
        (("send_full",), udp.send_full_count),
    ]
    yield _labelled("udp_drops", "Datagrams lost in this process.", ("reason",), drops)


def _loop(parts: Parts) -> Iterator[Family]:
    loop = parts.shell.loop
    yield _count("loop_steps_too_long", "Times one task held the loop for over 20 ms.", loop.stalls_count)
    text = "The same by CPU time: not because the machine was busy."
    yield _count("loop_steps_too_busy", text, loop.busy_stalls_count)
    yield _level("loop_step_max_seconds", "Longest one task held the loop.", loop.longest_ns / SECOND_NS)
    yield _level("loop_step_busy_max_seconds", "The same by CPU time.", loop.longest_busy_ns / SECOND_NS)


def _gossip_state(parts: Parts) -> Iterator[Family]:
    """Return what waits, what is agreed upon, and what the recorder holds."""
    depths = _gauge("gossip_queue_depth", "Updates that wait to be sent, by share.", ("share",))
    for share, depth in parts.node.queue_depths().items():
        depths.add_metric([share], depth)
    yield depths
    # Of its 128 bits every reader keeps the first 48 exactly as a number. Equal everywhere: converged.
    sums = _gauge(
        "gossip_state_sum_head", "The first 48 bits of each; equal on all nodes at rest.", ("kind",)
    )
    for name, state_sum in zip(("group", "documents"), parts.node.state_sums(), strict=True):
        sums.add_metric([name], int.from_bytes(state_sum[:6], "big"))
    yield sums
    if parts.recorder is not None:
        yield _level("recorder_bytes", "What the flight recorder holds.", parts.recorder.size_bytes)
        yield _count("recorder_dropped", "Inputs it let go.", parts.recorder.dropped_count)


def _addresses(parts: Parts) -> Iterator[Family]:
    keeper = parts.addresses
    yield _level("addresses_lost", "Addresses this machine has no more.", len(keeper.lost))
    text = "Times others were told another address."
    yield _count("address_changes", text, keeper.published_count)
    text = "Changes that waited for one told a moment before."
    yield _count("address_changes_held_back", text, keeper.held_back_count)


def _policy(parts: Parts) -> Iterator[Family]:
    versions = _gauge("policy_version", "Version in force, by scope.", ("scope",))
    for policy in parts.node.own_state.policies:
        versions.add_metric([policy.scope], policy.version)
    yield versions
    alarms = _gauge("policy_alarms", "What is to be looked at in Trust and policy, by kind.", ("kind",))
    kinds = Counter(one.kind for one in alarms_of(parts.documents, wall_seconds()))
    for kind in ("overdue", "jump", "rival-sets", "rival-trusts"):
        alarms.add_metric([kind], kinds[kind])
    yield alarms
    yield _labelled(
        "policy_refused", "Policy sets refused.", ("scope", "code"), parts.policy_refusals.items()
    )


def _disk(parts: Parts) -> Iterator[Family]:
    """Return what waits for the disk of the state folder, and how long that takes."""
    writer = parts.shell.writer
    done = writer.statistics
    yield _level("state_writes_waiting", "Records that wait for the write before them.", writer.waiting_count)
    yield _level("state_write_stuck_seconds", "Age of the write under way.", writer.stuck_ns / SECOND_NS)
    yield _count("state_syncs", "Durable writes.", done.syncs_count)
    yield _level(
        "state_sync_last_seconds", "What the last durable write took.", done.sync_ns_last / SECOND_NS
    )
    yield _level("state_sync_max_seconds", "The longest one.", done.sync_ns_max / SECOND_NS)


def _limits(parts: Parts, counts: EngineCounts) -> Family:
    """Return how often a limit of this agent turned something away; 0 is well."""
    shell, streams = parts.shell.statistics, parts.shell.streams.statistics
    labelled = (counts.counters, counts.ejections, counts.denials, parts.policy_refusals)
    reached: _Counted = [
        (("engine_probes",), shell.engine_probes_dropped_count),
        (("label_sets",), sum(counters.overflow_count for counters in labelled)),
        (("state_records",), parts.shell.writer.statistics.dropped_count),
        (("stream_queue",), streams.overflowed_count),
        (("stream_silence",), streams.silent_count),
        (("streams",), streams.refused_count),
    ]
    return _labelled("limit_reached", "Times a limit turned something away.", ("limit",), reached)


def _processes(parts: Parts) -> Iterator[Family]:
    memory = _gauge("process_resident_bytes", "Resident memory.", ("process",))
    cpu = _counter("process_cpu_seconds", "CPU time used.", ("process",))
    for name, pid in (("agent", os.getpid()), ("engine", parts.engine.view().pid)):
        usage = usage_of(pid)
        memory.add_metric([name], usage.rss_bytes)
        cpu.add_metric([name], usage.cpu_s)
    yield memory
    yield cpu
    info = _gauge("build_info", "Version of this build.", ("version",))
    info.add_metric([__version__], 1)
    yield info


def _identity(parts: Parts) -> Iterator[Family]:
    keeper = parts.identity
    yield _level(
        "identity_ends_timestamp_seconds", "When the node's credential ends.", horizon(keeper.identity)
    )
    yield _level(
        "certificates_end_timestamp_seconds",
        "When the first of the authority's certificates ends.",
        leaves_end(keeper.identity),
    )
    yield _level(
        "authority_answered_timestamp_seconds",
        "When the authority last issued something.",
        answered_at(keeper.identity),
    )
    turning, now = keeper.keys.turning, monotonic()
    yield _level("key_turn_due_seconds", "In how long keys turn.", (turning.turn_at - now) / SECOND_NS)
    yield _level("key_turn_waits", "1 while a turn that is due waits.", int(bool(turning.waits_for(now))))
    yield _level(
        "foreign_key_set",
        "1 since keys were published in this node's name that it does not know.",
        int(FOREIGN_KEYS in parts.node.own_state.features),
    )
    turns = _counter("key_turns", "Turns of keys since the start.")
    turns.add_metric([], keeper.keys.turns_count)
    yield turns
    renewals: _Counted = [(("failed",), keeper.failures_count), (("renewed",), keeper.renewals_count)]
    yield _labelled("identity_renewals", "Renewals tried.", ("outcome",), renewals)
