"""Members as `/v1/members` tells them, for tests of what is judged by that."""

from typing import Any

CREDENTIAL_ENDS = 1_800_000_000
WALL_S = CREDENTIAL_ENDS - 3_024_000  # five weeks: it was signed again at ten days of its 45


def policy(version: int, scope: str = "mesh", *, refused: int = 0, reason: str = "") -> dict[str, Any]:
    return {"scope": scope, "version": version, "refused_version": refused, "refused_reason": reason}


def member(name: str, status: str = "alive", **fields: Any) -> dict[str, Any]:
    """Return a member with nothing wrong, but for what the test says."""
    return {
        "name": name,
        "status": status,
        "since_s": 75.0,
        "gossip_addresses": [f"10.0.0.{sum(name.encode()) % 200}:7948"],
        "reachability": "reachable" if status == "alive" else "stale",
        "heard_s": 0.4,
        "datagram_s": 0.4,
        "answered_s": 1.5,
        "agreed_s": 1.5,
        "clock_s": 0,
        "credential_ends": CREDENTIAL_ENDS,
        "closed": False,
        "opened_by_hand": False,
        "foreign_keys": False,
        "lacks_roll": False,
        "lag_ms": 0,
        "quarantine_s": None,
        "endpoints_retained": False,
        "policies": [policy(2)],
        "self": False,
        **fields,
    }


def itself(name: str = "n1", **fields: Any) -> dict[str, Any]:
    """Return this node's own row."""
    unproven = {"self": True, "reachability": "self", "heard_s": None, "answered_s": None, "agreed_s": None}
    return member(name, **{**unproven, **fields})
