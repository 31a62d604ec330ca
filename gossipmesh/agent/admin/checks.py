"""Is this node well? Its identity, machine, engine, policy and services; how others see it is `mesh_checks`'.

Each row has a name and a mark, and what is not ok says why it matters and how to mend it.
"""

from collections.abc import Sequence
from typing import Final

from gossipmesh.agent.admin.admin_views import Parts
from gossipmesh.agent.admin.check_facts import Facts
from gossipmesh.agent.admin.check_rows import Mark, Row, clock_mark, fail_unless, make_row, warn_unless
from gossipmesh.agent.admin.engine_checks import check_engine
from gossipmesh.agent.admin.key_checks import check_identity
from gossipmesh.agent.admin.mesh_checks import MeshView, check_versions
from gossipmesh.agent.admin.policy_alarms import alarm_rows, unregistered_rows
from gossipmesh.agent.engine.catalog_feed import lacking_scopes
from gossipmesh.agent.gate import BY_HAND
from gossipmesh.agent.services.service_files import LocalRegistration
from gossipmesh.model import limits
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.opening import HowOpened
from gossipmesh.model.service import EndpointHealth
from gossipmesh.net.clock import wall_seconds

_MEBIBYTE: Final = 2**20
_DISK_SHARE_MIN: Final = 0.1  # what the access log leaves alone
_DISK_FREE_BYTES_MIN: Final = 16 * _MEBIBYTE  # a few times the state of a thousand members
_CLOCK_JUDGES_MIN: Final = 3
_GONE: Final = (MemberStatus.DEAD, MemberStatus.UNATTENDED)
_NAMES_MAX: Final = 10
_HEALTH_WARN: Final = 3  # of local health: 0 is healthy, 7 the worst
_HEALTH_FAIL: Final = 7
_LOG: Final = "see engine.log in spec.stateDir"


def run_checks(parts: Parts, facts: Facts, view: MeshView, standing: Sequence[Row]) -> list[Row]:
    """Return every check's row, in the order a person mends things; `standing` is `mesh_checks`'."""
    return [
        *_check_opening(parts),
        *check_identity(parts),
        *_check_authority(parts, facts),
        *_check_addresses(parts),
        *_check_clock(parts),
        *_check_disk(parts, facts),
        *standing,
        *_check_group(parts),
        *_check_held(parts),
        *check_engine(parts),
        *_check_policy(parts),
        *alarm_rows(parts.documents, wall_seconds()),
        *unregistered_rows(parts.feed.snapshot),
        *check_versions(view),
        *_check_files(parts),
        *_check_services(parts),
        *_check_exposure(parts, facts.listening),
    ]


def _check_opening(parts: Parts) -> list[Row]:
    """Does this node answer calls, and on whose word?"""
    gate = parts.gate
    if gate.is_closed:
        why = "no call from other nodes is answered here, and this node's services are offered to nobody"
        return [make_row("opening", Mark.FAIL, f"closed: {gate.why}", why, f"mend that; {BY_HAND}")]
    how = None if gate.opened is None else HowOpened(gate.opened.how)
    if how not in (HowOpened.BY_HAND, HowOpened.BY_FEWER):
        return []
    detail = f"opened {how}: {gate.opened.agreed_count if gate.opened else 0} members named what it runs then"
    why = "its policy may be older than the mesh's, or missing: it may answer what others deny"
    hint = "compare `gossipmesh policy status` here and on others; a restart of the agent ends this word"
    return [make_row("opening", Mark.WARN, detail, why, hint)]


def _check_authority(parts: Parts, facts: Facts) -> list[Row]:
    authorities = ", ".join(parts.identity.authorities)
    if not authorities:
        return []
    failure = facts.authority_failure
    detail = f"{authorities} takes connections" if failure is None else f"it takes none: {failure}"
    why = "no node can join or be revoked until it serves again, and credentials end after weeks"
    hint = "start it there: `gossipmesh authority serve`; where it moved to, set spec.authorities"
    return [make_row("authority", warn_unless(failure is None), detail, why, hint, failure=failure)]


def _check_addresses(parts: Parts) -> list[Row]:
    """An address may go under a running agent, by DHCP or by hand; its sockets do not notice."""
    keeper, lost = parts.addresses, parts.addresses.lost
    detail = f"others find this node at {', '.join(map(str, parts.node.own_state.gossip_addresses))}"
    if lost:
        detail += f"; this machine has lost {', '.join(f'{host} ({key})' for key, host in lost.items())}"
    why = "nothing that others send there arrives: they hold this node dead, or will soon"
    hint = "give the machine that address back, or change the key and restart the agent"
    if keeper.follows:
        hint += "; one that the agent found itself is replaced once another leads to the seeds or members"
    evidence = {"lost": lost, "changes": keeper.published_count, "held_back": keeper.held_back_count}
    return [make_row("addresses", fail_unless(not lost), detail, why, hint, **evidence)]


