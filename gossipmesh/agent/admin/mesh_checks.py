"""How the mesh sees this node, as far as the others' packets prove it.

It reads members' rows, which are taken one by one, and sends nothing. Rules:
1. Whoever answers our ping has heard us; nothing else that it sends proves that.
2. Whose state sum equals ours holds the same records as we do, so it holds us alive, at our newest.
3. What was said of others is `member_checks`'.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from gossipmesh.agent.admin.admin_views import TCP_ONLY
from gossipmesh.agent.admin.check_rows import Mark, Row, fail_unless, make_row, some_of, warn_unless
from gossipmesh.agent.admin.policy_versions import PolicyVersions
from gossipmesh.gossip.base.history import HistoryEntry
from gossipmesh.gossip.base.own_loss import DATAGRAMS_QUIET_NS, is_own_loss
from gossipmesh.gossip.base.settings import FAST
from gossipmesh.model.durations import age_text
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address

_SILENT_S: Final = 10.0  # five rounds of probes: nobody loses that many by chance
_LATELY_S: Final = 180.0  # by then the rounds of probes have come to every member of a hundred
_APART_WARN_S: Final = 60.0
_APART_FAIL_S: Final = 300.0  # by then everything was compared with somebody by stream, whatever else failed
_OUT_S: Final = FAST.quarantine_ns / SECOND_NS
_REACH: Final = "see that UDP and TCP of spec.gossip.bind pass both ways: firewalls, routes, this node's load"


class Known(NamedTuple):
    """What is held of the member at an address."""

    name: str
    status: str
    is_heard: bool


class Latest:
    """The youngest of some ages, whose it is, and how many are young."""

    def __init__(self) -> None:
        self.age_s: float | None = None
        self.name = ""
        self.lately_count = 0

    def take(self, name: str, age_s: float | None) -> None:
        """Take a member's age; None when there is none."""
        if age_s is None:
            return
        self.lately_count += age_s <= _LATELY_S
        if self.age_s is None or age_s < self.age_s:
            self.age_s, self.name = age_s, name

    def within(self, seconds: float) -> bool:
        """Tell whether the youngest is no older than that."""
        return self.age_s is not None and self.age_s <= seconds

    @property
    def text(self) -> str:
        """Say when that was, and by whom."""
        return "never" if self.age_s is None else f"{age_text(self.age_s)} ago ({self.name})"


class MeshView:
    """What the members' packets prove of this node, gathered from their rows."""

    def __init__(self) -> None:
        self.own_name = ""
        self.own_out_s: float | None = None
        self.isolated_s: float | None = None
        self.others_count = 0
        self.alive_count = 0
        self.heard = Latest()
        self.answered = Latest()
        self.agreed = Latest()
        self.datagram = Latest()
        self.tcp_only: list[str] = []
        self.versions = PolicyVersions()
        self._known: dict[str, Known] = {}

    def take(self, member: dict[str, Any]) -> None:
        """Take a member's row."""
        name, status = member["name"], member["status"]
        self.versions.take(member)
        if member["self"]:
            self.own_name = name
            self.own_out_s = member["quarantine_s"] if status == "dead" else None
            return
        self.others_count += 1
        for address in member["gossip_addresses"]:
            self._known[address] = Known(name, status, member["heard_s"] is not None)
        self.heard.take(name, member["heard_s"])
        if status == "alive":
            self.alive_count += 1
            self.answered.take(name, member["answered_s"])
            self.agreed.take(name, member["agreed_s"])
            self.datagram.take(name, member["datagram_s"])
            if member["reachability"] == TCP_ONLY:
                self.tcp_only.append(name)

    def at(self, address: Address) -> Known | None:
        """Return who is known to be at an address."""
        return self._known.get(str(address))


