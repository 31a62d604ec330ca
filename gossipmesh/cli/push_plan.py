"""What became of a push, read off the members' own records. Pure: no clock, no agent.

Rules:
1. A member has confirmed when its own record names the version and hash. Nothing else counts.
2. A greater (version, hash) anywhere means ours has lost or is past: the order is the same on every node.
3. A member that cannot confirm is named with its status. Whoever is alive is waited for; the dead, the
   unattended and, while most others answer this node, the unreachable are not, unless everybody is meant.
   One that left is never waited for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gossipmesh.model.documents import generation_of
from gossipmesh.wire.versions import ENGINE_LACKS

READERS_MIN: Final = 3
_NAMES_TOLD: Final = 10
GONE: Final = "left"
DEAD: Final = "dead"
UNREACHABLE: Final = "unreachable"
PRESENT: Final = ("alive", "suspect")

WAIT_ALIVE: Final = "alive"
WAIT_ALL: Final = "all"

REACHED: Final = "reached"
PENDING: Final = "pending"
REFUSED: Final = "refused"
SUPERSEDED: Final = "superseded"

Version = tuple[int, str]
"""(version, hash in hex): how sets of one scope are ordered everywhere."""


@dataclass(frozen=True)
class MemberPolicy:
    """What one member says it runs of a scope; version 0 where it says nothing.

    `features` None: the agent that was asked does not tell them.
    """

    name: str
    status: str
    runs: Version = (0, "")
    refused: Version = (0, "")
    refused_reason: str = ""
    here: bool = False
    reachable: bool = True
    features: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Outcome:
    """`state` is reached, pending, refused or superseded; a member is in one of the lists at most.

    `missing` are waited for, `absent` are not; each with its reason.
    """

    state: str
    reached: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    superseded_by: Version | None = None
    absent: list[tuple[str, str]] = field(default_factory=list)


def read_members(
    answer: Iterable[Mapping[str, Any]], scope: str, generation: int | None = None
) -> list[MemberPolicy]:
    """Return the members' policies of `scope` from what `GET /v1/members` answered.

    What is of a later generation than `generation`, which Trust names, counts as nothing: it is what a stolen
    signer had a member of an older build take, and no node goes by it any more.
    """
    members = [_member(row, _of_scope(row, scope)) for row in answer]
    if generation is None:
        return members
    return [replace(m, runs=(0, "")) if generation_of(m.runs[0]) > generation else m for m in members]


def highest(members: Iterable[MemberPolicy]) -> Version:
    """Return the greatest version any member runs; members that left do not count."""
    return max((member.runs for member in members if member.status != GONE), default=(0, ""))


def stale_base(base: Version, members: Sequence[MemberPolicy]) -> str | None:
    """Return why a push on `base` would lose or rest on too little, None when it may go."""
    newest = highest(members)
    if newest > base:
        who = next(member.name for member in members if member.runs == newest and member.status != GONE)
        return (
            f"{who} already runs version {newest[0]} ({newest[1][:8]}), this agent has {base[0]} "
            f"({base[1][:8] or 'none'})"
        )
    return None


def few_readers(members: Sequence[MemberPolicy]) -> str | None:
    """Return a warning when fewer than three members (or than all) answer for the floor."""
    present = [member for member in members if member.status != GONE]
    alive = [member for member in present if member.status == "alive"]
    if len(alive) >= min(READERS_MIN, len(present)):
        return None
    return (
        f"only {len(alive)} of {len(present)} members are alive for this agent: a push on the other side "
        "of a partition may win"
    )


def lacking(members: Sequence[MemberPolicy], required: Iterable[str]) -> str | None:
    """Return who is there and could not execute a set that requires these features; None when all could.

    An engine that was kept through an upgrade may lack what its agent's build has; it is named as such.
    """
    wanted = sorted(required)
    found = []
    for member in members:
        if member.status in (GONE, DEAD) or member.features is None:
            continue
        missing = [one for one in wanted if one not in member.features]
        missing += [f"{one}: its engine" for one in wanted if ENGINE_LACKS + one in member.features]
        if missing:
            found.append(f"{member.name} ({', '.join(missing)})")
    more = f" and {len(found) - _NAMES_TOLD} more" if len(found) > _NAMES_TOLD else ""
    return ", ".join(found[:_NAMES_TOLD]) + more if found else None


def judge(members: Sequence[MemberPolicy], target: Version, *, everybody: bool = True) -> Outcome:
    """Tell how far `target` has come among `members`; `everybody`: the dead are waited for as well."""
    reached: list[str] = []
    refused: list[tuple[str, str]] = []
    missing: list[tuple[str, str]] = []
    absent: list[tuple[str, str]] = []
    superseded_by: Version | None = None
    wanted = waited_for(members, everybody=everybody)
    for member in members:
        if member.status == GONE:
            continue
        if member.runs > target:
            superseded_by = max(superseded_by or member.runs, member.runs)
        if member.runs == target and member.status != DEAD:
            reached.append(member.name)
        elif member.refused == target and member.runs < target:
            refused.append((member.name, member.refused_reason or "no reason given"))
        else:
            (missing if member.name in wanted else absent).append((member.name, _why_missing(member, target)))
    state = REACHED
    if superseded_by is not None:
        state = SUPERSEDED
    elif refused:
        state = REFUSED
    elif missing:
        state = PENDING
    return Outcome(state, reached, refused, missing, superseded_by, absent)


def waited_for(members: Sequence[MemberPolicy], *, everybody: bool) -> set[str]:
    """Return the names of those whose word is waited for (rule 3); `everybody`: the dead as well."""
    is_cut_off = _is_cut_off(members)
    return {
        member.name
        for member in members
        if member.status != GONE
        and (everybody or (member.status in PRESENT and (member.reachable or is_cut_off)))
    }


def _is_cut_off(members: Sequence[MemberPolicy]) -> bool:
    """Tell whether this node hears half of the mesh or less: then the unreachable may all be well."""
    present = [member for member in members if member.status in PRESENT]
    return 2 * sum(member.reachable for member in present) <= len(present)


def _why_missing(member: MemberPolicy, target: Version) -> str:
    runs = f"runs version {member.runs[0]}" if member.runs[0] else "runs no policy"
    if member.runs == target:
        return f"{member.status}, had confirmed before"
    if member.runs[0] == target[0]:
        runs = f"runs another version {member.runs[0]} ({member.runs[1][:8]})"
    status = member.status if member.reachable else f"{member.status}, unreachable from this node"
    return f"{status}, {runs}"


def _of_scope(row: Mapping[str, Any], scope: str) -> Mapping[str, Any]:
    for entry in row.get("policies") or ():
        if entry.get("scope") == scope:
            return dict(entry)
    return {}


def _member(row: Mapping[str, Any], policy: Mapping[str, Any]) -> MemberPolicy:
    return MemberPolicy(
        name=str(row.get("name", "?")),
        status=str(row.get("status", "?")),
        runs=(int(policy.get("version") or 0), str(policy.get("hash") or "")),
        refused=(int(policy.get("refused_version") or 0), str(policy.get("refused_hash") or "")),
        refused_reason=str(policy.get("refused_reason") or ""),
        here=bool(row.get("self", False)),
        reachable=row.get("reachability") != UNREACHABLE,
        features=tuple(map(str, row["features"])) if "features" in row else None,
    )
