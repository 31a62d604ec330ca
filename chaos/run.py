"""`python -m chaos.run SCENARIO --backend process|sim --seed N --json`: run one chaos scenario.

Prints what happens as it happens on stderr, and the result on stdout: raw evidence, and `ok` derived
from it by the checkers the scenario names. Exit 0 only if all of them hold.
"""

import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click
import msgspec

from chaos.words import SEED, Number, run_command
from gossipmesh.testing.cold_starts import PARTS
from gossipmesh.testing.interrupts import end_like_ctrl_c
from gossipmesh.testing.isolations import isolation_known_s
from gossipmesh.testing.lost_udp import KINDS as NEWS_KINDS
from gossipmesh.testing.namespaces import enter_private_network
from gossipmesh.testing.nemesis import run_scenario, scenario_path
from gossipmesh.testing.scenario import load_scenario, needs_root
from gossipmesh.testing.simulated import run_simulated


@click.command()
@click.argument("scenario")
@click.option("--backend", type=click.Choice(["process", "sim"]), default="process", show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Chooses the victim and the moments.")
@click.option("--runs", type=Number(1, 100), default=1, help="Run it so often, seeds counting up.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all evidence.")
@click.option("--keep", is_flag=True, help="Leave logs and state behind.")
def main(scenario: str, backend: str, seed: int, runs: int, as_json: bool, keep: bool) -> None:
    """Run SCENARIO, a TOML file (or its bare name) of chaos/scenarios."""
    end_like_ctrl_c(signal.SIGTERM)
    loaded = load_scenario(scenario_path(scenario))
    if backend == "process" and needs_root(loaded):
        enter_private_network(["-m", "chaos.run", *sys.argv[1:]])

    def say(line: str) -> None:
        click.echo(line, err=True)

    results = []
    for number in range(seed, seed + runs):
        simulates = backend == "sim"
        results.append(
            run_simulated(loaded, number, say) if simulates else run_scenario(loaded, number, say, keep)
        )
        if not as_json:
            _print_result(results[-1])
        if results[-1]["logs"]:
            say(f"logs: {results[-1]['logs']}")
    ok = all(result["ok"] for result in results)
    if runs > 1:
        summed_up = {name: sum_up(results) for name, sum_up in SUMMED_UP.items()}
        summary = {"scenario": loaded.name, "ok": ok, **summed_up}
        click.echo(msgspec.json.encode({**summary, "runs": results} if as_json else summary))
    elif as_json:
        click.echo(msgspec.json.encode(results[0]))
    raise SystemExit(0 if ok else 1)


def _print_result(result: dict[str, Any]) -> None:
    """Print a run for a person: verdicts, figures, counts."""
    for check in result["checks"]:
        click.echo(f"{'ok  ' if check['ok'] else 'FAIL'}  {check['check']} {check['params'] or ''}")
        for problem in check["problems"]:
            click.echo(f"      {problem}")
    click.echo(f"measures: {msgspec.json.encode(result['measures']).decode()}")
    if result.get("backend") == "sim":
        click.echo(f"no requests are simulated; not checked: {', '.join(result['skipped']) or 'nothing'}")
        return
    requests = {key: value for key, value in result["evidence"].requests.items() if key != "failures"}
    click.echo(f"requests: {msgspec.json.encode(requests).decode()}")


def seen_dead_s(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return p50 and max over runs of the time by which every member saw the victim dead; {} for none."""
    return _spread(
        max(seconds.values())
        for result in results
        for seconds in result["measures"]["seen_dead_s"].values()
        if seconds and None not in seconds.values()
    )


def replaced_ended_s(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return p50 and max over runs of how long agents ran on whose name was enrolled again; {} for none."""
    ended = [result["measures"].get("replaced_ended_s", {}) for result in results]
    return _spread(seconds for one in ended for seconds in one.values() if seconds is not None)


def moved_s(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return for each gap p50 and max over runs of when a moved node was found, and its traffic flowed."""
    rows = [row for result in results for row in result["measures"].get("moves_s", ())]
    return {
        f"{what} gap {gap_s:g}": _spread(
            row[what] for row in rows if row["gap_s"] == gap_s and row[what] is not None
        )
        for gap_s in dict.fromkeys(row["gap_s"] for row in rows)
        for what in ("found_after_s", "flows_after_s")
    }


def news_s(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return for each kind of news p50 and max over runs of when it was everywhere."""
    rows = [row for result in results for row in result["measures"].get("news_s", ())]
    return {kind: _spread(row[kind] for row in rows if row[kind] is not None) for kind in NEWS_KINDS if rows}


def _spread(found: Iterable[float]) -> dict[str, float]:
    times = sorted(found)
    return {"runs": len(times), "p50": times[len(times) // 2], "max": times[-1]} if times else {}


def cold_starts_s(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return for each part of a cold start p50 and max over runs of when it was done; {} for none."""
    rows = [row for result in results for row in result["measures"].get("cold_starts_s", ())]
    return {part: _spread(row[part] for row in rows if row[part] is not None) for part in PARTS if rows}


def copies_ended_s(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return p50 and max over runs of how long copies of a state folder ran; {} for none."""
    ended = [seconds for result in results for seconds in result["measures"].get("copies_ended_s", ())]
    return _spread(seconds for seconds in ended if seconds is not None)


def thefts_s(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return p50 and max over runs of when a thief of keys was refused, and cut off; {} for none."""
    rows = [row for result in results for row in result["measures"].get("thefts_s", ())]
    parts = sorted({part for row in rows for part in row})
    return {part: _spread(row[part] for row in rows if part in row) for part in parts}


def plays_s(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return for each part of each play p50 and max over runs of how long it took; {} for none."""
    found: dict[str, list[float]] = {}
    for result in results:
        for play, parts in result["measures"].get("plays_s", {}).items():
            for part, took_s in parts.items():
                found.setdefault(f"{play} {part}", []).extend([] if took_s is None else [took_s])
    return {name: _spread(times) for name, times in found.items()}


SUMMED_UP: Final[dict[str, Callable[[Sequence[dict[str, Any]]], dict[str, Any]]]] = {
    "seen_dead_s": seen_dead_s,
    "replaced_ended_s": replaced_ended_s,
    "forgotten_s": lambda results: _spread(
        seconds for result in results for seconds in result["measures"].get("forgotten_s", ())
    ),
    "cold_starts_s": cold_starts_s,
    "copies_ended_s": copies_ended_s,
    "thefts_s": thefts_s,
    "moved_s": moved_s,
    "news_s": news_s,
    "plays_s": plays_s,
    "isolation_known_s": lambda results: _spread(isolation_known_s(results)),
}
"""What is told of several runs together, and how it is made of their results."""


def run() -> None:
    """Run the command; a failure a person can mend is one sentence."""
    run_command(main)


if __name__ == "__main__":
    run()
