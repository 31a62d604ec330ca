"""One line of the report, and the words its cells are made of."""

import statistics
from collections.abc import Iterable
from typing import Any, Final

import msgspec

WALL: Final = "wall"
VIRTUAL: Final = "virtual"
PEERS: Final = ("serf", "kinship")
OURS: Final = "gossipmesh"

Raw = dict[str, Any]


class Row(msgspec.Struct, frozen=True):
    """One line of the report. `met` None: not measured, or nothing to meet (then `gate` is `published`)."""

    figure: str
    name: str
    clock: str
    ours: str
    peer: str
    gate: str
    met: bool | None
    evidence: str

    def line(self) -> str:
        """Return the row as one line of text."""
        return f"{self.figure} {self.name} ({self.clock}): {self.ours}; peers: {self.peer}; {self.word()}"

    def word(self) -> str:
        """Say whether the gate was met."""
        if self.gate == PUBLISHED:
            return "published"
        if self.met is None:
            return "not measured" if self.ours == NOT_MEASURED else "too little measured"
        return "met" if self.met else "MISSED"


PUBLISHED: Final = "published"
NOT_MEASURED: Final = "not measured"


def told(values: Iterable[float], unit: str = "s") -> str:
    """Say median, range and number of some rounds."""
    ordered = sorted(values)
    if not ordered:
        return NOT_MEASURED
    median = statistics.median(ordered)
    return f"median {median:.2f}, min {ordered[0]:.2f}, max {ordered[-1]:.2f} {unit} ({len(ordered)} runs)"


def pause_told(row: Raw) -> str:
    """Say what became of one pause."""
    if not row["held_dead_by"]:
        return f"{row['paused_s']:g} s: held dead by nobody"
    back = "return not seen" if row["back_s"] is None else f"alive everywhere {row['back_s']:.2f} s after"
    return f"{row['paused_s']:g} s: held dead by {row['held_dead_by']}, {back}"