def _check_disk(parts: Parts, facts: Facts) -> list[Row]:
    disk = facts.disk
    if disk is None or not disk.size_bytes:
        return []
    share = disk.free_bytes / disk.size_bytes
    mark = warn_unless(share >= _DISK_SHARE_MIN)
    if mark is not Mark.OK and disk.free_bytes < _DISK_FREE_BYTES_MIN:
        mark = Mark.FAIL
    free, size = (amount // _MEBIBYTE for amount in disk)
    detail = f"{free} of {size} MiB are free for {parts.config.state_dir}"
    why = "the access log leaves lines out, and an agent whose disk is full ends: its engine serves on alone"
    evidence = {"free_bytes": disk.free_bytes, "size_bytes": disk.size_bytes}
    return [make_row("disk", mark, detail, why, "make room there", **evidence)]


def _check_clock(parts: Parts) -> list[Row]:
    statistics = parts.node.statistics()
    skew_s, peers_count = statistics.clock_skew_s, statistics.clock_peers
    below_s = statistics.clock_below_records_s
    mark = clock_mark(skew_s)
    detail = f"{abs(skew_s)} s {'behind' if skew_s > 0 else 'ahead of'} {_judges_text(peers_count)}"
    if below_s > limits.CLOCK_TOLERANCE_S:
        mark = Mark.FAIL
        detail += f"; {below_s} s behind the newest date that the authority signed, which counts instead"
    why = "certificates are judged by civil time: past their margin good ones are refused, ended ones taken"
    evidence = {"skew_s": skew_s, "peers": peers_count, "below_records_s": below_s}
    return [make_row("clock", mark, detail, why, "run NTP on this machine", **evidence)]


def _judges_text(peers_count: int) -> str:
    """Say by how many peers our clock is judged: fewer than three cannot tell whose it is that is off."""
    if not peers_count:
        return "the median of no peer: none has told its clock yet"
    if peers_count < _CLOCK_JUDGES_MIN:
        return f"{'the only peer' if peers_count == 1 else 'both peers'} heard: too few to tell whose is off"
    return f"the median of {peers_count} peers"


def _check_group(parts: Parts) -> list[Row]:
    tally = parts.node.tally()
    alive = tally.by_status[MemberStatus.ALIVE]
    group_sum = parts.node.state_sums()[0].hex()[:8]
    detail = f"{alive} of {tally.members_count} members alive, state sum {group_sum}"
    gone = parts.node.names(_GONE, _NAMES_MAX)
    if gone:
        detail += f"; dead or unattended: {', '.join(gone)}"
    alone = tally.members_count > 1 and alive == 1
    why = "this node is on its own: no news, policy or service of the others reaches it"
    hint = "see that UDP and TCP of spec.gossip.bind reach the other nodes"
    counts = {"alive": alive, "members": tally.members_count, "state_sum": group_sum}
    rows = [make_row("group", fail_unless(not alone), detail, why, hint, **counts)]
    health = parts.node.local_health
    mark = warn_unless(health < _HEALTH_WARN) if health < _HEALTH_FAIL else Mark.FAIL
    why = "this node answers late or loses packets: others may hold it dead, and it judges slowly"
    detail = f"{health} (0 is healthy, {_HEALTH_FAIL} the worst)"
    hint = "look at its load and its network"
    return [*rows, make_row("local health", mark, detail, why, hint, local_health=health)]


def _check_held(parts: Parts) -> list[Row]:
    held_count = parts.node.tally().endpoints_retained_count
    if not held_count:
        return []
    detail = f"the endpoints of {held_count} members that went within a minute are kept, for an hour at most"
    why = "so many at once are likelier this node's own trouble; if not, traffic goes to what is gone"
    hint = "look at this node's network; when they are really gone, `gossipmesh release`"
    return [make_row("mass death", Mark.FAIL, detail, why, hint, members=held_count)]


def _check_policy(parts: Parts) -> list[Row]:
    rows: list[Row] = []
    why = "who may call whom is decided by older rules here than where the newer set runs"
    for policy in parts.node.own_state.policies:
        refused = policy.refused_version > policy.version
        detail = f"scope {policy.scope} version {policy.version}"
        if refused:
            detail += f"; version {policy.refused_version} was refused: {policy.refused_reason}"
        hint = "push a set this node can execute"
        rows.append(make_row("policy", fail_unless(not refused), detail, why, hint))
    for scope in lacking_scopes(parts.documents):
        detail = f"scope {scope}: the set in force cannot be read any more; who may call stays as it was"
        hint = "run a build that can, or push a set this one can execute"
        rows.append(make_row("policy", Mark.FAIL, detail, why, hint))
    return rows or [make_row("policy", Mark.OK, "none in force")]


def _check_files(parts: Parts) -> list[Row]:
    why = "what the file was changed for is not in force"
    hint = "mend the file; the service goes on as it was"
    return [make_row("service file", Mark.FAIL, problem, why, hint) for problem in parts.services.problems()]


def _check_services(parts: Parts) -> list[Row]:
    rows: list[Row] = []
    for entry in parts.services.registrations():
        health = parts.services.health(entry.registration)
        detail = f"{entry.service} at {entry.workload} is {health.label}"
        why = "no node sends it traffic while others serve"
        hint = f"see why {entry.workload} fails its checks"
        mark = fail_unless(health is EndpointHealth.PASSING)
        rows.append(make_row("service", mark, detail, why, hint, service=entry.service, health=health.label))
    return rows


def _check_exposure(parts: Parts, listening: list[Address]) -> list[Row]:
    """A workload that listens beyond loopback can be reached around the mesh, its policies and its TLS."""
    rows: list[Row] = []
    for entry in parts.services.registrations():
        exposed = _exposed(entry, listening)
        if exposed:
            detail = f"{entry.service} listens on {', '.join(exposed)}"
            why = "whoever reaches that address goes around the mesh's policies and its TLS"
            rows.append(make_row("exposure", Mark.WARN, detail, why, "bind it to 127.0.0.1"))
    return rows


def _exposed(entry: LocalRegistration, listening: list[Address]) -> list[str]:
    return [
        str(address)
        for address in listening
        if address.port == entry.workload.port
        and not address.host.startswith("127.")
        and address.host != "::1"
    ]
