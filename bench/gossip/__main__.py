"""Gossip beside its peers: `python -m bench.gossip [--only PART]... [--rounds N] [--json]`.

Parts: join (always made, it is how a group starts), idle, kill, silent, pause; virtual (simulated days),
stories (the simulator's scenarios), grid (kinship's), elsewhere (other commands). Days, scenarios and grid
are kept under out/ by the key of the core's behaviour, beginning with what docs/evidence holds, and what is
missing is run: all of it takes `--only virtual --virtual-minutes 300`. Needs root: every node lives in a
network namespace of its own, all of them inside a private one that vanishes with this process. `--docs`
writes docs/BENCHMARKS.md from the figures, and the lines behind it to docs/evidence; `--render FILE` does so
from an earlier run's JSON and measures nothing; `--keep FILE` takes over the parts that are not measured now.
The page says of which behaviour each part is.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trio

from bench.gossip.elsewhere import measure_elsewhere
from bench.gossip.field import Field
from bench.gossip.group import Group
from bench.gossip.kept import cores_told, publish, recall
from bench.gossip.ours import OurGroup
from bench.gossip.peers import KinshipGroup, SerfGroup, install_kinship, serf_problem
from bench.gossip.report import render, verdict
from bench.gossip.row import OURS
from bench.gossip.rows import build_rows
from bench.gossip.stories import measure_grid, measure_stories
from bench.gossip.virtual import measure_virtual
from bench.gossip.wall import Budget, measure_group, measure_join
from bench.run import machine
from gossipmesh.testing.namespaces import enter_private_network, is_inside
from gossipmesh.testing.processes import ProcessKeeper
from gossipmesh.testing.simulator.frozen_list import frozen_key
from gossipmesh.testing.waiting import WaitedInVain

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DOCS: Final = ROOT / "docs" / "BENCHMARKS.md"
RESULTS: Final = ROOT / "out" / "bench-gossip.json"
PARTS: Final = ("join", "idle", "kill", "silent", "pause", "virtual", "stories", "grid", "elsewhere")
WALL_PARTS: Final = PARTS[:5]
GROUPS: Final[dict[str, type[Group]]] = {"gossipmesh": OurGroup, "serf": SerfGroup, "kinship": KinshipGroup}
PROBLEMS_VARIABLE: Final = "GOSSIPMESH_BENCH_PROBLEMS"


def main(words: Sequence[str] | None = None) -> int:
    """Measure, or render what was measured; with --json the last line is the verdict as one object."""
    given = list(sys.argv[1:] if words is None else words)
    options = arguments(given)
    if options.render is not None:
        return finish(options.render, options)
    parts = options.only or PARTS
    groups = options.group or list(GROUPS)
    results = begin(options)
    recall()
    if any(part in WALL_PARTS for part in parts):
        if not is_inside():
            # The private network has no way out, so what must be fetched is fetched before entering it.
            problems = {"serf": serf_problem(), "kinship": install_kinship()}
            os.environ[PROBLEMS_VARIABLE] = json.dumps({k: v for k, v in problems.items() if v})
        enter_private_network(["-m", "bench.gossip", *given])
        results["problems"] = json.loads(os.environ.get(PROBLEMS_VARIABLE, "{}"))
        wanted = [name for name in groups if name not in results["problems"]]
        results["groups"], results["cores"]["wall clock"] = {}, frozen_key()
        trio.run(measure_groups, results, wanted, list(parts), options)
    if "virtual" in parts:
        results["virtual"] = measure_virtual(options.virtual_minutes, say)
        results["cores"]["simulated days"] = cores_told(results["virtual"]["days"])
    if "stories" in parts:
        results["stories"] = measure_stories(options.story_minutes, say)
        results["cores"]["scenarios"] = cores_told(results["stories"])
    if "grid" in parts:
        results["grid"] = measure_grid(options.grid_minutes, say)
        results["cores"]["grid"] = frozen_key()
    if "elsewhere" in parts:
        results["elsewhere"] = measure_elsewhere(say)
        results["cores"]["memory and attacks"] = frozen_key()
    save(results)
    say(f"raw figures: {RESULTS}")
    return finish(results, options)


def save(results: dict[str, Any]) -> None:
    """Write what was measured so far."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def begin(options: argparse.Namespace) -> dict[str, Any]:
    """Return results to fill: empty, or those of an earlier run whose parts this one replaces."""
    results: dict[str, Any] = {"groups": {}, "problems": {}, "virtual": {}, "cores": {}}
    if options.keep is not None:
        results |= options.keep
    return results | {"machine": machine(), "nodes": options.nodes}


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gossip", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="this part only; repeat for more")
    parser.add_argument("--group", action="append", choices=list(GROUPS), help="only this group")
    parser.add_argument("--nodes", type=int, default=40, help="nodes of each group")
    parser.add_argument("--joins", type=at_least_one, default=3, help="join storms of each group")
    parser.add_argument("--rounds", type=int, default=10, help="kills, and silences, of each group")
    parser.add_argument("--peer-rounds", type=int, help="the same of the peers (default: as many)")
    parser.add_argument("--minutes", type=float, default=6.0, help="no kill or silence begins later")
    parser.add_argument(
        "--virtual-minutes", type=float, default=4.0, help="days end by then; all of them take hours"
    )
    parser.add_argument("--story-minutes", type=float, default=2.0, help="no scenario begins later")
    parser.add_argument("--grid-minutes", type=float, default=3.0, help="the grid adds no run later")
    parser.add_argument(
        "--keep", type=earlier_results, metavar="FILE", help="an earlier run's figures of other parts"
    )
    parser.add_argument("--docs", action="store_true", help="write docs/BENCHMARKS.md")
    parser.add_argument("--render", type=earlier_results, metavar="FILE", help="take the figures from FILE")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser.parse_args(words)


