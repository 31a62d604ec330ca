"""Alarms of Trust and policy on the disk: two signed documents that contradict each other outlive this run.

Rules:
1. What is kept is bounded as it is in memory (`trust.alarms`), and by its age.
2. An alarm of a generation that Trust names no more is settled: its signer was replaced.
3. The rest ends by an operator's word (`gossipmesh release --alarms`), or with its time.
"""

import logging
from typing import Final

import msgspec

from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.agent.state.state_writer import StateWriter
from gossipmesh.gossip.base.effects import Persist, PersistKind
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import DAY_S, WallSeconds
from gossipmesh.trust.alarms import DocumentAlarm
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.wire.codec import decode_untrusted, encode

log = logging.getLogger("gossipmesh.agent.restore")

KEPT_S: Final = 90 * DAY_S  # as long as a set has before it should be signed again
_RECORD_BYTES_MAX: Final = 2 * limits.ALARM_PROOF_BYTES_MAX + 4_096


def restore_alarms(store: StateStore, documents: TrustedDocuments) -> None:
    """Take back the alarms of runs before; what cannot be read is left out and said."""
    for _, value in store.items(PersistKind.ALARM):
        try:
            documents.alarms.keep(decode_untrusted(value, DocumentAlarm, bytes_max=_RECORD_BYTES_MAX))
        except MalformedInput as error:
            log.error("a policy alarm on disk is left out: %s", error)


def keep_alarms(documents: TrustedDocuments, writer: StateWriter, now: WallSeconds) -> None:
    """Have what is new written and what is over removed; nobody waits for it."""
    alarms = documents.alarms
    for one in alarms.kept:
        if one.noted_at == 0:
            noted = msgspec.structs.replace(one, noted_at=now)
            alarms.keep(noted)
            writer.put_nowait(Persist(PersistKind.ALARM, _key(noted), encode(noted), durable=True))
        elif one.noted_at + KEPT_S < now or is_settled(documents, one):
            alarms.forget(one)
    for one in alarms.take_forgotten():
        writer.put_nowait(Persist(PersistKind.ALARM, _key(one), None, durable=False))


def is_settled(documents: TrustedDocuments, alarm: DocumentAlarm) -> bool:
    """Tell whether Trust has begun another generation of the alarm's scope since."""
    return alarm.scope != "" and not documents.is_current(alarm.scope, alarm.version)


def _key(alarm: DocumentAlarm) -> bytes:
    return f"{alarm.kind}/{alarm.scope}/{alarm.version}".encode()
