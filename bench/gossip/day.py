"""Simulated days of a mesh: every virtual figure that one world can give, from the real cores.

`python -m bench.gossip.day --nodes 100 --out FILE '{"loss": 0.01, "seed": 1, "chapters": ["silent"]}' ...`
appends one JSON object a day to FILE, under the key of the core's behaviour. The mesh knows itself from the
start and each day is a fork of it; a day that begins with `join` is a mesh of its own. What a chapter could
not show stands in `failures`; the chapters after it are then left out.
"""

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.gossip.chapters import CHAPTERS
from bench.gossip.diary import Day
from gossipmesh.net.clock import process_cpu_s
from gossipmesh.testing.simulator.faults import Loss
from gossipmesh.testing.simulator.forks import in_forks
from gossipmesh.testing.simulator.frozen_list import frozen_key
from gossipmesh.testing.simulator.priming import boot_known, reseed
from gossipmesh.testing.simulator.world import SimulationFailure

JOIN = "join"


class Tale(msgspec.Struct, frozen=True):
    """What happens in a day: the share of datagrams that is lost, the seed, and its chapters in order."""

    loss: float
    seed: int
    chapters: tuple[str, ...]


def primed(nodes_count: int, detector: str | None) -> Day:
    """Return a mesh at rest that knows itself, and loses nothing yet."""
    day = Day(nodes_count, 0, 0, detector)
    boot_known(day.run)
    day.rest(5)
    return day


def live(day: Day, chapters: Sequence[str]) -> dict[str, Any]:
    """Go through the chapters; return figures, failures and what it cost."""
    failures: list[str] = []
    world = day.run.world
    began_s, began_ns, before = process_cpu_s(), world.now_ns, world.events_count
    for name in chapters:
        try:
            CHAPTERS[name](day)
        except SimulationFailure as failure:
            failures.append(f"{name}: {failure}")
            break
    cpu_s = process_cpu_s() - began_s
    events = world.events_count - before
    return {
        "figures": day.figures,
        "failures": failures,
        "others_dead": day.others_dead[:5],
        "virtual_s": round((world.now_ns - began_ns) / 1e9, 1),
        "events": events,
        "events_per_s": round(events / max(cpu_s, 0.001)),
        "cpu_s": round(cpu_s, 1),
    }


def tell(mesh: Day | None, tale: Tale, nodes_count: int, detector: str | None) -> dict[str, Any]:
    """Live one day, on a primed mesh, which is used up by it, or on one that is about to begin."""
    if mesh is None:
        return live(Day(nodes_count, tale.loss, tale.seed, detector), tale.chapters)
    reseed(mesh.run, f"day/{tale.seed}")
    if tale.loss:
        mesh.run.world.network.add_rule(Loss("loss", tale.loss))
    return live(mesh, tale.chapters)


def read_tale(text: str) -> Tale:
    """Read a day's plan off the command line."""
    try:
        tale = msgspec.json.decode(text, type=Tale)
    except msgspec.DecodeError as error:
        raise argparse.ArgumentTypeError(f"{text} is no day: {error}") from None
    unknown = [name for name in tale.chapters if name not in CHAPTERS]
    if unknown or not tale.chapters:
        known = ", ".join(sorted(CHAPTERS))
        raise argparse.ArgumentTypeError(f"{text}: there is no chapter {unknown}; there are {known}")
    return tale


def main(words: Sequence[str] | None = None) -> int:
    """Live the days one after the other and append what they showed."""
    parser = argparse.ArgumentParser(prog="python -m bench.gossip.day", description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--detector", help="instead of the default")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "tales", nargs="+", type=read_tale, metavar="TALE", help="a JSON object: loss, seed, chapters"
    )
    options = parser.parse_args(words)
    tales: list[Tale] = options.tales
    gc.disable()  # a world makes few cycles and many objects; each fork ends with its day
    core = frozen_key()
    joining = [tale for tale in tales if tale.chapters[0] == JOIN]
    mesh = primed(options.nodes, options.detector) if len(joining) < len(tales) else None

    def in_fork(tale: Tale) -> bytes:
        given = None if tale.chapters[0] == JOIN else mesh
        told = {"nodes": options.nodes, "detector": options.detector, "core": core}
        told |= msgspec.to_builtins(tale) | tell(given, tale, options.nodes, options.detector)
        return json.dumps(told).encode()

    options.out.parent.mkdir(parents=True, exist_ok=True)
    ended_badly = False
    with options.out.open("ab", buffering=0) as out:
        for tale, line in in_forks(in_fork, tales, 1):
            if line is None:
                ended_badly = True
                print(f"{tale} ended without a word", file=sys.stderr)
                continue
            out.write(line + b"\n")
    return 1 if ended_badly else 0


if __name__ == "__main__":
    sys.exit(main())