def at_least_one(text: str) -> int:
    """Read a count that none would make meaningless."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def earlier_results(text: str) -> dict[str, Any]:
    """Read the raw figures that an earlier run left, as out/bench-gossip.json holds them."""
    try:
        told = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"{text} cannot be read as an earlier run's figures: {error}"
        ) from None
    if not isinstance(told, dict) or "groups" not in told:
        raise argparse.ArgumentTypeError(
            f"{text} holds no figures of an earlier run (out/bench-gossip.json does)"
        )
    return told


def finish(results: dict[str, Any], options: argparse.Namespace) -> int:
    """Judge, print and, when asked, write the page."""
    rows = build_rows(results)
    for row in rows:
        say(row.line())
    if options.docs:
        DOCS.write_text(render(results, rows), encoding="utf-8")
        publish(frozen_key())
        say(f"written: {DOCS}")
    if options.json:
        print(json.dumps(verdict(rows)))
    return 0


async def measure_groups(
    results: dict[str, Any], names: list[str], parts: list[str], options: argparse.Namespace
) -> None:
    """Measure one kind of group after the other on one field."""
    with tempfile.TemporaryDirectory(prefix="gossipmesh-bench-") as folder:
        keeper = ProcessKeeper(Path(folder))
        try:
            field = Field(keeper, options.nodes)
            for name in names:
                try:
                    await measure_kind(results, name, field, Path(folder), parts, options)
                except Exception as error:
                    results["problems"][name] = f"{type(error).__name__}: {error}"
                    say(f"{name}: {results['problems'][name]}")
                save(results)
        finally:
            keeper.close()


async def measure_kind(
    results: dict[str, Any],
    name: str,
    field: Field,
    folder: Path,
    parts: list[str],
    options: argparse.Namespace,
) -> None:
    """Let groups of one kind join, one after the other; the last of them is measured further."""
    rounds_count = options.rounds if name == OURS else options.peer_rounds or options.rounds
    raw = results["groups"][name] = {"nodes": options.nodes}
    for number in range(1, options.joins + 1):
        directory = folder / f"{name}-{number}"
        directory.mkdir()
        group = GROUPS[name](field, directory)
        raw["version"] = group.version
        try:
            whole = await measure_join(group, say, raw)
            if number == options.joins:
                if not whole:
                    raise WaitedInVain("the last group did not become whole; nothing more is measured of it")
                await measure_group(group, parts, rounds_count, Budget(options.minutes * 60), say, raw)
        finally:
            group.close()


def say(line: str) -> None:
    """Print progress, where it cannot be mistaken for the verdict."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted: what was started is ended; figures of groups that were done are in out/")
        sys.exit(130)
