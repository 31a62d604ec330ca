"""What is to be looked at in Trust and policy: said once in the log, shown by `check` and `policy status`.

It ends at saying: what verified documents give away is noted by `trust.alarms`; here is added what follows
from the date, which no core reads: a set whose signers have not been heard of since its `refresh_by`.
"""

import logging
from typing import Final

import trio

from gossipmesh.agent.admin.check_rows import Mark, Row, make_row
from gossipmesh.agent.logs import fields
from gossipmesh.agent.state.alarm_records import keep_alarms
from gossipmesh.agent.state.state_writer import StateWriter
from gossipmesh.model.instant import DAY_S, WallSeconds
from gossipmesh.model.snapshot import CallersSection
from gossipmesh.net.clock import wall_seconds
from gossipmesh.traffic.sections import Snapshot
from gossipmesh.trust.alarms import DocumentAlarm, Name
from gossipmesh.trust.documents import TrustedDocuments

log = logging.getLogger("gossipmesh.agent.policy")

_LOOK_S: Final = 1.0
_WHY: Final = "whoever signs policy decides who may call whom"
_HINTS: Final = {
    "overdue": "push the scope again, by whoever signs it; what is in force stays in force",
    "jump": "ask the signer; if nobody meant it: `gossipmesh authority rotate signer`",
    "rival-sets": "nothing but `gossipmesh release --alarms`, if two pushed at once; else "
    "`gossipmesh authority rotate signer`",
    "rival-trusts": "find out who has root keys; /v1/policy/status has both documents",
}


def alarms_of(documents: TrustedDocuments, now: WallSeconds) -> list[DocumentAlarm]:
    """Return what is to be looked at now: sets past their date by scope, then what was noted in turn."""
    overdue: list[DocumentAlarm] = []
    for scope in documents.scopes():
        held = documents.in_force(scope)
        if held is not None and held.manifest.refresh_by < now:
            days = (now - held.manifest.refresh_by) // DAY_S
            text = (
                f"version {held.version} of {scope!r} should have been signed again {days} days ago: its "
                "signers are silent, or newer sets are kept from this node"
            )
            overdue.append(DocumentAlarm("overdue", scope, held.version, text))
    return [*overdue, *documents.alarms.kept]


def alarm_rows(documents: TrustedDocuments, now: WallSeconds) -> list[Row]:
    """Return a row of `check` for each alarm."""
    return [
        make_row("policy alarm", Mark.WARN, one.text, _WHY, _HINTS[one.kind], kind=one.kind, scope=one.scope)
        for one in alarms_of(documents, now)
    ]


def unregistered_rows(snapshot: Snapshot | None) -> list[Row]:
    """Return a row while a MeshPolicy gives processes of no service an identity this node has not got."""
    callers = None if snapshot is None or "callers" not in snapshot.root else snapshot.section("callers")
    if not isinstance(callers, CallersSection) or callers.unregistered != callers.node_spiffe_id:
        return []
    detail = "processes of no registered service speak as the node: it has no identity for them yet"
    why = "the MeshPolicy has them speak as `/node/NAME/workloads`, and the node itself may be allowed more"
    hint = "start the authority, of this build or a later one: a renewal brings it"
    return [make_row("unregistered", Mark.WARN, detail, why, hint)]


async def watch_alarms(documents: TrustedDocuments, writer: StateWriter) -> None:
    """Say each alarm once, and have it kept on disk, for as long as the agent runs."""
    told: dict[Name, None] = {}
    while True:
        now = wall_seconds()
        keep_alarms(documents, writer, now)
        for one in alarms_of(documents, now):
            if one.name not in told:
                told[one.name] = None
                log.error("%s; %s", one.text, _HINTS[one.kind], extra=fields(kind=one.kind, scope=one.scope))
        await trio.sleep(_LOOK_S)
