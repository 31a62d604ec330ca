"""What an agent says of its mesh's Trust: who reads which of it, who holds which version, who has the roll.

Ends at names, and at handing a roll over; what is to be refused is `control.trust_changes`' to say.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gossipmesh.cli.admin_client import AdminClient
from gossipmesh.model.errors import OperatorError
from gossipmesh.wire.versions import HOLDS_TRUST, LACKS_ROLL, ROLLS

if TYPE_CHECKING:
    from gossipmesh.trust.roll import Roll

_GONE = ("dead", "left")


def without_rolls(client: AdminClient) -> list[str]:
    """Return the members of builds that do not read a roll, those that are away too: they come back."""
    return [row["name"] for row in _rows(client) if ROLLS not in row.get("features", ())]


def without_trust(client: AdminClient, version: int) -> list[str]:
    """Return the members in use that do not say that they have a version of Trust or a later one."""
    living = (row for row in _rows(client) if row.get("status") not in _GONE)
    return [row["name"] for row in living if held_version(row) < version]


def is_roll_missing(client: AdminClient, version: int) -> bool:
    """Tell whether a member in use lacks a version of Trust, or the roll that its Trust names."""
    living = [row for row in _rows(client) if row.get("status") not in _GONE]
    return any(LACKS_ROLL in row.get("features", ()) or held_version(row) < version for row in living)


def hand_roll(client: AdminClient, roll: "Roll") -> None:
    """Give an agent, which has its Trust, a roll; it spreads by itself.

    Raises:
        OperatorError: no agent, or it does not take it. Some pieces may be there; it can be done again.
    """
    answer: Any = {}
    for piece in roll.pieces:
        answer = client.post_bytes("/v1/roll/offer", piece)
    if answer.get("missing") != 0:
        raise OperatorError(
            f"the agent at {client.path} does not say that it has the whole roll; see its log, and run the "
            "same again"
        )


def _rows(client: AdminClient) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get_json("/v1/members")
    return rows


def held_version(row: Mapping[str, Any]) -> int:
    """Return the version of Trust a member says it holds, -1 where it says nothing."""
    said = [
        word.removeprefix(HOLDS_TRUST) for word in row.get("features", ()) if word.startswith(HOLDS_TRUST)
    ]
    return max((int(number) for number in said if number.isascii() and number.isdigit()), default=-1)
