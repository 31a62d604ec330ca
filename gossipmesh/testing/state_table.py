"""Writes the tables of docs/DEATHS.md from the code: `python -m gossipmesh.testing.state_table [--check]`.

The prose around them is a person's; what stands between the markers is not.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gossipmesh.gossip.base.settings import FAST, STEADY, MonitorSettings
from gossipmesh.gossip.failure.cases import MOVES, Act, CaseInput, CaseState
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "DEATHS.md"
_BEGIN: Final = "<!-- generated: {} -->"
_END: Final = "<!-- end of generated -->"

# What each duration and count of the detector means to whoever reads a death; the order is the page's.
_CONSTANTS: Final[tuple[tuple[str, str], ...]] = (
    ("heartbeat_slot_ns", "a target sends one heartbeat per slot, to its monitors in turn"),
    ("heartbeat_grace_ns", "how late one may be before its monitor pings"),
    ("probe_interval_ns", "every node pings one other member per interval"),
    ("silence_ns", "nothing heard for so long: `silent`"),
    ("refusal_ns", "port and engine refused twice over so long: `refused`"),
    ("deaf_ns", "sends and does not answer for so long: `deaf`"),
    ("degraded_ns", "answers fewer than `degraded_percent` of its pings over so long: `degraded`"),
    ("degraded_percent", "share of pings that must be answered"),
    ("case_tick_ns", "an open case is judged at each tick"),
    ("vote_life_ns", "how long a vote counts"),
    ("control_peers", "other members pinged per control round"),
    ("control_percent", "share of them that must be heard"),
    ("answers_to_close", "direct answers in a row that close a case"),
    ("monitors_max", "monitors of a target"),
    ("beats_apart_max", "votes further apart in what they heard last are of different times"),
    ("unreachable_after_ns", "how much longer than silence until traffic here avoids it"),
    ("lag_gate_ns", "with more lag of our own, failed probes prove nothing"),
    ("tolerance_max_ns", "greatest patience a target's published lag earns it"),
    ("quarantine_ns", "how long a deaf or degraded member stays out at first"),
    ("quarantine_max_ns", "and at most"),
    ("mass_death_percent", "more deaths than that share ..."),
    ("mass_death_window_ns", "... within so long keep their endpoints ..."),
    ("mass_death_retain_ns", "... for so long, or until the operator ends it"),
)


def moves_table() -> str:
    """Return what happens to a case, a row per event and a column per state."""
    states = [state for state in CaseState if state is not CaseState.CLOSED]
    lines = [
        "| what happens | " + " | ".join(state.value for state in states) + " |",
        "|---|" + "---|" * len(states),
    ]
    for what in CaseInput:
        cells = [_cell(state, what) for state in states]
        lines.append(f"| {what.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(state: CaseState, what: CaseInput) -> str:
    move = MOVES[(state, what)]
    done = "" if move.act is Act.NOTHING else move.act.value
    if move.state is state:
        return done or "-"
    return f"**{move.state.value}**" + (f": {done}" if done else "")


def constants_table() -> str:
    """Return the detector's constants, a row each; the profiles differ where two values stand."""
    lines = ["| constant | `fast` | `steady` | what |", "|---|---|---|---|"]
    for name, text in _CONSTANTS:
        lines.append(f"| `{name}` | {_value(FAST, name)} | {_value(STEADY, name)} | {text} |")
    return "\n".join(lines)


def _value(settings: MonitorSettings, name: str) -> str:
    value: int = getattr(settings, name)
    if not name.endswith("_ns"):
        return f"{value} %" if name.endswith("_percent") else str(value)
    if value >= 60 * SECOND_NS and value % (60 * SECOND_NS) == 0:
        return f"{value // (60 * SECOND_NS)} min"
    return f"{value / SECOND_NS:g} s" if value >= SECOND_NS else f"{value // MILLISECOND_NS} ms"


def written(page: str) -> str:
    """Return a page with the tables put between their markers."""
    for name, table in (("moves", moves_table()), ("constants", constants_table())):
        before, found, rest = page.partition(_BEGIN.format(name))
        _, ended, after = rest.partition(_END)
        if not found or not ended:
            raise ValueError(f"docs/DEATHS.md has no place for the table {name!r}")
        page = f"{before}{found}\n{table}\n{_END}{after}"
    return page


def main(words: Sequence[str]) -> int:
    """Write the page, or with --check say whether it is what the code says."""
    held = PAGE.read_text(encoding="utf-8")
    made = written(held)
    if "--check" in words:
        if held != made:
            print("docs/DEATHS.md is not what the code says: run `python -m gossipmesh.testing.state_table`")  # noqa: T201
        return 0 if held == made else 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
