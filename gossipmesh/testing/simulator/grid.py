"""Kinship's grid: how fast a crash is seen, and who else is called dead, when readers starve and packets go.

`python -m gossipmesh.testing.simulator grid --nodes 50 --seeds 0-19 --detector monitors --out out/grid.jsonl`

A run is 120 s of a mesh that knows itself: one machine loses power at 60 s, a share of the others reads
everything 0.5 to 2.5 s late from the start. Results are appended, one JSON line per run, under the key of the
core's frozen behaviour; what stands there already is not run again. Each run is a fork of one primed mesh.
Source: kinship 0.4.0, docs/results (200 seeds per cell, the same loss and starved shares).
"""

import argparse
import gc
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gossipmesh.gossip.base.effects import MemberChanged, Notify
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.simulator.faults import Loss
from gossipmesh.testing.simulator.forks import in_forks
from gossipmesh.testing.simulator.frozen_list import frozen_key
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.invariants import Invariants
from gossipmesh.testing.simulator.priming import boot_known, reseed
from gossipmesh.testing.simulator.run import Run
from gossipmesh.testing.simulator.trace import Trace
from gossipmesh.testing.simulator.world import SimulationFailure, World
from gossipmesh.trust.keys import Verifier

CRASH_NS: Final = 60 * SECOND_NS
END_NS: Final = 120 * SECOND_NS
BYTES_FROM_NS: Final = 20 * SECOND_NS
LATE_NS: Final = (500 * MILLISECOND_NS, 2_500 * MILLISECOND_NS)
STARVED_COUNTS: Final = {(50, 5.0): 3}  # kinship rounds 2.5 of 50 up


class Cell(msgspec.Struct, frozen=True):
    """One place in the grid; loss and starved in percent."""

    nodes: int
    loss: float
    starved: float
    stamped: bool
    detector: str

    @property
    def starved_count(self) -> int:
        """Return how many nodes starve."""
        if not self.starved:
            return 0
        return STARVED_COUNTS.get((self.nodes, self.starved), max(1, round(self.nodes * self.starved / 100)))


class Outcome(msgspec.Struct):
    """What one run showed; `seen_s` are the seconds from the crash to each node's knowing it."""

    nodes: int
    loss: float
    starved: float
    stamped: bool
    detector: str
    seed: int
    core: str
    seen_s: list[float]
    unseen: int
    false_deaths: dict[str, float]
    starved_names: list[str]
    false_doubts: int
    bytes_per_s: float
    events: int
    failure: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Return what a run is kept under."""
        return (self.nodes, self.loss, self.starved, self.stamped, self.detector, self.seed, self.core)


class _Watch(Invariants):
    """The invariants, counting false deaths, and when each node held the victim dead."""

    def __init__(self) -> None:
        super().__init__(grace_ns=SECOND_NS)
        self.counts_deaths = True
        self.expects_convergence = False
        self.victim = ""
        self.seen_ns: dict[str, int] = {}
        self.suspected: set[tuple[str, Any]] = set()

    def notified(self, world: World, host: Host, effect: Notify) -> None:
        """Note the victim's death and, of SWIM, who is suspected in which incarnation."""
        event = effect.event
        if isinstance(event, MemberChanged) and event.name == self.victim:
            if event.status is MemberStatus.DEAD:
                self.seen_ns.setdefault(host.name, world.now_ns)
            return
        if isinstance(event, MemberChanged) and event.status is MemberStatus.SUSPECT:
            subject = world.hosts[event.name]
            order = None if subject.core is None else subject.core.own_state.order
            self.suspected.add((event.name, order))
        super().notified(world, host, effect)


def primed(nodes_count: int, detector: str, trace: Trace | None = None) -> Run:
    """Return a mesh at rest that every run of a grid begins with."""
    run = Run(
        0,
        nodes_count=nodes_count,
        loss_ratio=0,
        verifier=Verifier(1_000_000),
        trace=trace,
        detector=detector,
    )
    run.invariants = run.world.observer = _Watch()
    run.invariants.expects_equal_views = run.votes
    boot_known(run)
    return run


