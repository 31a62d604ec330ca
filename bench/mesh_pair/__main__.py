"""Two hops with mTLS beside Envoy and HAProxy: `python -m bench.mesh_pair [--quick] [--only LOAD] [--json]`.

Each pair is two processes on one core: a near proxy that callers speak plainly to, and a far one before nginx
(66 bytes), TLS 1.3 with client certificates of P-256 and without resumption between them. Load and backend
have the other core. CPU is user and system time of both processes from /proc, divided by what was answered;
Envoy runs twice, with the features of a mesh (`envoy`) and without (`envoy_plain`). Everything is loopback.
The last line of --json is the verdict; compare within one run only.
"""

import argparse
import compileall
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from bench.mesh_pair.certificates import Authority
from bench.mesh_pair.envoy import envoy_pair
from bench.mesh_pair.ours import our_pair
from bench.mesh_pair.peers import backend, haproxy_pair, missing_programs, version_of
from bench.mesh_pair.places import Cores, Target, choose_cores, make_folder
from bench.mesh_pair.rounds import KINDS, Kind, Results, run_rounds
from bench.mesh_pair.verdict import verdict
from bench.run import machine
from gossipmesh.testing.interrupts import end_like_ctrl_c

ROUNDS: Final = 5
SECONDS: Final = 3.0
QUICK_ROUNDS: Final = 2
QUICK_SECONDS: Final = 1.0


def main(words: Sequence[str] | None = None) -> int:
    """Measure; 0 when all gates are met, 1 when one is missed, 2 when nothing could be measured."""
    options = arguments(words)
    cores, missing = choose_cores(), missing_programs()
    if missing:
        say(f"error: cannot compare, not installed: {', '.join(missing)}; `make bench` installs them")
        return 2
    if cores is None:
        say("error: cannot measure on one core: the proxies need one of their own")
        return 2
    # Everything started from here on is on the load's core, unless it is put elsewhere.
    os.sched_setaffinity(0, {cores.load})
    end_like_ctrl_c(signal.SIGTERM)
    # An installed package has its bytecode; compiling at each start would count as memory of every process.
    compileall.compile_dir("gossipmesh", quiet=1)
    kinds = [kind for kind in KINDS if not options.only or kind.key in options.only]
    told = trio.run(measured, cores, kinds, options)
    for line in lines(told):
        say(line)
    if options.json:
        print(json.dumps(told), flush=True)
    return 0 if told["ok"] else 1


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.mesh_pair", description=__doc__)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of short loads")
    parser.add_argument("--rounds", type=_count, help=f"rounds (default: {ROUNDS})")
    parser.add_argument(
        "--only",
        action="append",
        choices=[kind.key for kind in KINDS],
        help="this load only; repeat for more",
    )
    options = parser.parse_args(words)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 100")
    return int(text)


async def measured(cores: Cores, kinds: Sequence[Kind], options: argparse.Namespace) -> dict[str, Any]:
    """Start everything, run the rounds in a thread, return the verdict."""
    seconds = QUICK_SECONDS if options.quick else SECONDS
    with tempfile.TemporaryDirectory(prefix="mesh-pair-") as name:
        async with pairs(Path(name), cores) as targets:
            versions = {target.name: target.version for target in targets}
            about = {"machine": machine(), "rounds": options.rounds, "versions": versions}
            versions["nginx"] = version_of(["nginx", "-v"])
            versions["wrk"] = version_of(["wrk", "-v"])
            say(f"machine: {about['machine']}; {versions}; {options.rounds} rounds, {seconds:g} s a load")
            results: Results = await trio.to_thread.run_sync(
                run_rounds, targets, kinds, options.rounds, seconds, say
            )
    return verdict(results) | about


@contextlib.asynccontextmanager
async def pairs(folder: Path, cores: Cores) -> AsyncIterator[list[Target]]:
    """Run the backend and all four pairs."""
    authority = Authority()
    with contextlib.ExitStack() as held:
        held.enter_context(backend(make_folder(folder, "backend"), cores))
        peers = [
            held.enter_context(envoy_pair(make_folder(folder, name), authority, cores, name))
            for name in ("envoy", "envoy_plain")
        ]
        peers.append(held.enter_context(haproxy_pair(make_folder(folder, "haproxy"), authority, cores)))
        async with our_pair(make_folder(folder, "ours"), authority, cores) as ours:
            yield [ours, *peers]


def lines(told: dict[str, Any]) -> list[str]:
    """Return the verdict for people: a line a row and a line a gate."""
    words = []
    for row in told["rows"]:
        figures = {key: value for key, value in row.items() if value is not None}
        words.append("; ".join(f"{key} {value}" for key, value in figures.items()))
    for gate in told["gates"]:
        state = "met" if gate["met"] else "not measured" if gate["figure"] is None else "MISSED"
        figure = "" if gate["figure"] is None else f"{gate['figure']:.2f}, "
        words.append(f"{gate['name']}: {figure}bound {gate['bound']}: {state}")
    return words


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the errors of a group, those of groups in it included, in order."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def say(line: str) -> None:
    """Print progress, where it cannot be mistaken for the verdict."""
    print(line, file=sys.stderr, flush=True)


def run() -> int:
    """Run `main`; an interruption and what others do wrong are a sentence each."""
    try:
        return main()
    except (KeyboardInterrupt, RuntimeError, OSError, BaseExceptionGroup) as error:
        causes = leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        say("interrupted: what was started is ended")
        return 130
    foreign = [cause for cause in causes if not isinstance(cause, RuntimeError | OSError)]
    if foreign:
        raise foreign[0]
    say(f"error: {causes[0]}")
    return 2


if __name__ == "__main__":
    sys.exit(run())
