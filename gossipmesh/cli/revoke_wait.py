"""Whether every member holds what takes a node out, read off what they answered. Pure but for `wait_for_all`.

Rules:
1. A member has confirmed when its state sum was found equal to the asked agent's, after that one had taken
   the tombstone: equal sums are equal records, so it holds the tombstone as well. Nothing else counts.
2. Who is waited for, and who is named instead, is as `policy push --wait` has it (`push_plan`).
3. The agent asks its members meanwhile, those first whose word is oldest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gossipmesh.cli.admin_client import AdminClient
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


def judge_rows(
    rows: Sequence[Mapping[str, Any]], node: str, since_s: float, *, everybody: bool = False
) -> Confirmed:
    """Tell which members hold the tombstone of `node`, which their agent took `since_s` ago."""
    members = [one for one in read_members(rows, _ANY_SCOPE) if one.name != node and one.status != GONE]
    agreed = {str(row.get("name")): _has_agreed(row, since_s) for row in rows}
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
    *,
    wait: str,
    timeout_s: float,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> Confirmed:
    """Ask until everybody who is waited for holds the tombstone, or the time is up; return who does.

    Raises:
        OperatorError: the agent cannot say. The tombstone spreads all the same.
    """
    began = clock()
    while True:
        try:
            client.post_bytes("/v1/members/ask", b"")
            since_s = clock() - began
            told = judge_rows(client.get_json("/v1/members"), node, since_s, everybody=wait != WAIT_ALIVE)
        except OperatorError as error:
            raise OperatorError(
                f"{node} is taken out and the mesh is told, but who holds that is unknown: {error}"
            ) from error
        if not told.missing or clock() - began >= timeout_s:
            return told
        pause(POLL_S)


def verdict(told: Confirmed, node: str, what: str, seconds: float) -> str | None:
    """Return why the wait failed, as one sentence; None when everybody who is waited for holds it."""
    if not told.missing:
        return None
    return (
        f"{node} is {what}, but not every member holds that after {seconds:.1f} s: not confirmed by "
        f"{_named(told.missing)}"
    )


def absentees(told: Confirmed) -> str | None:
    """Return who was not waited for, and why, as one sentence; None when nobody was left out."""
    if not told.absent:
        return None
    return f"not waited for: {_named(told.absent)}; who comes back is told, --wait=all waits for it"


def _named(pairs: Iterable[tuple[str, str]]) -> str:
    return listed(f"{name} ({why})" for name, why in pairs)


def _has_agreed(row: Mapping[str, Any], since_s: float) -> bool:
    age_s = row.get("agreed_s")
    return bool(row.get("self")) or (age_s is not None and float(age_s) < since_s)


def _why(member: MemberPolicy) -> str:
    return member.status if member.reachable else f"{member.status}, unreachable from this node"
