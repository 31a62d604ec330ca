"""Virtual figures: simulated days of meshes of several sizes, as many as the time given allows.

Simulated time costs no real time to wait for, only CPU: days are kept in DAYS (see `kept`).
"""

import time
from collections.abc import Callable
from itertools import groupby
from typing import Any, Final

import msgspec

from bench.gossip.day import Tale
from bench.gossip.kept import OUT, Told, by_seed, read_lines, run_for
from bench.gossip.model import measure_models
from gossipmesh.testing.simulator.frozen_list import frozen_key

DAYS: Final = OUT / "gossip-days.jsonl"


class Plan(msgspec.Struct, frozen=True):
    """Days that differ by their seeds alone: seeds 1 to `seeds` of one mesh, loss and list of chapters."""

    nodes: int
    loss: float
    chapters: tuple[str, ...]
    seeds: int
    detector: str | None = None

    def name(self) -> str:
        """Name them for people."""
        detector = "" if self.detector is None else f", {self.detector}"
        return f"{', '.join(self.chapters)} at {self.nodes} nodes, {self.loss:.0%} loss{detector}"


PLANS: Final = (
    # What a few minutes give.
    Plan(100, 0.01, ("idle", "record", "document"), 1),
    Plan(100, 0.01, ("killed", "silent"), 3),
    Plan(100, 0.01, ("join",), 1),
    Plan(100, 0.01, ("divergence",), 5),
    Plan(100, 0.01, ("crashes",), 1),
    Plan(100, 0.01, ("partition", "restart"), 1),
    Plan(100, 0.01, ("paused",), 1),
    Plan(100, 0.05, ("idle", "record", "document"), 1),
    Plan(50, 0.01, ("flipflop",), 1),
    Plan(50, 0.01, ("mute",), 1),
    Plan(50, 0.01, ("calm",), 3),
    Plan(100, 0.01, ("idle", "record", "document"), 1, "swim"),
    Plan(100, 0.01, ("killed", "silent"), 1, "swim"),
    # All of it: hours of CPU, most of them for meshes of a thousand; see `--virtual-minutes`.
    Plan(1_000, 0.01, ("silent_measured",), 5),
    Plan(1_000, 0.01, ("silent",), 5),
    Plan(1_000, 0.01, ("crashes",), 3),
    Plan(1_000, 0.05, ("record",), 3),
    Plan(1_000, 0.01, ("idle",), 1),
    Plan(1_000, 0.01, ("divergence",), 3),
    Plan(1_000, 0.01, ("slept",), 1),
    Plan(1_000, 0.05, ("document",), 1),
    Plan(1_000, 0.01, ("churn",), 1),
    Plan(1_000, 0.01, ("restart",), 1),
    Plan(1_000, 0.01, ("killed",), 1),
    Plan(100, 0.01, ("idle", "record", "document"), 5),
    Plan(100, 0.05, ("idle", "record", "document"), 5),
    Plan(100, 0.01, ("killed", "silent"), 10),
    Plan(100, 0.01, ("divergence",), 20),
    Plan(100, 0.01, ("join",), 5),
    Plan(100, 0.01, ("crashes",), 3),
    Plan(100, 0.01, ("partition", "restart"), 3),
    Plan(100, 0.01, ("paused",), 3),
    Plan(100, 0.01, ("churn",), 3),
    Plan(100, 0.01, ("slept",), 3),
    Plan(50, 0.01, ("flipflop",), 3),
    Plan(50, 0.01, ("mute",), 3),
    Plan(300, 0.01, ("idle", "record", "document"), 1),
    Plan(300, 0.01, ("killed", "silent"), 3),
    Plan(100, 0.01, ("killed", "silent"), 3, "swim"),
    Plan(1_000, 0.01, ("apart",), 1),
    Plan(100, 0.01, ("apart",), 3),
)


def kept(plan: Plan, core: str) -> dict[int, Told]:
    """Return the days of a plan by seed."""
    key = (plan.nodes, plan.loss, list(plan.chapters), plan.detector)
    days = [d for d in read_lines(DAYS) if (d["nodes"], d["loss"], d["chapters"], d["detector"]) == key]
    return by_seed(days, core, plan.seeds)


def measure_virtual(minutes: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Live what is missing of the plans while there is time; return all days to show, and the models."""
    until_s = time.perf_counter() + minutes * 60
    for (nodes, detector), plans in groupby(PLANS, key=lambda plan: (plan.nodes, plan.detector)):
        left_s = until_s - time.perf_counter()
        if left_s > 5:
            live(nodes, detector, list(plans), left_s, say)
    days: list[Told] = []
    left_out: list[str] = []
    for plan in {(p.nodes, p.loss, p.chapters, p.detector): p for p in PLANS}.values():
        found = kept(plan, frozen_key())
        days += found.values()
        if len(found) < plan.seeds:
            left_out.append(f"{plan.seeds - len(found)} of {plan.seeds} of {plan.name()}")
    return {"days": days, "left_out": left_out, "models": measure_models()}


def live(
    nodes: int, detector: str | None, plans: list[Plan], timeout_s: float, say: Callable[[str], None]
) -> None:
    """Live what is missing of plans of one mesh, in one process that appends each day as it ends."""
    core, tales = frozen_key(), []
    for plan in plans:
        there = kept(plan, core)
        seeds = [n for n in range(1, plan.seeds + 1) if n not in there or there[n]["core"] != core]
        tales += [Tale(plan.loss, seed, plan.chapters) for seed in seeds]
    if not tales:
        return
    tales.sort(key=lambda tale: tale.seed)  # one seed of everything before the second of anything
    words = ["-m", "bench.gossip.day", "--nodes", str(nodes), "--out", str(DAYS)]
    words += [] if detector is None else ["--detector", detector]
    begun = len(read_lines(DAYS))
    code, printed = run_for([*words, *(msgspec.json.encode(tale).decode() for tale in tales)], timeout_s)
    for day in read_lines(DAYS)[begun:]:
        say(f"virtual: {day['nodes']} nodes, seed {day['seed']}: {day['figures']} {day['failures']}")
    if code:
        say(f"virtual: {nodes} nodes: ended with {code}: {printed.strip()[-300:]}")
