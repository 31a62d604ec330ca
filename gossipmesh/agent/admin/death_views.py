"""Why a member is held as it is: GET /v1/why.

Plain values from the core's journal, of votes and verdicts; nothing is decided here.
"""

from typing import Any, Final

from gossipmesh.agent.admin.admin_views import Parts, member_row
from gossipmesh.agent.admin.http_server import Refused
from gossipmesh.gossip.base.history import HistoryEntry
from gossipmesh.gossip.base.settings import MemberView
from gossipmesh.model import limits
from gossipmesh.model.identity import NODE_ID_BYTES, NodeId
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.net.clock import monotonic, wall_ns

_AGAINST: Final = ("vote-sent", "vote-received")
_WITHDRAWN: Final = ("unvote", "refuted", "beaten-by-life", "reachable", "case-closed")


def why(parts: Parts, name: str | None) -> dict[str, Any]:
    """Return what was said for and against a member, oldest first.

    Raises:
        Refused: no name was given, or nothing is known of it.
    """
    if not name:
        raise Refused(400, "no-node", "say which node: /v1/why?node=NAME, or its id in hex")
    node_id = parts.node.find(name) or _node_id(name)
    view = None if node_id is None else parts.node.member(node_id)
    entries = [] if node_id is None else parts.node.history(node_id)
    if view is None and not entries:
        raise Refused(
            404, "no-member", f"this node knows no member {name[:80]!r}; `gossipmesh members` lists them"
        )
    now, wall_s = monotonic(), wall_ns() / SECOND_NS
    rows = [_entry(entry, _name_of(parts, entry.by), now, wall_s) for entry in entries]
    counts = parts.node.statistics()
    return {
        "node": name if view is None else view.name,
        "seen_by": parts.identity.identity.name,
        "member": None if view is None else member_row(parts, view),
        "summary": summary(view, rows),
        "local_health": parts.node.local_health,
        "lag_ms": counts.lag_ms,
        "entries": rows,
        "journal": {"kept_max": limits.HISTORY_ENTRIES_MAX, "noted": counts.history_noted},
    }


def _node_id(text: str) -> bytes | None:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return None
    return found if len(found) == NODE_ID_BYTES else None


def _name_of(parts: Parts, node_id: NodeId) -> str:
    view = parts.node.member(node_id)
    return node_id.hex()[:8] if view is None else view.name


def _entry(entry: HistoryEntry, by: str, now: int, wall_s: float) -> dict[str, Any]:
    age_s = max(0, now - entry.at) / SECOND_NS
    return {
        "age_s": round(age_s, 3),
        "wall": round(wall_s - age_s, 3),
        "kind": entry.kind,
        "by": by,
        "class": entry.cause,
        "detail": entry.detail,
        "local_health": entry.local_health,
    }


def summary(view: MemberView | None, rows: list[dict[str, Any]]) -> str:
    """Return in one sentence how it stands and what said so last."""
    standing = "it is no member any more" if view is None else f"it is {view.status.label}"
    if view is not None and view.unreachable:
        standing += ", and unreachable from here"
    if view is not None and view.endpoints_retained:
        standing += "; its endpoints are kept, because many died at once"
    if not rows:
        return f"{standing}; nothing was said against it that this node remembers"
    last = rows[-1]
    voters = sorted({row["by"] for row in rows if row["kind"] in _AGAINST})
    said = f"; {', '.join(voters)} spoke against it" if voters else ""
    undone = next((row for row in reversed(rows) if row["kind"] in _WITHDRAWN), None)
    if undone is not None:
        said += f"; last in its favour: {undone['kind']} by {undone['by'] or '-'}"
    return f"{standing}{said}; last: {last['kind']} by {last['by'] or '-'} {last['age_s']:.0f} s ago"
