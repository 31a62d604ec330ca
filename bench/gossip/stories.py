"""The simulator's scenarios that rows stand for, and kinship's grid: run by seed, kept (see `kept`)."""

import json
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from bench.gossip.kept import OUT, Told, by_seed, read_lines, run_for
from gossipmesh.testing.simulator.frozen_list import frozen_key

TOLD: Final = OUT / "gossip-stories.jsonl"
STORY_LOSS: Final = 0.01
GRID: Final = OUT / "grid.jsonl"
GRID_RUNS: Final = (
    ("--nodes", "50", "--detector", "monitors", "--seeds", "0-4"),
    ("--nodes", "50", "--detector", "swim", "--seeds", "0-1", "--starved", "10"),
    ("--nodes", "50", "--detector", "monitors", "--seeds", "0-19"),
    ("--nodes", "200", "--detector", "monitors", "--seeds", "0-1", "--starved", "10"),
    ("--nodes", "200", "--detector", "monitors", "--seeds", "0-19"),
    ("--nodes", "50", "--detector", "swim", "--seeds", "0-19"),
)


class Story(msgspec.Struct, frozen=True):
    """A scenario of the simulator, run for seeds 1 to `seeds`; not begun with less time than `minutes`."""

    scenario: str
    nodes: int
    seeds: int
    minutes: float = 0.5


STORIES: Final = (
    Story("upgrade-all", 12, 3),
    Story("crash-all-agents", 12, 3),
    Story("heal-no-eviction", 12, 3),
    Story("minority", 5, 5),
    Story("partition-10-min", 12, 3),
    Story("partition-forgotten", 6, 3),
    Story("partition-day", 5, 1, 30),
)


def measure_stories(minutes: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run what is missing of the scenarios that rows stand for while there is time; return all to show."""
    until_s = time.perf_counter() + minutes * 60
    core = frozen_key()
    shown = []
    for story in STORIES:
        found = _kept(story, core)
        for seed in range(1, story.seeds + 1):
            left_s = until_s - time.perf_counter()
            if left_s > 60 * story.minutes and found.get(seed, {}).get("core") != core:
                _run_story(story, seed, core, left_s)
        found = _kept(story, core)
        shown += [found[seed] for seed in sorted(found)]
        say(f"story: {story.scenario}: {[found[seed]['measured'] for seed in sorted(found)]}")
    return shown


def _kept(story: Story, core: str) -> dict[int, Told]:
    key = (story.scenario, story.nodes)
    return by_seed([s for s in read_lines(TOLD) if (s["scenario"], s["nodes"]) == key], core, story.seeds)


def _run_story(story: Story, seed: int, core: str, timeout_s: float) -> None:
    words = ["-m", "gossipmesh.testing.simulator", story.scenario, "--nodes", str(story.nodes)]
    words += ["--loss", str(STORY_LOSS), "--seeds", str(seed), "--jobs", "1", "--json"]
    _, printed = run_for(words, timeout_s)
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    if lines:
        TOLD.parent.mkdir(exist_ok=True)
        with TOLD.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"core": core, **json.loads(lines[0])}) + "\n")


def measure_grid(minutes: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Let the simulator's grid add runs while there is time; return its summary of this very core.

    Runs of an earlier command count when they are of the same frozen list.
    """
    until_s = time.perf_counter() + minutes * 60
    for words in GRID_RUNS:
        left_s = until_s - time.perf_counter()
        if left_s > 5:
            run_for([*_grid(), *words], left_s)
    rows: list[dict[str, Any]] = []
    _, printed = run_for([*_grid(), "--summary", "--json"], 60)
    if printed.strip():
        rows = json.loads(printed)["rows"]
    say(f"grid: {sum(row['runs'] for row in rows)} runs in {len(rows)} cells")
    return rows


def _grid() -> list[str]:
    return ["-m", "gossipmesh.testing.simulator", "grid", "--out", str(GRID)]