def check_standing(
    view: MeshView,
    seeds: Sequence[Address],
    uptime_s: float,
    refutations: Sequence[tuple[float, str]],
    unresolved: Mapping[str, str],
) -> list[Row]:
    """Return how this node stands with the others.

    Args:
        view: all members have been taken.
        seeds: those that are not this node.
        uptime_s: how long this agent has run.
        refutations: verdicts against this node that it has answered: (age in seconds, what was said).
        unresolved: seeds whose host name does not resolve now, and why.
    """
    rows = _check_seeds(view, seeds) if seeds or not unresolved else []
    rows += _check_seed_names(view, unresolved)
    if view.isolated_s is not None:
        rows.append(_isolated(view.isolated_s))
    if view.alive_count:
        rows += [_check_answers(view, uptime_s), _check_news(view, uptime_s), *_check_datagrams(view)]
    return [*rows, _check_verdicts(view, refutations)]


def _check_seeds(view: MeshView, seeds: Sequence[Address]) -> list[Row]:
    if not seeds:
        return [make_row("seeds", Mark.OK, "none are configured")]
    silent = [seed for seed in seeds if not _answers(view.at(seed))]
    evidence = {"seeds": [str(seed) for seed in seeds], "silent": [str(seed) for seed in silent]}
    why = "a node that starts, and halves of a mesh that were apart for long, find the others by seeds only"
    if view.heard.age_s is None:
        detail = f"nobody answers at any of {len(seeds)}: {some_of(map(str, seeds))}"
        why = "this node is a mesh of its own: no member, service or policy of the others reaches it"
        hint = "see that agents run there, that UDP and TCP pass both ways, and that spec.seeds is right"
        return [make_row("seeds", Mark.FAIL, detail, why, hint, **evidence)]
    detail = f"{len(seeds) - len(silent)} of {len(seeds)} answer"
    if silent:
        detail += f"; silent: {some_of(_described(view, seed) for seed in silent)}"
    hint = "start the agent there, or name another node in spec.seeds"
    return [make_row("seeds", warn_unless(not silent), detail, why, hint, **evidence)]


def _check_seed_names(view: MeshView, unresolved: Mapping[str, str]) -> list[Row]:
    if not unresolved:
        return []
    detail = f"no address for {some_of(f'{seed} ({reason})' for seed, reason in unresolved.items())}"
    why = "a node that starts, and halves of a mesh that were apart for long, find the others by seeds only"
    hint = (
        "see that the name is right in spec.seeds, and that this machine's resolver answers: `getent hosts`"
    )
    mark = Mark.FAIL if view.heard.age_s is None else Mark.WARN
    return [make_row("seed names", mark, detail, why, hint, unresolved=dict(unresolved))]


def _answers(known: Known | None) -> bool:
    return known is not None and known.is_heard and known.status == "alive"


def _described(view: MeshView, seed: Address) -> str:
    known = view.at(seed)
    return f"{seed} (no member has it)" if known is None else f"{seed} ({known.name}, {known.status})"


def _isolated(isolated_s: float) -> Row:
    detail = f"nobody was heard for {age_text(isolated_s)}, and nobody answers: this node itself is cut off"
    why = "it is dead to the others; its requests go to endpoints of its own first, and fail at others"
    hint = (
        "look at this machine's addresses, routes and firewall: `ip address`, `ip route`, `nft list ruleset`"
    )
    return make_row("isolated", Mark.FAIL, detail, why, hint, isolated_s=isolated_s)


def _check_answers(view: MeshView, uptime_s: float) -> Row:
    """Does anybody hear this node?"""
    latest = view.answered
    answered = f"{latest.lately_count} of {view.alive_count} answered in 3 minutes"
    detail = f"the last answer came {latest.text}; {answered}"
    mark = fail_unless(latest.within(_SILENT_S))
    if mark is Mark.FAIL and uptime_s < _SILENT_S:
        mark = Mark.WARN
        detail += f", and the agent has run for {age_text(uptime_s)}"
    why = "who is not heard is declared dead: its endpoints go out of use, its changes reach nobody"
    return make_row("heard by others", mark, detail, why, _REACH, answered_s=latest.age_s, by=latest.name)


def _check_news(view: MeshView, uptime_s: float) -> Row:
    """How old is what this node knows, and do others hold the same, itself included?"""
    heard, agreed = view.heard, view.agreed
    detail = (
        f"the last packet came {heard.text}, the last equal state sum {agreed.text}; "
        f"in 3 minutes {agreed.lately_count} of {view.alive_count} held this node alive at its newest"
    )
    why = "members, services and policy may be out of date here, or this node's own at the others"
    evidence = {"heard_s": heard.age_s, "agreed_s": agreed.age_s, "agreeing": agreed.lately_count}
    return make_row("news", _judge_news(view, uptime_s), detail, why, _REACH, **evidence)


