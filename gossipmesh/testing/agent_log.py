"""What an agent's own log proves: statuses it gave out, and the steps of its engine's replacement.

Stamped by the agent when it happened. A look from outside may miss what lasts shorter than its interval, and
on a busy machine it comes late.
"""

import json
from datetime import datetime
from typing import Final

import msgspec

LINES_MAX: Final = 100_000
_MEMBER: Final = "member is "
_ISOLATED: Final = "isolated: "
ISOLATED: Final = "isolated"
"""What a node says of itself while it is cut off; no status of a member."""
_ENGINE_STEPS: Final = (
    ("the engine is gone", "gone"),
    ("engine started", "started"),
    ("engine serves", "serves"),
)


class StatusDeclared(msgspec.Struct, frozen=True):
    """`observer` logged that `subject` became `status`."""

    at_s: float
    observer: str
    subject: str
    status: str


class EngineStep(msgspec.Struct, frozen=True):
    """A step of an engine's replacement: `gone`, `started` or `serves`."""

    at_s: float
    node: str
    step: str


def read_agent_log(
    data: bytes, node: str, start_wall_s: float
) -> tuple[list[StatusDeclared], list[EngineStep]]:
    """Return what the log of `node` says, in its order; of all its agents, killed ones included."""
    declared: list[StatusDeclared] = []
    steps: list[EngineStep] = []
    for line in data.splitlines()[:LINES_MAX]:
        try:
            row = json.loads(line)
            message = str(row["message"])
            at_s = round(datetime.fromisoformat(row["time"]).timestamp() - start_wall_s, 3)
        except (ValueError, KeyError, TypeError):
            continue  # a traceback, or the half line of an agent that was killed
        if message.startswith(_MEMBER):
            declared.append(StatusDeclared(at_s, node, row["member"], message.removeprefix(_MEMBER)))
        elif message.startswith(_ISOLATED):
            declared.append(StatusDeclared(at_s, node, node, ISOLATED))
        steps += [EngineStep(at_s, node, step) for text, step in _ENGINE_STEPS if message.startswith(text)]
    return declared, steps


def replacement_s(steps: list[EngineStep], node: str, from_s: float) -> dict[str, float]:
    """Return each step of the first replacement of a node's engine after `from_s`: seconds since then.

    An agent that was started again says `serves` of the engine it found; that is no replacement.
    """
    found: dict[str, float] = {}
    for seen in steps:
        if seen.node == node and seen.at_s >= from_s:
            found.setdefault(seen.step, round(seen.at_s - from_s, 3))
    return found if "started" in found else {}