def play(run: Run, cell: Cell, seed: int, core: str) -> Outcome:
    """Play one run of a cell on a primed mesh, which is used up by it."""
    watch, world = run.invariants, run.world
    assert isinstance(watch, _Watch)
    reseed(run, f"grid/{seed}")
    if cell.loss:
        world.network.add_rule(Loss("loss", cell.loss / 100))
    chosen = run.sample(cell.starved_count + 1)
    victim, starved = chosen[-1], chosen[:-1]
    for host in starved:
        world.starve(host, LATE_NS, is_stamped=cell.stamped)
    watch.victim = victim.name
    began_ns = world.now_ns
    failure, rate, doubts = "", 0.0, 0
    try:
        world.run_until(began_ns + BYTES_FROM_NS)
        before = world.datagram_bytes
        world.run_until(began_ns + CRASH_NS)
        rate = (world.datagram_bytes - before) * SECOND_NS / (CRASH_NS - BYTES_FROM_NS) / cell.nodes
        doubts = _doubts(run)
        world.kill_node(victim)
        world.run_until(began_ns + END_NS)
        doubts += max(0, _doubts(run) - doubts - _votes_against(run, victim))
    except SimulationFailure as problem:
        failure = str(problem)
    crashed_ns = began_ns + CRASH_NS
    seen_s = sorted(round((at_ns - crashed_ns) / SECOND_NS, 3) for at_ns in watch.seen_ns.values())
    return Outcome(
        **msgspec.structs.asdict(cell),
        seed=seed,
        core=core,
        seen_s=seen_s,
        unseen=cell.nodes - 1 - len(seen_s),
        false_deaths={n: round((at - began_ns) / SECOND_NS, 1) for n, at in watch.false_deaths.items()},
        starved_names=[host.name for host in starved],
        false_doubts=doubts,
        bytes_per_s=round(rate, 1),
        events=world.events_count,
        failure=failure,
    )


def _doubts(run: Run) -> int:
    """Return how often somebody was suspected (SWIM) or a monitor began to vote (monitors)."""
    watch = run.invariants
    assert isinstance(watch, _Watch)
    if not run.votes:
        return len(watch.suspected)
    return sum(run.core(host).statistics().votes_cast for host in run.hosts if host.core is not None)


def _votes_against(run: Run, victim: Host) -> int:
    """Return how many monitors voted against the victim, by their own journals."""
    if not run.votes:
        return 0
    keys = run.domain.node(victim.name, generation=victim.generation)
    return sum(
        sum(entry.kind == "vote-sent" for entry in run.core(host).history(keys.node_id))
        for host in run.hosts
        if host.core is not None
    )


# -- keeping and summing up ---------------------------------------------------------------------


