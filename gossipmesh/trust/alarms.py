"""What verified documents give away about their signers: kept with the proof, and bounded.

An alarm changes nothing that is in force: whoever is refused is refused, whoever wins wins. It ends at
keeping; saying it is the agent's.
Spec: TUF section 1.5.2 (fast-forward, mix-and-match). Deviation: TUF keeps no proof; here two signed
    documents that contradict each other are all an operator needs to know whose key to replace.
"""

from collections.abc import Sequence

import msgspec

from gossipmesh.model import limits


class DocumentAlarm(msgspec.Struct, frozen=True):
    """`kind` is jump, rival-sets or rival-trusts; `scope` is empty for Trust; `proofs` are signed envelopes.

    A proof that is larger than a bound is left out, its place is empty.
    """

    kind: str
    scope: str
    version: int
    text: str
    proofs: tuple[bytes, ...] = ()


class Alarms:
    """The alarms since the start: the first of each (kind, scope, version), as many as are kept."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, int], DocumentAlarm] = {}
        self.count = 0

    @property
    def kept(self) -> list[DocumentAlarm]:
        """Return those that are kept, oldest first."""
        return list(self._kept.values())

    def note(self, kind: str, scope: str, version: int, text: str, proofs: Sequence[bytes] = ()) -> None:
        """Count an alarm that was not raised before, and keep it while there is room."""
        name = (kind, scope, version)
        if name in self._kept:
            return
        self.count += 1
        if len(self._kept) < limits.DOCUMENT_ALARMS_MAX:
            bounded = tuple(one if len(one) <= limits.ALARM_PROOF_BYTES_MAX else b"" for one in proofs)
            self._kept[name] = DocumentAlarm(kind, scope, version, text, bounded)
