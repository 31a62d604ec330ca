"""What verified documents give away about their signers: kept with the proof, and bounded.

An alarm changes nothing that is in force: whoever is refused is refused, whoever wins wins. It ends at
keeping; saying it is the agent's, and so is the disk.
Spec: TUF section 1.5.2 (fast-forward, mix-and-match). Deviation: TUF keeps no proof; here two signed
    documents that contradict each other are all an operator needs to know whose key to replace.
"""

from collections.abc import Sequence

import msgspec

from gossipmesh.model import limits

Name = tuple[str, str, int]


class DocumentAlarm(msgspec.Struct, frozen=True, array_like=True):
    """`kind` is jump, rival-sets or rival-trusts; `scope` is empty for Trust; `proofs` are signed envelopes.

    A proof that is larger than a bound is left out, its place is empty. `noted_at` is when it came to the
    disk, in wall seconds; 0: it did not yet.
    """

    kind: str
    scope: str
    version: int
    text: str
    proofs: tuple[bytes, ...] = ()
    noted_at: int = 0

    @property
    def name(self) -> Name:
        """Return what there is one alarm of."""
        return (self.kind, self.scope, self.version)


class Alarms:
    """The first alarm of each name, as many as are kept, those of runs before included.

    `count` are those of this run.
    """

    def __init__(self) -> None:
        self._kept: dict[Name, DocumentAlarm] = {}
        self._forgotten: list[DocumentAlarm] = []
        self.count = 0

    @property
    def kept(self) -> list[DocumentAlarm]:
        """Return those that are kept, oldest first."""
        return list(self._kept.values())

    def note(self, kind: str, scope: str, version: int, text: str, proofs: Sequence[bytes] = ()) -> None:
        """Count an alarm that was not raised before, and keep it while there is room."""
        if (kind, scope, version) in self._kept:
            return
        self.count += 1
        bounded = tuple(one if len(one) <= limits.ALARM_PROOF_BYTES_MAX else b"" for one in proofs)
        self.keep(DocumentAlarm(kind, scope, version, text, bounded))

    def keep(self, alarm: DocumentAlarm) -> None:
        """Keep an alarm in place of one of its name, or while there is room."""
        if alarm.name in self._kept or len(self._kept) < limits.DOCUMENT_ALARMS_MAX:
            self._kept[alarm.name] = alarm

    def forget(self, alarm: DocumentAlarm) -> None:
        """Keep an alarm no more: it was seen to, or is long past."""
        if self._kept.pop(alarm.name, None) is not None:
            self._forgotten.append(alarm)

    def take_forgotten(self) -> list[DocumentAlarm]:
        """Return those that were forgotten since the last call."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten
