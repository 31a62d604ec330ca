"""The freeze of the core's behaviour: `python -m gossipmesh.testing.frozen [--quick] [--jobs N]`.

Plays every run of the frozen list (`simulator/frozen_list.py`) in a process of its own and compares the
digest of its whole trace with the committed one. Prints a line for each that differs, and exits 1 if any
does. `--update` writes what was found into the list: a change of behaviour, which an ADR explains
(docs/TESTING.md). `--trace FILE` writes one run's trace as text; `--against COMMIT` plays it by another
state of this repository as well and prints where the two traces part.
"""

import argparse
import fnmatch
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from gossipmesh.testing.simulator.__main__ import VERDICTS_MAX, run_seed
from gossipmesh.testing.simulator.forks import in_forks
from gossipmesh.testing.simulator.frozen_list import GRID, Entry, key_of, read_list, write_list
from gossipmesh.testing.simulator.grid import Cell, play, primed
from gossipmesh.testing.simulator.trace import Trace
from gossipmesh.trust.keys import Verifier

ROOT: Final = Path(__file__).resolve().parent.parent.parent
LINES_BEFORE: Final = 5  # of context, where two traces part


class Played(msgspec.Struct):
    """What a run of an entry showed: its digest, how many lines, and what a scenario found wrong."""

    name: str
    expected: str
    digest: str
    lines: int
    failures: list[str]

    @property
    def is_equal(self) -> bool:
        """Tell whether it went as the list has it."""
        return self.digest == self.expected and not self.failures

    def told(self) -> str:
        """Return a line for a person: which, what was expected, what came, how to look."""
        if self.failures:
            return f"{self.name}: FAILED: {'; '.join(self.failures)}"
        return (
            f"{self.name}: differs: expected {self.expected or 'nothing yet'}, got {self.digest} "
            f"({self.lines} lines); the first line that differs: "
            f"python -m gossipmesh.testing.frozen --only '{self.name}' --against main"
        )


def play_entry(entry: Entry, out: TextIO | None = None) -> Played:
    """Play one run of the list from nothing; `out` gets its trace as text."""
    trace = Trace(None if out is None else partial(print, end="", file=out))
    if entry.story == GRID:
        mesh = primed(entry.nodes, entry.detector, trace)
        cell = Cell(entry.nodes, entry.loss, entry.starved, entry.stamped, entry.detector)
        failure = play(mesh, cell, entry.seed, "").failure
        mesh.world.record_ends()
        failures = [failure] if failure else []
    else:
        result = run_seed(
            entry.story,
            entry.seed,
            nodes_count=entry.nodes,
            loss_ratio=entry.loss / 100,
            verifier=Verifier(VERDICTS_MAX),
            trace=trace,
            detector=entry.detector,
        )
        failures = result["failures"]
    return Played(entry.name, entry.digest, trace.digest(), trace.lines_count, failures)


def play_all(entries: Sequence[Entry], jobs: int) -> Iterator[tuple[Entry, Played]]:
    """Play runs in forks, `jobs` at a time, the longest first; yield each as it ends."""

    def tell(entry: Entry) -> bytes:
        gc.disable()  # a world makes few cycles and many objects; each fork ends with its run
        return msgspec.json.encode(play_entry(entry))

    for entry, line in in_forks(tell, sorted(entries, key=lambda entry: -entry.lines), jobs):
        if line is None:
            yield entry, Played(entry.name, entry.digest, "", 0, ["it ended without an outcome"])
        else:
            yield entry, msgspec.json.decode(line, type=Played)


# -- where two traces part ----------------------------------------------------------------------------


def first_difference(older: Path, newer: Path) -> list[str]:
    """Return the lines for a person that say where two traces part; empty when they are equal."""
    before: list[str] = []
    with older.open(encoding="utf-8") as old, newer.open(encoding="utf-8") as new:
        for number, (one, other) in enumerate(zip_longest(old, new), 1):
            if one == other:
                before = [*before[1 - LINES_BEFORE :], f"  {one}".rstrip()]
                continue
            pair = (("-", one), ("+", other))
            ends = [f"{mark} {line or '(no more lines)'}".rstrip() for mark, line in pair]
            return [f"line {number} is the first that differs:", *before, *ends]
    return []


