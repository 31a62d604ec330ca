"""Figures that other commands of this project show, asked in the same run: memory and the named attacks."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
MEMORY_TIMEOUT_S: Final = 150.0
TESTS_TIMEOUT_S: Final = 120.0
MEMBERS: Final = 9_998
AGENT_MEMBERS: Final = 10_000
RECORDS_BYTES_MAX: Final = 3_000
STALL_MS_MAX: Final = 20
CHAOS_TIMEOUT_S: Final = 200.0
CHAOS: Final = {"upgrade": "upgrade-all", "crash": "crash-all-agents"}
ATTACKS: Final = "tests/simulation/test_byzantine*.py"
STRANGERS: Final = "tests/unit/gossip/test_strangers.py"

Told = dict[str, Any]


def measure_elsewhere(say: Callable[[str], None]) -> dict[str, Told]:
    """Run the commands; return key -> {ours, met, evidence}, without the keys that gave nothing."""
    found: dict[str, Told] = {}
    printed = _output(["-m", "bench.gossip_memory", str(MEMBERS)], MEMORY_TIMEOUT_S)
    if printed is not None:
        found |= read_memory(printed)
    printed = _output(["-m", "bench.agent_memory", str(AGENT_MEMBERS), "--json"], MEMORY_TIMEOUT_S)
    if printed is not None:
        found |= read_agent(printed)
    for key, pattern in (("attacks", ATTACKS), ("strangers", STRANGERS)):
        paths = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
        if paths:
            printed = _output(["-m", "pytest", "-q", "-p", "no:cacheprovider", *paths], TESTS_TIMEOUT_S)
            if printed is not None:
                found[key] = read_tests(printed, pattern)
    for key, name in CHAOS.items():
        printed = _output(["-m", "chaos.run", name, "--backend", "process", "--json"], CHAOS_TIMEOUT_S)
        if printed is not None:
            found[key] = read_chaos(printed, name)
    for key, told in found.items():
        say(f"elsewhere: {key}: {told['ours']}")
    return found


def read_memory(printed: str) -> dict[str, Told]:
    """Read the object that `bench.gossip_memory` prints."""
    told = json.loads(printed[printed.index("{") :])
    where = f"`python -m bench.gossip_memory {MEMBERS}`: a real core joins by a real core, in virtual time"
    return {
        "memory": {
            "ours": (
                f"{told['members']:,} members: {told['rss_mb']:.0f} MB RSS, peak {told['rss_peak_mb']:.0f}; "
                f"{told['bytes_per_member']:,} B a member, {told['records_bytes']} B of it signed records"
            ),
            "met": told["rss_peak_mb"] <= 75 and told["bytes_per_member"] <= 3_072,
            "evidence": f"{where}; the core alone, without the agent's servers",
        },
        "joining": {
            "ours": f"{told['cpu_s']:.1f} s CPU, longest step {told['step_ms_max']:.1f} ms",
            "met": told["step_ms_max"] <= 20 and told["cpu_s"] <= 3,
            "evidence": f"{where}; {told['steps']:,} steps, {told['steps_over_5_ms']} over 5 ms",
        },
    }


def read_agent(printed: str) -> dict[str, Told]:
    """Read the object that `bench.agent_memory` ends with."""
    told = json.loads(printed.strip().splitlines()[-1])
    where = f"`python -m bench.agent_memory {AGENT_MEMBERS}`: a real agent and its engine, a synthetic peer"
    lean = told["peak_mb"] <= 75 and told["record_bytes"] <= RECORDS_BYTES_MAX
    return {
        "agent-memory": {
            "ours": (
                f"{told['members']:,} members: {told['rss_mb']:.0f} MB RSS at rest, "
                f"peak {told['peak_mb']:.0f} ({told['rss_alone_mb']:.0f} alone); "
                f"{told['bytes_per_member']:,} B a member, "
                f"{told['record_bytes']} B of it signed records"
            ),
            "met": lean,
            "evidence": f"{where}; also after all its lists were read and its metrics scraped",
        },
        "agent-joining": {
            "ours": (
                f"{told['join_s']:.1f} s, {told['join_cpu_s']:.1f} s CPU; longest hold of the loop by its "
                f"own CPU {told['longest_busy_ms']:.0f} ms ({told['longest_busy_task']}), by the clock "
                f"{told['longest_ms']:.0f} ms"
            ),
            "met": told["busy_stalls"] == 0 and told["longest_busy_ms"] <= STALL_MS_MAX,
            "evidence": f"{where}; load average {told['load']}: the clock also counts others' turns",
        },
    }


def read_chaos(printed: str, name: str) -> Told:
    """Read the object that a chaos scenario prints at its end."""
    told = json.loads(printed[printed.index("{") :])
    wrong = [problem for check in told["checks"] for problem in check["problems"][:1]]
    requests = told["evidence"]["requests"]
    failed = f"{requests['failed']} of {requests['sent']:,} requests failed"
    return {
        "ours": f"{len(told['checks']) - len(wrong)} of {len(told['checks'])} checks hold, {failed}"
        + "".join(f"; {problem}" for problem in wrong),
        "met": told["ok"],
        "evidence": f"`python -m chaos.run {name}`: five real agents and engines; seed {told['seed']}",
    }


def read_tests(printed: str, path: str) -> Told:
    """Read pytest's last line."""
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", printed)}
    passed, bad = counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0)
    return {
        "ours": f"{passed} named tests hold, {bad} do not",
        "met": passed > 0 and not bad,
        "evidence": f"`{path}`",
    }


def _output(words: Sequence[str], timeout_s: float) -> str | None:
    try:
        found = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return None
    return found.stdout if "{" in found.stdout or " passed" in found.stdout else None
