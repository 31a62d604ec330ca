"""Runs of chaos scenarios, as an operator starts them."""

import json
import re
import subprocess
import sys
from collections.abc import Set
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = ROOT / "chaos" / "scenarios"


def run_chaos(path: Path, seed: int) -> dict[str, Any]:
    arguments = [sys.executable, "-m", "chaos.run", str(path), "--backend", "process", "--seed", str(seed)]
    result = subprocess.run([*arguments, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert result.stdout, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    assert result.returncode == (0 if told["ok"] else 1)
    return told


def run_until_prompt(
    path: Path, seed: int, lateness: Set[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a scenario; return its result, and the logs and measures of every run.

    A machine busy with something else starts no process, and wakes none, in time. What is late once, by the
    checks named `lateness` and no other, is tried once more with the same bounds; anything else stands.
    """
    runs = [run_chaos(path, seed)]
    late = {check for check, _ in wrong(runs[0])}
    if late and late <= lateness:
        runs.append(run_chaos(path, seed))
    return runs[-1], [{"logs": run["logs"], "measures": run["measures"]} for run in runs]


def brief(folder: Path, name: str, changes: dict[str, str] | None = None) -> Path:
    """Write a shipped scenario with a shorter warm-up and `changes`, each of one place; return where."""
    text = (SCENARIOS / f"{name}.toml").read_text()
    for old, new in (changes or {}).items():
        assert text.count(old) == 1, (name, old)
        text = text.replace(old, new)
    text = re.sub(r"^(warm_up_s|warm_up_jitter_s) = [0-9.]+$", r"\1 = 1.0", text, flags=re.MULTILINE)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def wrong(told: dict[str, Any]) -> list[Any]:
    return [(check["check"], check["problems"]) for check in told["checks"] if not check["ok"]]