def read_outcomes(path: Path) -> list[Outcome]:
    """Return the runs a file holds; a last line cut short is left out."""
    outcomes = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            outcomes.append(msgspec.json.decode(line, type=Outcome))
        except msgspec.DecodeError:
            continue
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return one row per cell and detector, in the order of the grid."""
    cells: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        cells.setdefault(outcome.key[:5], []).append(outcome)
    rows = []
    for key in sorted(cells):
        runs = cells[key]
        every = sorted(seconds for run in runs for seconds in run.seen_s)
        first = sorted(run.seen_s[0] for run in runs if run.seen_s)
        deaths = [name in run.starved_names for run in runs for name in run.false_deaths]
        rows.append(
            dict(zip(("nodes", "loss", "starved", "stamped", "detector"), key, strict=True))
            | {
                "runs": len(runs),
                "bad_runs": sum(bool(run.false_deaths) for run in runs),
                "false_deaths": len(deaths),
                "of_starved": sum(deaths),
                "failures": sum(bool(run.failure) for run in runs),
                "unseen": sum(run.unseen for run in runs),
                "first_s": _quantiles(first),
                "every_s": _quantiles(every),
                "false_doubts": round(sum(run.false_doubts for run in runs) / len(runs), 2),
                "bytes_per_s": round(sum(run.bytes_per_s for run in runs) / len(runs)),
            }
        )
    return rows


def _quantiles(values: list[float]) -> list[float]:
    """Return p50, p99 and the greatest of sorted values."""
    if not values:
        return []
    return [values[len(values) // 2], values[min(len(values) - 1, len(values) * 99 // 100)], values[-1]]


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the rows as a Markdown table."""
    yield (
        "| nodes | starved % | loss % | stamps | detector | runs | bad runs | first p50/p99/max s "
        "| every p50/p99/max s | unseen | doubts/run | B/s |"
    )
    yield "|" + "---|" * 12
    for row in rows:
        first, every = ("/".join(f"{value:.2f}" for value in row[name]) for name in ("first_s", "every_s"))
        place = (f"{row[name]:g}" for name in ("nodes", "starved", "loss", "stamped"))
        yield (
            f"| {' | '.join(place)} | {row['detector']} | {row['runs']} | {row['bad_runs']} | {first} "
            f"| {every} | {row['unseen']} | {row['false_doubts']} | {row['bytes_per_s']} |"
        )


# -- the command ----------------------------------------------------------------------------------


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _range(text: str) -> range:
    first, dash, last = text.partition("-")
    return range(int(first), int(last if dash else first) + 1)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m gossipmesh.testing.simulator grid",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--seeds", type=_range, default=range(20), metavar="A-B")
    parser.add_argument("--detector", choices=["monitors", "swim"], default="monitors")
    parser.add_argument("--loss", type=_numbers, default=[1.0, 3.0, 5.0], help="percent, by commas")
    parser.add_argument("--starved", type=_numbers, default=[0.0, 1.0, 5.0, 10.0], help="percent, by commas")
    parser.add_argument("--stamps", type=int, choices=[0, 1], default=1, help="kernel arrival stamps")
    parser.add_argument("--out", type=Path, default=Path("out/grid.jsonl"))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object")
    parser.add_argument("--summary", action="store_true", help="run nothing, sum up what is there")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Run what is missing, print the summary of this core; exit 1 when somebody died for nothing."""
    arguments = _arguments(words)
    core = frozen_key()
    known = {outcome.key for outcome in read_outcomes(arguments.out)}
    cells = [
        Cell(arguments.nodes, loss, starved, bool(arguments.stamps), arguments.detector)
        for starved in arguments.starved
        for loss in arguments.loss
    ]
    missing = [
        (cell, seed)
        for seed in arguments.seeds
        for cell in cells
        if (*msgspec.structs.astuple(cell), seed, core) not in known
    ]
    if missing and not arguments.summary:
        _run_all(arguments, missing, core)
    rows = summary([outcome for outcome in read_outcomes(arguments.out) if outcome.core == core])
    if arguments.json:
        print(json.dumps({"core": core, "rows": rows}))  # noqa: T201
    else:
        print("\n".join([f"core {core}", "", *table(rows)]))  # noqa: T201
    return 1 if any(row["detector"] == "monitors" and row["bad_runs"] for row in rows) else 0


def _run_all(arguments: argparse.Namespace, missing: list[tuple[Cell, int]], core: str) -> None:
    """Fork the primed mesh once per run, `--jobs` at a time, and append each outcome as it comes."""
    gc.disable()  # a world makes few cycles and many objects; each fork ends with its run
    mesh = primed(arguments.nodes, arguments.detector)

    def tell(task: tuple[Cell, int]) -> bytes:
        return msgspec.json.encode(play(mesh, *task, core))

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("ab", buffering=0) as out:
        for _, line in in_forks(tell, missing, arguments.jobs):
            if line is None:
                raise SystemExit("a run of the grid ended without an outcome")
            out.write(line + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
