"""Whether every member holds what takes a node out, read off what they say. Pure but for `wait_for_all`.

Rules:
1. A member has confirmed when its state sum was found equal to the asked agent's, after that one had taken
   the tombstone: equal sums are equal records, so it holds the tombstone as well. Of Trust each says which
   version it holds. Nothing else counts.
2. Who is waited for, and who is named instead, is as `policy push --wait` has it (`push_plan`).
3. The agent asks its members meanwhile, those first whose word is oldest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gossipmesh.cli.admin_client import AdminClient
from gossipmesh.cli.mesh_trust import held_version
from gossipmesh.cli.push_flow import listed
from gossipmesh.cli.push_plan import DEAD, GONE, WAIT_ALIVE, MemberPolicy, read_members, waited_for
from gossipmesh.model.errors import OperatorError

POLL_S: Final = 0.1
_ANY_SCOPE: Final = ""


class Confirmed(NamedTuple):
    """Who holds it, who is waited for and does not, and who is not waited for, the last two with a reason."""

    holding: list[str]
    missing: list[tuple[str, str]]
    absent: list[tuple[str, str]]


Row = Mapping[str, Any]
Holds = Callable[[Row, float], bool]
"""Whether a member's row says that it holds the thing, which its agent took so many seconds ago."""


def holds_tombstone(row: Row, since_s: float) -> bool:
    """Tell whether a member's state sum was found equal to the agent's own since then."""
    age_s = row.get("agreed_s")
    return bool(row.get("self")) or (age_s is not None and float(age_s) < since_s)


def holds_trust(version: int) -> Holds:
    """Return what tells whether a member says that it has this version of Trust, or a later one."""
    return lambda row, _: held_version(row) >= version


def judge_rows(
    rows: Sequence[Row], node: str, since_s: float, holds: Holds, *, everybody: bool = False
) -> Confirmed:
    """Tell which members hold what takes out `node`, which their agent took `since_s` ago."""
    members = [one for one in read_members(rows, _ANY_SCOPE) if one.name != node and one.status != GONE]
    agreed = {str(row.get("name")): holds(row, since_s) for row in rows}
    wanted = waited_for(members, everybody=everybody)
    told = Confirmed([], [], [])
    for member in members:
        if agreed[member.name] and member.status != DEAD:
            told.holding.append(member.name)
        else:
            side = told.missing if member.name in wanted else told.absent
            side.append((member.name, _why(member)))
    return told


def wait_for_all(
    client: AdminClient,
    node: str,
    holds: Holds,
    *,
    wait: str,
    timeout_s: float,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> Confirmed:
    """Ask until everybody who is waited for holds it, or the time is up; return who does.

    Args:
        node: who is taken out, and not waited for; "" where nobody is.

    Raises:
        OperatorError: the agent cannot say. What it was given spreads all the same.
    """
    began = clock()
    while True:
        try:
            client.post_bytes("/v1/members/ask", b"")
            since_s = clock() - began
            rows = client.get_json("/v1/members")
            told = judge_rows(rows, node, since_s, holds, everybody=wait != WAIT_ALIVE)
        except OperatorError as error:
            raise OperatorError(f"the mesh is told, but who holds it is unknown: {error}") from error
        if not told.missing or clock() - began >= timeout_s:
            return told
        pause(POLL_S)


def verdict(told: Confirmed, done: str, seconds: float) -> str | None:
    """Return why the wait failed, as one sentence; None when everybody who is waited for holds it.

    `done`: what was done, such as `vm7 is revoked`.
    """
    if not told.missing:
        return None
    return (
        f"{done}, but not every member holds that after {seconds:.1f} s: not confirmed by "
        f"{_named(told.missing)}"
    )


def absentees(told: Confirmed) -> str | None:
    """Return who was not waited for, and why, as one sentence; None when nobody was left out."""
    if not told.absent:
        return None
    return f"not waited for: {_named(told.absent)}; who comes back is told, --wait=all waits for it"


def _named(pairs: Iterable[tuple[str, str]]) -> str:
    return listed(f"{name} ({why})" for name, why in pairs)


def _why(member: MemberPolicy) -> str:
    return member.status if member.reachable else f"{member.status}, unreachable from this node"
