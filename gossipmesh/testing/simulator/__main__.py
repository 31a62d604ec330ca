"""Run scenarios by seed: `python -m gossipmesh.testing.simulator steady --seeds 1-10 --nodes 30`.

Prints one line per seed (JSON with --json) and exits 1 when any failed, with the command that
replays the first failure. `replay FILE` instead does again what a flight recorder kept (`replay`), `record
FILE` makes such a file of a simulated mesh (`recorded`).
The trace's hash is the same for a seed under any PYTHONHASHSEED.
"""

import argparse
import gc
import json
import multiprocessing
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gossipmesh.model.instant import SECOND_NS
from gossipmesh.testing.simulator import grid, recorded, replay
from gossipmesh.testing.simulator.hardships import ON_REQUEST
from gossipmesh.testing.simulator.run import Run
from gossipmesh.testing.simulator.scenarios import SCENARIOS
from gossipmesh.testing.simulator.trace import Trace
from gossipmesh.testing.simulator.world import SimulationFailure
from gossipmesh.trust.keys import Verifier

VERDICTS_MAX = 1_000_000
_VERIFIER = Verifier(VERDICTS_MAX)
_Task = tuple[argparse.Namespace, str, int]


def run_seed(
    scenario: str,
    seed: int,
    *,
    nodes_count: int,
    loss_ratio: float,
    verifier: Verifier,
    trace: Trace | None = None,
    detector: str | None = None,
) -> dict[str, Any]:
    """Run one seed of a scenario and return what happened, `ok` derived from it.

    The collector rests meanwhile: a world makes few cycles and many objects, and looking through them
    again and again took a fifth of the time.
    """
    computed_before, remembered_before = verifier.computed_count, verifier.remembered_count
    run = Run(
        seed,
        nodes_count=nodes_count,
        loss_ratio=loss_ratio,
        verifier=verifier,
        trace=trace,
        detector=detector,
    )
    collects = gc.isenabled()
    gc.disable()
    try:
        failures, place = _play(scenario, run)
        run.world.record_ends()
        result = _report(scenario, run, failures, place)
    finally:
        if collects:
            gc.enable()
    result["checks_computed"] = verifier.computed_count - computed_before
    result["checks_remembered"] = verifier.remembered_count - remembered_before
    del run
    gc.collect()
    return result


def _play(scenario: str, run: Run) -> tuple[list[str], list[str]]:
    """Return what failed, and where in a core it was raised."""
    try:
        SCENARIOS[scenario](run)
        return run.invariants.final(run.world), []
    except SimulationFailure as failure:
        cause = failure.__cause__
        return [str(failure)], [] if cause is None else traceback.format_exception(cause)[-12:]


def _report(scenario: str, run: Run, failures: list[str], place: list[str]) -> dict[str, Any]:
    world = run.world
    convergences = run.invariants.convergences_ns
    nodes_count = len(run.hosts)
    return {
        "scenario": scenario,
        "seed": run.seed,
        "nodes": nodes_count,
        "ok": not failures,
        "failures": failures,
        "traceback": place,
        "virtual_s": round(world.now_ns / SECOND_NS, 1),
        "events": world.events_count,
        "datagrams": world.datagrams_count,
        "bytes_per_node_per_s": round(world.datagram_bytes * SECOND_NS / nodes_count / max(1, world.now_ns)),
        "equal_roots_s": round(convergences[-1] / SECOND_NS, 2) if convergences else None,
        "equal_roots_worst_s": round(max(convergences) / SECOND_NS, 2) if convergences else None,
        "measured": run.measured,
        "faults": world.faults.counts(),
        "trace": world.trace.digest(),
    }


def _seeds(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    seeds = list(range(int(first), int(last if dash else first) + 1))
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of seeds, such as 1-10")
    return seeds


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gossipmesh.testing.simulator", description=__doc__)
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument("--seeds", type=_seeds, default=[1], metavar="A-B")
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--loss", type=float, default=0.05, help="share of datagrams lost")
    parser.add_argument("--detector", choices=["monitors", "swim"], help="(default: monitors, the product)")
    parser.add_argument("--json", action="store_true", help="one JSON object per seed")
    parser.add_argument(
        "--jobs",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="seeds run at once, each in a process of its own with its own memo (default: one per CPU)",
    )
    parser.add_argument("--trace-file", type=Path, help="write the trace as text (one seed)")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    given = sys.argv[1:] if words is None else list(words)
    if given[:1] == ["replay"]:
        return replay.main(given[1:])
    if given[:1] == ["record"]:
        return recorded.main(given[1:])
    if given[:1] == ["grid"]:
        return grid.main(given[1:])
    arguments = _arguments(given)
    names = [arguments.scenario]
    if arguments.scenario == "all":
        names = [name for name in SCENARIOS if name not in ON_REQUEST]
    tasks = [(arguments, scenario, seed) for scenario in names for seed in arguments.seeds]
    failed: list[str] = []
    for result in _results(arguments.jobs, tasks):
        print(json.dumps(result) if arguments.json else _line(result), flush=True)  # noqa: T201
        if not result["ok"]:
            failed.append(_replay(arguments, result["scenario"], result["seed"]))
    for command in failed[:10]:
        print(f"replay: {command}", file=sys.stderr)  # noqa: T201
    return 1 if failed else 0


def _results(jobs: int, tasks: list[_Task]) -> Iterator[dict[str, Any]]:
    """Yield the results in order; with several jobs each process has a memo of its own."""
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        yield from map(_run_task, tasks)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(_run_task, tasks, chunksize=1)


def _run_task(task: _Task) -> dict[str, Any]:
    arguments, scenario, seed = task
    options = {
        "nodes_count": arguments.nodes,
        "loss_ratio": arguments.loss,
        "verifier": _VERIFIER,
        "detector": arguments.detector,
    }
    if arguments.trace_file is None:
        return run_seed(scenario, seed, **options)
    with arguments.trace_file.open("w", encoding="utf-8") as out:
        return run_seed(scenario, seed, trace=Trace(lambda line: out.write(line) and None), **options)


def _line(result: dict[str, Any]) -> str:
    verdict = "ok" if result["ok"] else "FAILED: " + "; ".join(result["failures"])
    text = (
        f"{result['scenario']} seed {result['seed']}: {verdict} ({result['nodes']} nodes, "
        f"{result['virtual_s']} s, {result['events']} events, equal roots after {result['equal_roots_s']} s, "
        f"worst {result['equal_roots_worst_s']} s, {result['measured']}, checks {result['checks_computed']} "
        f"computed and {result['checks_remembered']} remembered, trace {result['trace']})"
    )
    return text + ("\n" + "".join(result["traceback"]) if result["traceback"] else "")


def _replay(arguments: argparse.Namespace, scenario: str, seed: int) -> str:
    return (
        f"python -m gossipmesh.testing.simulator {scenario} --seeds {seed} "
        f"--nodes {arguments.nodes} --loss {arguments.loss}"
        + (f" --detector {arguments.detector}" if arguments.detector else "")
    )


if __name__ == "__main__":
    sys.exit(main())