def _judge_news(view: MeshView, uptime_s: float) -> Mark:
    """Nothing is held against a node that has not run for as long."""
    if uptime_s > _SILENT_S and not view.heard.within(_SILENT_S):
        return Mark.FAIL
    if uptime_s <= _APART_WARN_S or view.agreed.within(_APART_WARN_S):
        return Mark.OK
    return Mark.WARN if uptime_s <= _APART_FAIL_S or view.agreed.within(_APART_FAIL_S) else Mark.FAIL


def _check_datagrams(view: MeshView) -> list[Row]:
    """Is anybody reached by streams alone, and is that this node's own doing?"""
    if not view.tcp_only:
        return []
    is_quiet = not view.datagram.within(DATAGRAMS_QUIET_NS / SECOND_NS)
    is_own = is_own_loss(len(view.tcp_only), view.alive_count, is_quiet=is_quiet)
    by_stream = f"{len(view.tcp_only)} of {view.alive_count} members are reached by TCP only"
    detail = f"{by_stream} ({some_of(view.tcp_only)}); the last datagram came {view.datagram.text}"
    evidence = {"members": view.tcp_only, "datagram_s": view.datagram.age_s}
    why = "their UDP is dropped: this node tells them by stream, others may tell them later"
    hint = "see that UDP of their gossip addresses passes both ways; `gossipmesh check` there says more"
    if is_own:
        detail = f"TCP only: {detail}"
        why = "UDP to this node or from it is dropped: it hears of changes, and is heard, by a few streams"
        hint = "see that UDP of spec.gossip.bind passes both ways: firewalls, security groups, NAT, routes"
    return [make_row("datagrams", Mark.FAIL if is_own else Mark.WARN, detail, why, hint, **evidence)]


def _check_verdicts(view: MeshView, refutations: Sequence[tuple[float, str]]) -> Row:
    why = "a node that was deaf or lost packets stays out of use for two minutes, longer if it happens again"
    hint = "look at its network and its load; `gossipmesh why` with its name says on others who voted"
    if view.own_out_s is not None:
        detail = (
            f"this node was deaf or lost packets, and stays out of use for {age_text(view.own_out_s)} more"
        )
        return make_row("verdicts", Mark.FAIL, detail, why, hint, out_s=view.own_out_s)
    recent = [(age_s, said) for age_s, said in refutations if age_s <= _OUT_S]
    if not recent:
        return make_row("verdicts", Mark.OK, f"none against this node within {age_text(_OUT_S)}")
    age_s, said = min(recent)
    detail = f"this node was declared {said} {age_text(age_s)} ago, and has answered that it lives"
    return make_row("verdicts", Mark.WARN, detail, why, hint, age_s=age_s, said=said)


def refutations_of(entries: Sequence[HistoryEntry], now: int) -> list[tuple[float, str]]:
    """Return the verdicts a node answered, from what is remembered of it."""
    return [((now - entry.at) / SECOND_NS, entry.detail) for entry in entries if entry.kind == "refuted"]


def check_versions(view: MeshView) -> list[Row]:
    """Return, scope by scope, whether this node runs what the others run, and who of them is behind."""
    rows: list[Row] = []
    for scope in view.versions.scopes:
        newest, own = view.versions.newest(scope), view.versions.of(scope, view.own_name)
        behind = [member.name for member in view.versions.behind(scope)]
        alive = view.versions.alive_count
        detail = f"{alive - len(behind)} of {alive} alive members run {scope}:{newest}"
        if behind:
            detail += f"; behind: {some_of(behind)}"
        why = "this node decides by older rules who may call whom, and where requests go"
        hint = "a push takes a second or two; if it lasts, see `news` above, and the log for what was refused"
        evidence = {"scope": scope, "version": own, "newest": newest, "behind": behind}
        rows.append(make_row("policy of others", fail_unless(own >= newest), detail, why, hint, **evidence))
    return rows
