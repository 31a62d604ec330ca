"""What an authority answered to a renewal, handed to the core in an order it can take. No clock, no disk.

Rules:
1. A credential counts by the Trust in force. Whoever was away while the authority's credential key was
   changed is answered with a credential of the new key, and with the Trust that names it: Trust goes first.
2. Trust is in force once it is on disk, so the credential waits until the core says that it is.
3. A later answer takes an earlier one's place.
Ends at the core's inputs; asking is `enrolment`'s, what is kept on disk `key_keeper`'s.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from gossipmesh.gossip.base.effects import Effect
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import SignedRecord
from gossipmesh.trust.documents import TrustedDocuments

log = logging.getLogger("gossipmesh.agent.identity.renewed")

CoreStep = Callable[[Any, Instant], list[Effect]]


class RenewedIdentity:
    """The newest credential on its way into the core."""

    def __init__(self, documents: TrustedDocuments, step: Callable[[CoreStep], None]) -> None:
        """`step` gives the core one input and performs what it asks for."""
        self._documents = documents
        self._step = step
        self._credential: SignedRecord | None = None

    @property
    def waits(self) -> bool:
        """Tell whether a credential waits for a Trust that names its signer."""
        return self._credential is not None

    def take(self, trust_envelopes: Sequence[bytes], credential: SignedRecord) -> None:
        """Take an answer: every version of Trust, oldest first, and the credential signed under them."""
        self._credential = credential
        held = set(self._documents.trust_envelopes)
        for envelope in trust_envelopes:
            if envelope not in held and not self._offer(envelope):
                break
        self.go_on()

    def go_on(self) -> None:
        """Hand the credential over if the Trust in force names its signer. Not to be called within a step."""
        credential = self._credential
        if credential is None or credential.key_id not in self._documents.credential_keys:
            return
        self._credential = None
        try:
            self._step(lambda core, now: core.renew_credential(credential, now))
        except MalformedInput as error:
            log.error("the renewed credential was not taken: %s", error)

    def _offer(self, envelope: bytes) -> bool:
        try:
            self._step(lambda core, now: core.offer_trust(envelope, now))
        except MalformedInput as error:
            log.error("the Trust that came with the renewed credential was not taken: %s", error)
            return False
        return True
