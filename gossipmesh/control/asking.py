"""What a restored authority learns from the mesh before it signs: Trust, and who came and went since.

Everything is verified: Trust by its chain, credentials and tombstones by the credential keys in Trust.
What an agent leaves out cannot be known; numbers are above those used before in any case (`control.issuing`).
Ends at the records; who is asked is the command's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gossipmesh.control.backup import UNASKED_NAME
from gossipmesh.control.credentials import RECORD_BYTES_MAX
from gossipmesh.control.ledger import Enrolment, Ledger
from gossipmesh.control.roots import load_authority
from gossipmesh.control.trust_folder import read_trust, write_trust
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.identity import node_name_of_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.trust.envelope import decode_envelope_untrusted, says_the_same_untrusted
from gossipmesh.trust.keys import Verifier
from gossipmesh.trust.records import signed_bytes
from gossipmesh.wire.codec import decode_untrusted, encode


@dataclass(frozen=True)
class Learned:
    """What was new: versions of Trust, nodes enrolled since, nodes revoked since."""

    trusts: int
    enrolled: tuple[str, ...]
    revoked: tuple[str, ...]


def learn(directory: Path, trust: Sequence[bytes], records: Sequence[bytes], now: WallSeconds) -> Learned:
    """Take over what the mesh knows, and let the authority serve.

    Raises:
        OperatorError: another mesh's Trust, one that dropped this authority's keys, or a disk that refuses.
            What was taken over so far stays; the authority may not serve.
    """
    added = _follow(directory, trust)
    authority = load_authority(directory)
    keys = read_trust(directory).credential_keys
    ledger, verifier = Ledger(directory), Verifier()
    enrolled: list[str] = []
    revoked: list[str] = []
    with ledger.changing():
        for data in records:
            found = _opened(data, authority.trust_domain, keys, verifier)
            if found is None:
                continue
            record, credential = found
            name = node_name_of_spiffe_id(credential.spiffe_id) or ""
            known = ledger.enrolment(name)
            newest = (credential.generation, credential.serial)
            if known is not None and (known.generation, known.serial) >= newest:
                continue
            gone = not credential.signing_key
            (revoked if gone else enrolled).append(name)
            ledger.put_enrolment(_enrolment(name, record, credential, now if gone else None))
        detail = f"{added} versions of Trust; enrolled since: {len(enrolled)}, revoked since: {len(revoked)}"
        ledger.log.append(now, "asked the mesh", detail=detail)
    (directory / UNASKED_NAME).unlink(missing_ok=True)
    return Learned(added, tuple(sorted(enrolled)), tuple(sorted(revoked)))


def go_on_unasked(directory: Path, now: WallSeconds) -> None:
    """Let a restored authority serve although nobody could be asked, on record.

    Raises:
        OperatorError: a disk that refuses. State unchanged.
    """
    ledger = Ledger(directory)
    with ledger.changing():
        ledger.log.append(now, "goes on unasked")
    (directory / UNASKED_NAME).unlink(missing_ok=True)


def _follow(directory: Path, trust: Sequence[bytes]) -> int:
    """Put the versions of Trust that the folder lacks into it; return how many."""
    held = read_trust(directory)
    folder_count = len(held.trust_envelopes)
    try:
        is_ours = says_the_same_untrusted(trust[:folder_count], held.trust_envelopes[: len(trust)])
    except MalformedInput as error:
        raise OperatorError(f"that agent's Trust cannot be read: {error}") from None
    if not is_ours:
        raise OperatorError("that agent's Trust is not this authority's: ask one of its own mesh")
    for data in trust[folder_count:]:
        try:
            version = held.load_trust_untrusted(data).version
            write_trust(directory, decode_envelope_untrusted(held.trust_envelope(version)), version)
        except MalformedInput as error:
            raise OperatorError(
                f"that agent's Trust does not follow from this authority's: {error}"
            ) from None
    return max(0, len(trust) - folder_count)


def _opened(
    data: bytes, trust_domain: str, keys: dict[bytes, bytes], verifier: Verifier
) -> tuple[bytes, NodeCredential] | None:
    """Return a credential and its record, None for one that nobody in Trust signed."""
    try:
        record = decode_untrusted(data, SignedRecord, bytes_max=RECORD_BYTES_MAX)
        key = keys.get(record.key_id)
        message = signed_bytes(trust_domain, record.kind, record.body)
        if key is None or not verifier.verify(key, message, record.signature):
            return None
        return encode(record), decode_untrusted(record.body, NodeCredential, bytes_max=RECORD_BYTES_MAX)
    except MalformedInput:
        return None


def _enrolment(name: str, record: bytes, credential: NodeCredential, revoked: int | None) -> Enrolment:
    enrolment = Enrolment(
        node=name,
        generation=credential.generation,
        serial=credential.serial,
        signing_key=credential.signing_key,
        exchange_key=credential.exchange_key,
        services=credential.service_patterns,
        enrolled=credential.not_before,
        ends=credential.ends,
    )
    return msgspec.structs.replace(enrolment, credential=record, revoked=revoked)
