"""Whether a node that was cut off from all others knew it, and how soon; by its own agent's log.

It ends at what is judged: what its requests cost is `request_checkers`'.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from gossipmesh.testing.agent_log import ISOLATED
from gossipmesh.testing.evidence import Evidence


def isolations_known_s(evidence: Evidence) -> list[float | None]:
    """Return for each isolation how long after the cut its node said so; None: not before the heal."""
    known: list[float | None] = []
    for fault in evidence.faults:
        if fault.kind == "isolate":
            said_s = (
                told.at_s - fault.at_s
                for told in evidence.declared
                if (told.observer, told.status) == (fault.node, ISOLATED)
                and fault.at_s <= told.at_s <= fault.detail["healed_s"]
            )
            first_s = min(said_s, default=None)
            known.append(None if first_s is None else round(first_s, 3))
    return known


def eventually_isolation_is_known(evidence: Evidence, within_s: float) -> list[str]:
    """Who is cut off says so each time, within `within_s` (median of all cuts); nobody says so otherwise."""
    cuts = [fault for fault in evidence.faults if fault.kind == "isolate"]
    known = [seconds for seconds in isolations_known_s(evidence) if seconds is not None]
    if not cuts or len(known) < len(cuts):
        return [f"{len(known)} of {len(cuts)} isolations were known to their node"]
    problems = []
    if statistics.median(known) > within_s:
        problems.append(
            f"isolation was known after {statistics.median(known):.2f} s (median), bound {within_s:g} s"
        )
    for told in evidence.declared:
        is_so = any(
            fault.node == told.observer and fault.at_s <= told.at_s <= fault.detail["healed_s"]
            for fault in cuts
        )
        if told.status == ISOLATED and not is_so:
            problems.append(f"{told.observer} said at {told.at_s:.2f} s that it was isolated, and was not")
    return problems


def isolation_known_s(results: Sequence[dict[str, Any]]) -> list[float]:
    """Return over all runs how long it took until a node that was cut off said so, sorted."""
    rows = (result["measures"].get("isolations_known_s", ()) for result in results)
    return sorted(seconds for row in rows for seconds in row if seconds is not None)