def part_from(entry: Entry, commit: str) -> list[str]:
    """Play an entry by this tree and by `commit`, checked out aside, and say where the traces part."""
    with tempfile.TemporaryDirectory(prefix="gossipmesh-frozen-") as name:
        folder = Path(name)
        with (folder / "new").open("w", encoding="utf-8") as out:
            play_entry(entry, out)
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder / "tree"), commit], check=True)
        try:
            words = ["-m", "gossipmesh.testing.frozen", "--only", entry.name, "--trace", str(folder / "old")]
            subprocess.run([sys.executable, *words], cwd=folder / "tree", check=True)
        finally:
            subprocess.run([*git, "remove", "--force", str(folder / "tree")], check=True)
        return first_difference(folder / "old", folder / "new")


# -- the command --------------------------------------------------------------------------------------


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m gossipmesh.testing.frozen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a part that meets each kind of story")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="entries by name, such as 'steady/*'; may repeat"
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="default: one per CPU")
    parser.add_argument("--list", action="store_true", help="name the entries and play nothing")
    parser.add_argument("--json", action="store_true", help="all that was seen as one JSON object")
    parser.add_argument("--update", action="store_true", help="write what was found into the list")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write one entry's trace as text")
    parser.add_argument("--against", metavar="COMMIT", help="say where one entry's trace parts from COMMIT's")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Play what the command line asks for; return 0 when all went as the list has it."""
    arguments = _arguments(words)
    entries = read_list()
    chosen = _chosen(entries, arguments)
    if not chosen:
        _say("no entry of the list has such a name; --list names them all")
        return 2
    if arguments.list:
        _say("\n".join(entry.name for entry in chosen))
        return 0
    if arguments.trace or arguments.against:
        return _look_into(chosen, arguments)
    return _compare(entries, chosen, arguments)


def _chosen(entries: Sequence[Entry], arguments: argparse.Namespace) -> list[Entry]:
    patterns = arguments.only or ["*"]
    return [
        entry
        for entry in entries
        if (entry.quick or not arguments.quick)
        and any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in patterns)
    ]


def _look_into(chosen: Sequence[Entry], arguments: argparse.Namespace) -> int:
    if len(chosen) > 1:
        _say(f"{len(chosen)} entries are meant; give one by --only NAME")
        return 2
    if arguments.trace:
        with arguments.trace.open("w", encoding="utf-8") as out:
            play_entry(chosen[0], out)
        return 0
    try:
        lines = part_from(chosen[0], arguments.against)
    except (OSError, subprocess.CalledProcessError) as error:
        _say(f"{arguments.against} cannot play it, name a commit that has this command: {error}")
        return 2
    _say("\n".join(lines or ["the traces are equal"]))
    return 1 if lines else 0


def _compare(entries: Sequence[Entry], chosen: Sequence[Entry], arguments: argparse.Namespace) -> int:
    found: dict[str, Entry] = {}
    seen: list[Played] = []
    for entry, played in play_all(chosen, arguments.jobs):
        seen.append(played)
        if not played.failures:
            found[entry.name] = msgspec.structs.replace(entry, digest=played.digest, lines=played.lines)
        if not played.is_equal and not arguments.json:
            _say(played.told())
    is_ok = all(played.is_equal for played in seen)
    if arguments.update:
        write_list(found.get(entry.name, entry) for entry in entries)
        is_ok = not any(played.failures for played in seen)
    if arguments.json:
        _say(json.dumps(_evidence(is_ok, entries, seen)))
        return 0 if is_ok else 1
    differ = sum(not played.is_equal for played in seen)
    verb = "updated" if arguments.update else "differ"
    _say(f"{len(seen)} of {len(entries)} runs played, {differ} {verb}; list {key_of(read_list())}")
    return 0 if is_ok else 1


def _evidence(is_ok: bool, entries: Sequence[Entry], seen: Sequence[Played]) -> dict[str, Any]:
    runs = sorted((msgspec.to_builtins(played) for played in seen), key=lambda run: str(run["name"]))
    return {"ok": is_ok, "list": key_of(entries), "entries": len(entries), "runs": runs}


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        _say("interrupted: not all runs were played, and the list is as it was")
        sys.exit(130)
