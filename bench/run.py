"""A mesh at rest, policies and snapshots, measured: `python -m bench.run [--only PART]... [--json]`."""

import argparse
import compileall
import json
import os
import platform
import sys
from typing import Any

import trio

from bench.compile import measure_compile
from bench.mesh import measure_mesh

PARTS = {"mesh": measure_mesh, "compile": measure_compile}


def main() -> int:
    """Measure the parts asked for; `--json` prints one object at the end and nothing else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="measure this part only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    # An installed package has its bytecode; compiling at each start would count as memory of every process.
    compileall.compile_dir("gossipmesh", quiet=1)
    results: dict[str, Any] = {"machine": machine()}
    say(f"machine: {results['machine']}")
    for part in options.only or PARTS:
        results[part] = trio.run(PARTS[part], say)
    for line in verdicts(results):
        say(line)
    if options.json:
        print(json.dumps(results, indent=2))
    return 0


def machine() -> str:
    """Say what this ran on, because figures of two machines are never compared."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, {sys.version.split()[0]}"
    )


def verdicts(results: dict[str, Any]) -> list[str]:
    """Hold the figures against the project's aims, in words."""
    lines = []
    if "mesh" in results:
        idle, pushes = results["mesh"]["idle"], results["mesh"]["pushes"]
        together = idle["agent"]["cpu_percent"] + idle["engine"]["cpu_percent"]
        lines += [
            verdict("agent RSS, MB", idle["agent"]["rss_mb"], 50),
            verdict("engine RSS, MB", idle["engine"]["rss_mb"], 32),
            verdict("idle CPU of both, % of a core", together, 1),
            verdict("policy on all five, median s", pushes["offered_median_s"], 0.5),
        ]
    return lines


def verdict(what: str, figure: float, aim: float) -> str:
    """Return one line: the figure, the aim, and whether it was met."""
    return f"{what}: {figure:.2f}, aim {aim:g}: {'met' if figure <= aim else 'MISSED'}"


if __name__ == "__main__":
    sys.exit(main())
