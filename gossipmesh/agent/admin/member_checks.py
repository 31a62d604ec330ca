"""What is not right with any member, by what it publishes and by what this node's own packets found.

Members are taken one by one, as `/v1/members` tells them; nothing is sent, nobody is asked. Rules:
1. What is wrong is told kind by kind, with the names; members with nothing wrong are only counted.
2. A member that is not alive is told as that and nothing else: its last word is old.
3. Clocks are judged by the median of all that are known, so that it may be this node's own that is off.
4. Who left, drains or restarts does so on purpose, and is not told.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from gossipmesh.agent.admin.admin_views import TCP_ONLY
from gossipmesh.agent.admin.check_rows import Mark, Row, clock_mark, make_row, some_of
from gossipmesh.agent.admin.policy_versions import PolicyVersions
from gossipmesh.gossip.base.peer_clocks import middle_of
from gossipmesh.model.durations import age_text
from gossipmesh.model.instant import DAY_S, HOUR_S

_LATE_MS: Final = 1_000  # the last step a member publishes
_HORIZON_S_MIN: Final = 4 * HOUR_S
_HORIZON_S_WARN: Final = 5 * DAY_S  # of 45, or of the 8 that an authority of 0.2 gives


class Kind(NamedTuple):
    """A kind of fault: its name, why it matters, what to do."""

    name: str
    why: str
    hint: str


_DEAD: Final = Kind(
    "dead",
    "its endpoints are out of use, and no policy reaches it",
    "start its agent; `gossipmesh why` with its name says who found it so",
)
_UNATTENDED: Final = Kind(
    "unattended",
    "its engine serves by what it was told last: no policy reaches it, no change of services",
    "start its agent there: `systemctl start gossipmesh-agent`",
)
_SUSPECT: Final = Kind(
    "suspect", "it is dead in seconds unless it answers", "look at its network and its load"
)
_UNREACHABLE: Final = Kind(
    "unreachable",
    "this node hears nothing of it and sends it no traffic, though nobody found it dead",
    "see that UDP and TCP of its gossip address pass between it and this node",
)
_TCP_ONLY: Final = Kind(
    "TCP only",
    "something drops its UDP: streams carry its packets to a few members, the rest hears of it later",
    "see that UDP of its gossip address passes both ways: firewalls, security groups, NAT, routes",
)
_POLICY: Final = Kind(
    "policy",
    "it decides by older rules who may call whom, and where requests go",
    "a push takes a second or two; then `gossipmesh check` there says more, `policy status` what it refused",
)
_CLOCK: Final = Kind(
    "clock",
    "certificates are judged by civil time: past their margin good ones are refused, ended ones taken",
    "run NTP there",
)
_LATE: Final = Kind(
    "late",
    "it answers late: others may hold it dead, and its requests wait",
    "look at the load and the memory of that machine",
)
_IDENTITY: Final = Kind(
    "identity",
    "its credential is not renewed: when it ends every other node refuses it",
    "start the authority; the log of its agent says why a renewal failed",
)
_CLOSED: Final = Kind(
    "closed",
    "it answers no call: it has not found out yet, or could not verify, what the mesh runs",
    "`gossipmesh check` there says what it waits for, and how to open it by hand",
)
_BY_HAND: Final = Kind(
    "opened by hand",
    "nobody compared its policy with the mesh's: it may answer what others deny",
    "compare `gossipmesh policy status`; a restart of its agent ends this word",
)
_FOREIGN: Final = Kind(
    "foreign keys",
    "its Ed25519 key is stolen, or an old copy of its state folder runs: somebody else speaks in its name",
    "revoke it and enrol it again",
)
_ROLL: Final = Kind(
    "roll",
    "it knows that a credential key was dropped, and not yet who stays: it takes nobody for gone",
    "it goes on asking; where nobody has it, `authority rotate credential --stolen` hands it out again",
)
_SERVICE: Final = Kind(
    "service",
    "no node sends that endpoint traffic while others of the service pass",
    "see there why the workload fails its checks: `gossipmesh check`",
)

_BY_STATUS: Final = {"dead": _DEAD, "unattended": _UNATTENDED, "suspect": _SUSPECT}
_BY_REACHABILITY: Final = {"unreachable": (Mark.WARN, _UNREACHABLE), TCP_ONLY: (Mark.WARN, _TCP_ONLY)}
"""By the words of `admin_views.reachability`: what else is found of the way to a member has its line here."""


class MemberChecks:
    """Takes members and their failing services; then tells what is wrong, the worst first."""

    def __init__(self, wall_s: int) -> None:
        """`wall_s` is civil time, by which certificates are judged."""
        self._wall_s = wall_s
        self._count = 0
        self._left_count = 0
        self._found: dict[tuple[Mark, Kind], dict[str, str]] = {}
        self._clocks: list[tuple[str, int]] = []
        self._versions = PolicyVersions()

    def take(self, member: dict[str, Any], failing: Sequence[str] = ()) -> None:
        """Take a member's row and the names of its services that fail."""
        name, status = member["name"], member["status"]
        self._count += 1
        self._left_count += status == "left"
        self._versions.take(member)
        if status != "alive":
            if status in _BY_STATUS:
                self._note(Mark.FAIL, _BY_STATUS[status], name, _gone_text(member))
            return
        if member["clock_s"] is not None:
            self._clocks.append((name, member["clock_s"]))
        if member["reachability"] in _BY_REACHABILITY:
            mark, kind = _BY_REACHABILITY[member["reachability"]]
            self._note(mark, kind, name, _way_text(member))
        if member["closed"]:
            self._note(Mark.FAIL, _CLOSED, name, "answers no call")
        if member["opened_by_hand"]:
            self._note(Mark.WARN, _BY_HAND, name, "was opened by hand")
        if member["lag_ms"] >= _LATE_MS:
            self._note(Mark.WARN, _LATE, name, f"by {member['lag_ms'] / 1_000:g} s or more")
        left_s = member["credential_ends"] - self._wall_s
        if left_s < _HORIZON_S_MIN:
            self._note(Mark.FAIL, _IDENTITY, name, f"ends in {age_text(left_s)}")
        elif left_s < _HORIZON_S_WARN:
            self._note(Mark.WARN, _IDENTITY, name, f"ends in {age_text(left_s)}")
        if member["foreign_keys"]:
            self._note(Mark.FAIL, _FOREIGN, name, "met keys of its own that it did not publish")
        if member["lacks_roll"]:
            self._note(Mark.WARN, _ROLL, name, "lacks the roll that Trust names")
        if failing:
            self._note(Mark.WARN, _SERVICE, name, f"fails {', '.join(failing)}")

    def _note(self, mark: Mark, kind: Kind, name: str, text: str) -> None:
        self._found.setdefault((mark, kind), {})[name] = text

    def rows(self) -> list[Row]:
        """Return what is wrong, and last how many members have nothing wrong."""
        median_s = self._judge_clocks()
        self._judge_versions()
        rows = [
            make_row(kind.name, mark, _told(texts), kind.why, kind.hint, members=list(texts))
            for worst in (Mark.FAIL, Mark.WARN)
            for (mark, kind), texts in self._found.items()
            if mark is worst
        ]
        return [*rows, self._summary(median_s)]

    def _judge_clocks(self) -> int:
        median_s = middle_of(clock_s for _, clock_s in self._clocks)
        for name, clock_s in self._clocks:
            skew_s = clock_s - median_s
            mark = clock_mark(skew_s)
            if mark is not Mark.OK:
                way = "ahead of" if skew_s > 0 else "behind"
                self._note(mark, _CLOCK, name, f"is {abs(skew_s)} s {way} the others")
        return median_s

    def _judge_versions(self) -> None:
        behind: dict[str, list[str]] = {}
        for scope in self._versions.scopes:
            newest = self._versions.newest(scope)
            for name, version, refusal in self._versions.behind(scope):
                said = f"runs {scope}:{version}, others {newest}" + (f" ({refusal})" if refusal else "")
                behind.setdefault(name, []).append(said)
        for name, told in behind.items():
            self._note(Mark.FAIL, _POLICY, name, "; ".join(told))

    def _summary(self, median_s: int) -> Row:
        named = {name for told in self._found.values() for name in told}
        well = self._count - self._left_count - len(named)
        running = [f"{scope}:{self._versions.newest(scope)}" for scope in self._versions.scopes]
        clocks = [clock_s for name, clock_s in self._clocks if name not in named]
        spread_s = max((abs(clock_s - median_s) for clock_s in clocks), default=0)
        detail = (
            f"{well} of {self._count - self._left_count} have nothing wrong: alive, "
            f"policy {some_of(running) or 'none'}, clocks within {spread_s} s"
        )
        left, count = self._left_count, self._count
        return make_row("members", Mark.OK, detail, members=count, left=left, well=well)


def _told(texts: dict[str, str]) -> str:
    return some_of(f"{name} {text}" for name, text in texts.items())


def _gone_text(member: dict[str, Any]) -> str:
    text = f"for {age_text(member['since_s'])}"
    if member["quarantine_s"]:
        text += f", kept out for {age_text(member['quarantine_s'])} more"
    return text + (", its endpoints kept" if member["endpoints_retained"] else "")


def _way_text(member: dict[str, Any]) -> str:
    """Say when something last came the way that is missing."""
    by_stream = member["reachability"] == TCP_ONLY
    age_s, what = member["datagram_s" if by_stream else "heard_s"], "heard by UDP" if by_stream else "heard"
    return f"was never {what}" if age_s is None else f"was {what} {age_text(age_s)} ago"
