"""The next version of Trust: what changes, whether it may be, and who has to sign it. Pure.

Ends at an envelope: reading keys and handing it out are the commands'. Every command that changes Trust goes
through `successor` and `sign_trust`.
Rules:
1. What no node would take is not signed: the rules nodes judge by are asked first.
2. Both thresholds are met, the old Trust's and the new one's, or nothing is signed.
3. A field that a member's build refuses is not published: `require_features` names those members.
Spec: TUF section 5.3 (root rotation) and 6.1 (key management and migration).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.documents import (
    Signer,
    SignerRole,
    TrustDocument,
    first_version_of,
    generation_of,
    says_more_than_0_2,
)
from gossipmesh.model.enrolment import LEAF_LIFE_S
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.instant import HOUR_S, WallSeconds
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, Envelope, seal_envelope
from gossipmesh.trust.keys import SigningKey, key_id
from gossipmesh.trust.svid import certificate_sha256
from gossipmesh.trust.trust_rules import trust_problems
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted
from gossipmesh.wire.versions import ROLLS, TRUST_FIELDS

_NAMES_TOLD: Final = 10
_CLOCKS_S: Final = HOUR_S


def successor(current: TrustDocument, **changes: Any) -> TrustDocument:
    """Return the version that follows `current` with some fields changed, not signed yet.

    Raises:
        OperatorError: no node would take it, or so many versions are published that few are left. State
            unchanged.
    """
    if current.version >= limits.TRUST_VERSION_PUBLISHED_MAX:
        raise OperatorError(
            f"Trust is at version {current.version}, and nodes keep every one: no command publishes more "
            f"than {limits.TRUST_VERSION_PUBLISHED_MAX}; find out what publishes so many, and set up a new "
            "trust domain"
        )
    document = msgspec.structs.replace(current, version=current.version + 1, **changes)
    wrong = trust_problems(document)
    if wrong:
        raise OperatorError(
            f"Trust version {document.version} cannot be: its {', '.join(wrong)} would be refused by every "
            "node; nothing was signed"
        )
    added = {*document.root_certificates, *document.intermediates}
    for pem in sorted(added - {*current.root_certificates, *current.intermediates}):
        _require_certificate(pem)
    return document


def _require_certificate(pem: str) -> None:
    """Check that a text is one certificate: nodes take a Trust as it is signed, and trip over it later.

    Raises:
        OperatorError: it is none, or several. State unchanged.
    """
    try:
        count = len(certificates_in_pem_untrusted(pem.encode()))
        certificate_sha256(pem)
    except MalformedInput as error:
        raise OperatorError(f"a certificate for Trust cannot be read ({error}); nothing was signed") from None
    if count != 1:
        raise OperatorError(f"{count} certificates where Trust takes one; nothing was signed")


def sign_trust(current: TrustDocument, document: TrustDocument, root_keys: Sequence[SigningKey]) -> Envelope:
    """Sign the version after `current`, if these keys are enough of the old and of the new root keys.

    Raises:
        OperatorError: fewer keys than a threshold, or larger than nodes take. State unchanged.
    """
    for trust, which in ((current, "in force"), (document, "to come")):
        counted = len({key.public.hex() for key in root_keys} & set(trust.root_keys))
        if counted < trust.root_threshold:
            raise OperatorError(
                f"Trust version {document.version} needs {trust.root_threshold} of the "
                f"{len(trust.root_keys)} document root keys of the Trust {which}, {counted} given; bring the "
                "others, each a file that `authority init` made in DIR/documents"
            )
    given = {key.public.hex(): key for key in root_keys}
    named = dict.fromkeys((*document.root_keys, *current.root_keys))  # the order that nodes keep them in
    signing = [given[name] for name in named if name in given]
    if len(signing) > limits.SIGNATURES_PER_ENVELOPE_MAX:
        raise OperatorError(
            f"{len(signing)} root keys given, nodes count {limits.SIGNATURES_PER_ENVELOPE_MAX}: give fewer"
        )
    envelope = seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(document), signing)
    size = len(envelope.to_bytes())
    if size > limits.TRUST_BYTES_MAX:
        raise OperatorError(
            f"Trust version {document.version} has {size} bytes, nodes take {limits.TRUST_BYTES_MAX}: take "
            "out certificates or revocations that nothing needs any more"
        )
    return envelope


def require_features(document: TrustDocument, lacking: Iterable[str]) -> None:
    """Refuse to publish fields that members of older builds do not read; `lacking` names those members.

    Raises:
        OperatorError: names them. State unchanged.
    """
    names = sorted(lacking)
    if names and says_more_than_0_2(document):
        raise OperatorError(
            f"this Trust has fields that {len(names)} members do not read (no {TRUST_FIELDS!r} among "
            f"their features): {_some(names)}; upgrade or revoke those first, nothing was signed"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    return ", ".join(names[:_NAMES_TOLD]) + more


def require_roll_readers(lacking: Iterable[str]) -> None:
    """Refuse to drop a key by a roll that some members do not read; `lacking` names those members.

    Raises:
        OperatorError: names them. State unchanged.
    """
    names = sorted(lacking)
    if names:
        raise OperatorError(
            f"{len(names)} members do not read a roll (no {ROLLS!r} among their features): {_some(names)}; "
            "they would go on believing the stolen key. Upgrade or revoke those first; nothing was made"
        )


def require_trust_held(version: int, lacking: Iterable[str]) -> None:
    """Refuse to use a key before every member has the Trust that names it; `lacking` names the others.

    Raises:
        OperatorError: names them. State unchanged.
    """
    names = sorted(lacking)
    if names:
        raise OperatorError(
            f"{len(names)} members do not say that they have Trust version {version}, and would refuse "
            f"what the new key signs: {_some(names)}; wait until they have it (builds before 0.3 never say "
            "so), or go on with --force"
        )


def find_signer(trust: TrustDocument, name: str, role: SignerRole) -> Signer:
    """Return the signer of a name and a role.

    Raises:
        OperatorError: Trust names none such; the sentence has those there are. State unchanged.
    """
    named = [signer for signer in trust.signers if signer.role is role]
    found = next((signer for signer in named if signer.name == name), None)
    if found is None:
        there = ", ".join(f"{signer.name} ({' '.join(signer.scopes) or role.value})" for signer in named)
        raise OperatorError(f"Trust names no {role.value} signer {name!r}; there are: {there or 'none'}")
    return found


def next_generation(trust: TrustDocument, scope: str) -> int:
    """Return the generation after the one Trust names for a scope.

    Raises:
        OperatorError: there is none left. State unchanged.
    """
    generation = generation_of(trust.floors.get(scope, 0)) + 1
    if first_version_of(generation + 1) > limits.VERSION_MAX:
        raise OperatorError(f"the scope {scope!r} has used all its generations; use another scope")
    return generation


def rotate_signer(trust: TrustDocument, name: str, public_key: bytes) -> TrustDocument:
    """Return the next Trust: another key for a policy signer, and the next generation of each of its scopes.

    What the former key signed counts no more, whatever its version.

    Raises:
        OperatorError: no such signer, its key again, or what `successor` says. State unchanged.
    """
    former = find_signer(trust, name, SignerRole.POLICY)
    if public_key.hex() == former.public_key:
        raise OperatorError(f"that is the key {name!r} has already ({key_id(public_key).hex()})")
    fresh = msgspec.structs.replace(former, public_key=public_key.hex())
    floors = {scope: first_version_of(next_generation(trust, scope)) for scope in former.scopes}
    return successor(
        trust,
        signers=tuple(fresh if signer is former else signer for signer in trust.signers),
        floors={**trust.floors, **floors},
    )


def revoke_node(trust: TrustDocument, name: str, generation: int) -> TrustDocument:
    """Return the next Trust, which revokes a node's generation and all before it, by its root keys.

    Raises:
        OperatorError: revoked already, or what `successor` says. State unchanged.
    """
    if trust.revoked.get(name, 0) >= generation:
        raise OperatorError(f"Trust revokes {name!r} up to generation {trust.revoked[name]} already")
    return successor(trust, revoked={**trust.revoked, name: generation})


def revoke_leaf(trust: TrustDocument, serial: int, now: WallSeconds) -> TrustDocument:
    """Return the next Trust, by which one certificate counts no more; what has ended meanwhile is left out.

    Raises:
        OperatorError: revoked already, or what `successor` says. State unchanged.
    """
    name = f"{serial:x}"
    standing = {one: ends for one, ends in trust.revoked_leaves.items() if ends > now}
    if name in standing:
        raise OperatorError(f"Trust revokes the certificate {name} already")
    # Whatever was issued until now has ended by then, on clocks that are an hour slow as well.
    return successor(trust, revoked_leaves={**standing, name: now + LEAF_LIFE_S + _CLOCKS_S})


def drop_intermediate(trust: TrustDocument, pem: str) -> TrustDocument:
    """Return the next Trust without an intermediate: what it issued is refused from then on.

    Raises:
        OperatorError: Trust does not name it, or what `successor` says. State unchanged.
    """
    if pem not in trust.intermediates:
        raise OperatorError("Trust does not name that intermediate")
    return successor(trust, intermediates=tuple(one for one in trust.intermediates if one != pem))
