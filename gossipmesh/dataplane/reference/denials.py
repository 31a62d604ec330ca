"""What is written down about a caller that was refused; the caller itself is told nothing but 403."""

from typing import Final

from gossipmesh.dataplane.protocol import Denial
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.traffic.authorization import Verdict

REVOKED: Final = Verdict(False, "revoked")
"""Its node is revoked, forgotten, or enrolled again since it proved who it is."""


def deny(state: EngineState, entry: Entry, verdict: Verdict) -> None:
    """Write a refusal down where operators look: log, counters, events."""
    entry.flag("UAEX")
    entry.details = f"rbac_access_denied_matched_policy[{verdict.rule}]"
    state.counters.add("denials")
    head = entry.head
    method, path = ("", "") if head is None else (head.method, head.path[:1024].partition("?")[0])
    state.emit(Denial(entry.caller, entry.service, method, path, verdict.rule))
