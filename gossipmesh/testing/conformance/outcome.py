"""What playing a part of the specification came to: one outcome for each vector, counts by kind."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class Departed(Exception):
    """The engine did otherwise than the specification says; the sentence tells how. State: end the vector."""


@dataclass(frozen=True)
class Outcome:
    """One vector's end; `fault` is empty where the engine did as specified."""

    kind: str
    name: str
    fault: str = ""

    @property
    def key(self) -> str:
        """Return what the table of sentences names it by."""
        return f"{self.kind}/{self.name}"


def verdict(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return the closing line of a run: counts, those by kind, and what failed with its reason."""
    every = list(outcomes)
    kinds: dict[str, dict[str, int]] = {}
    for kind in sorted({one.kind for one in every}):
        counts = Counter(bool(one.fault) for one in every if one.kind == kind)
        kinds[kind] = {"passed": counts[False], "failed": counts[True]}
    failed = sorted(one.key for one in every if one.fault)
    return {
        "ok": bool(every) and not failed,
        "passed": len(every) - len(failed),
        "failed": failed,
        "kinds": kinds,
    }
