"""Rows of the simulator's scenarios, and of what other commands show."""

from typing import Final

from bench.gossip.row import NOT_MEASURED, VIRTUAL, WALL, Raw, Row

STORY_ROWS: Final = (
    (
        "G17",
        ("partition-10-min", "partition-day"),
        "halves live on, 10 min and 24 h apart, roots equal after the heal",
        "<= 5 s",
        "every event of it: renewals, restarts, changes on both sides, a machine down at the heal",
    ),
    (
        "G17",
        ("heal-no-eviction", "minority"),
        "a heal removes no endpoint; two of five condemn nobody",
        "none",
        "endpoints looked at every 20 ms",
    ),
    (
        "G17",
        ("partition-forgotten",),
        "halves apart for longer than credentials live meet again",
        "<= 310 s",
        "a seed is asked again every five minutes",
    ),
    (
        "G28",
        ("upgrade-all", "crash-all-agents"),
        "all agents restarted in turn, and killed at once",
        "no death",
        "endpoints looked at every 20 ms",
    ),
)
STORY_MEASURES: Final = ("equal_roots_s", "met_s")
EQUAL_ROOTS_S_MAX: Final = 5.0


def story_rows(results: Raw) -> list[Row]:
    """Scenarios that hold or do not: their own invariants judge, at every event."""
    rows = []
    for figure, names, name, gate, evidence in STORY_ROWS:
        found = {n: [s for s in results.get("stories", []) if s["scenario"] == n] for n in names}
        whole = all(found.values())
        stories = [story for some in found.values() for story in some]
        fine = all(story["ok"] for story in stories)
        quick = all(s["measured"].get("equal_roots_s", 0) <= EQUAL_ROOTS_S_MAX for s in stories)
        rows.append(
            Row(
                figure=figure,
                name=name,
                clock=VIRTUAL,
                ours="; ".join(_story_told(n, some) for n, some in found.items() if some) or NOT_MEASURED,
                peer=NOT_MEASURED,
                gate=gate,
                met=False if not (fine and quick) else True if whole else None,
                evidence=f"`simulator {' | '.join(names)}`, 1 % loss; {evidence}",
            )
        )
    return rows


def _story_told(name: str, stories: list[Raw]) -> str:
    failures = [f"seed {story['seed']}: {failure}" for story in stories for failure in story["failures"]]
    said = "; ".join(failures) if failures else "holds"
    times = [
        story["measured"][key] for story in stories for key in STORY_MEASURES if key in story["measured"]
    ]
    worst = f", at most {max(times):.2f} s" if times else ""
    return f"{name}, {stories[0]['nodes']} nodes: {said}{worst} ({len(stories)} seeds)"


# -- shown elsewhere --------------------------------------------------------------------------

TESTS_HOLD: Final = "each named test holds"
NO_DEATH: Final = "no death, 0 failed requests, endpoints kept"
ELSEWHERE: Final = (
    ("G19", VIRTUAL, "memory", "memory of one core with 10,000 members", "<= 75 MB, <= 3 KB a member"),
    ("G20", VIRTUAL, "joining", "joining 10,000 members", "no step over 20 ms, <= 3 s CPU"),
    ("G19", WALL, "agent-memory", "memory of an agent with 10,000 members", "<= 75 MB, <= 3 KB of records"),
    ("G20", WALL, "agent-joining", "an agent joins 10,000 members", "no stall over 20 ms"),
    ("G21", VIRTUAL, "strangers", "hostile frames of strangers and members", TESTS_HOLD),
    ("G22", VIRTUAL, "attacks", "what one compromised member can do", TESTS_HOLD),
    ("G28", WALL, "upgrade", "five agents restarted in turn, under load", NO_DEATH),
    ("G28", WALL, "crash", "five agents killed at once, under load", NO_DEATH),
)


def elsewhere(results: Raw) -> list[Row]:
    """Return a row for each figure that another command shows; filled where it was run."""
    given = results.get("elsewhere", {})
    rows = []
    for figure, clock, key, name, gate in ELSEWHERE:
        told_of = given.get(key, {})
        rows.append(
            Row(
                figure=figure,
                name=name,
                clock=clock,
                ours=told_of.get("ours", NOT_MEASURED),
                peer=told_of.get("peer", NOT_MEASURED),
                gate=gate,
                met=told_of.get("met"),
                evidence=told_of.get("evidence", "no command of this run shows it"),
            )
        )
    return rows
