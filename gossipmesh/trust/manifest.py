"""How a signer makes the next version of a scope's policy: bodies, manifest, signature.

Ends at bytes: reading files is the command's, publishing the agent's, judging `TrustedDocuments`'.
Rules:
1. A body is the one JSON encoding of its document, so equal content has an equal hash.
2. A set grows only from a base whose signature was checked: whoever hands us the set in force could
   otherwise slip a document under our signature.
3. `since` stays with a name as long as the name stays; it settles conflicts of equal rank.
Spec: TUF section 4.5 (targets metadata: names, lengths, hashes), DSSE v1. Deviation: one signed list per
    scope, always whole, because a node takes all of a set or none.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.documents import Manifest, ManifestEntry, first_version_of
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.policy import Document, document_name
from gossipmesh.model.policy_rules import document_violations
from gossipmesh.trust.documents import MANIFEST_DECODER, PolicySet, is_body_of
from gossipmesh.trust.envelope import (
    MANIFEST_PAYLOAD_TYPE,
    decode_envelope_untrusted,
    decode_payload_untrusted,
    seal_envelope,
    signers_of,
)
from gossipmesh.trust.keys import SigningKey, Verifier, key_id
from gossipmesh.wire.versions import MESH_POLICY

FEATURE_OF_KIND: Final[dict[str, str]] = {
    "AccessPolicy": "access-policy",
    "HTTPRoute": "http-route",
    "MeshPolicy": MESH_POLICY,
    "Subset": "subset",
}
_DOCUMENT_DECODER: Final[msgspec.json.Decoder[Document]] = msgspec.json.Decoder(Document)
REFRESH_AFTER_S: Final = 90 * 86_400  # an alarm for a mesh whose signers fell silent, never an expiry


class ForeignSigner(Untrusted):
    """A set signed by a key the caller did not name. Remote's fault. State unchanged."""


@dataclass(frozen=True)
class BaseSet:
    """The set the next one is made on, its signature checked; `bodies` is name -> body, sorted by name.

    `base_hash` names the set it was itself made on, "" for the first.
    """

    version: int
    manifest_hash: bytes
    since: Mapping[str, int]
    bodies: Mapping[str, bytes]
    base_hash: str = ""

    @property
    def hash(self) -> str:
        """Return the manifest's hash in hex, "" where there is no set yet."""
        return self.manifest_hash.hex()

    @property
    def begins_generation(self) -> bool:
        """Tell whether the next set is the first of its generation, to be signed though nothing changes."""
        return self.version > 0 and not self.manifest_hash


EMPTY_BASE: Final = BaseSet(0, b"", {}, {})


@dataclass(frozen=True)
class Change:
    """What a push does to one name: `action` is added, changed or removed."""

    name: str
    action: str


@dataclass(frozen=True)
class SignedSet:
    """The next set and what names it everywhere: (version, hash)."""

    manifest: Manifest
    manifest_hash: bytes
    policy_set: PolicySet


def encode_document(document: Document) -> bytes:
    """Return the one JSON encoding of `document`: fields in the type's order, map keys sorted."""
    return msgspec.json.encode(document, order="deterministic")


def encode_documents(documents: Iterable[Document]) -> dict[str, bytes]:
    """Return name -> body; of two documents of one name the caller has refused one."""
    return {document_name(document): encode_document(document) for document in documents}


def open_base_untrusted(
    policy_set: PolicySet, scope: str, public_keys: Sequence[bytes] | None, verifier: Verifier
) -> BaseSet:
    """Return the set in force as a base to build on, if one of `public_keys` signed it.

    Args:
        public_keys: who may have signed it; None reads it unsigned, to look at and never to build on.

    Raises:
        ForeignSigner: signed by none of them. Remote's fault. State unchanged.
        Untrusted: of another scope, or a body is not the one signed. Remote's
            fault. State unchanged.
        MalformedInput: unreadable. Remote's fault. State unchanged.
    """
    envelope = decode_envelope_untrusted(policy_set.manifest)
    keys = {key_id(key): key for key in public_keys or ()}
    if envelope.payload_type != MANIFEST_PAYLOAD_TYPE:
        raise Untrusted("what is in force is not a policy set")
    if public_keys is not None and not signers_of(envelope, keys, verifier):
        names = (
            ", ".join(entry.key_id.hex() or "a key without a name" for entry in envelope.signatures)
            or "nobody"
        )
        raise ForeignSigner(f"the set in force is not signed by this signer but by {names[:200]}")
    manifest = decode_payload_untrusted(envelope.payload, MANIFEST_DECODER, "a manifest, and in force")
    if manifest.scope != scope:
        raise Untrusted(f"the set in force is of the scope {manifest.scope[:80]!r}, not {scope!r}")
    if len(policy_set.bodies) != len(manifest.entries):
        raise Untrusted("the set in force has other documents than its manifest")
    bodies: dict[str, bytes] = {}
    for entry, body in zip(manifest.entries, policy_set.bodies, strict=True):
        if not is_body_of(entry, body):
            raise Untrusted(f"the body of {entry.name[:200]!r} in force is not the one that was signed")
        bodies[entry.name] = body
    since = {entry.name: entry.since for entry in manifest.entries}
    manifest_hash = hashlib.sha256(envelope.payload).digest()
    return BaseSet(manifest.version, manifest_hash, since, bodies, manifest.base_hash)


def begin_generation(base: BaseSet, generation: int) -> BaseSet:
    """Return what the first set of a generation is made on: the base's documents, and nothing of its number.

    An older base may hold versions beyond the new generation's; no `since` may be above the set it is in.
    """
    version = first_version_of(generation)
    since = {name: min(introduced, version + 1) for name, introduced in base.since.items()}
    return BaseSet(version, b"", since, base.bodies)


def upsert(base: BaseSet, bodies: Mapping[str, bytes], *, prune: bool) -> dict[str, bytes]:
    """Return the next set's bodies: the base's with `bodies` laid over, or exactly `bodies` to prune."""
    return dict(sorted((bodies if prune else {**base.bodies, **bodies}).items()))


def without(base: BaseSet, names: Iterable[str]) -> dict[str, bytes]:
    """Return the next set's bodies when `names` are deleted.

    Raises:
        KeyError: a name is not in the base. Local fault. State unchanged.
    """
    bodies = dict(base.bodies)
    for name in names:
        del bodies[name]
    return bodies


def changes(base: BaseSet, bodies: Mapping[str, bytes]) -> list[Change]:
    """Return what separates the base from `bodies`, sorted by name; empty: nothing."""
    found = []
    for name in sorted({**base.bodies, **bodies}):
        if name not in base.bodies:
            found.append(Change(name, "added"))
        elif name not in bodies:
            found.append(Change(name, "removed"))
        elif base.bodies[name] != bodies[name]:
            found.append(Change(name, "changed"))
    return found


def required_features(names: Iterable[str]) -> tuple[str, ...]:
    """Return the features a node needs to execute documents of these names, sorted."""
    return tuple(sorted({FEATURE_OF_KIND[name.partition("/")[0]] for name in names}))


def build_manifest(
    base: BaseSet, bodies: Mapping[str, bytes], *, trust_domain: str, scope: str, created: int
) -> Manifest:
    """Return the manifest that follows `base` and lists `bodies`; `created` is wall seconds.

    Raises:
        MalformedInput: more or larger documents than any node takes. Local fault. State unchanged.
    """
    _require_limits(bodies)
    version = base.version + 1
    entries = tuple(
        ManifestEntry(
            name=name,
            sha256=hashlib.sha256(body).hexdigest(),
            size=len(body),
            since=base.since.get(name, version),
        )
        for name, body in sorted(bodies.items())
    )
    return Manifest(
        trust_domain=trust_domain,
        scope=scope,
        version=version,
        base=base.version,
        base_hash=base.hash,
        entries=entries,
        requires=required_features(bodies),
        created=created,
        refresh_by=created + REFRESH_AFTER_S,
    )


def sign_set(manifest: Manifest, bodies: Mapping[str, bytes], keys: Sequence[SigningKey]) -> SignedSet:
    """Sign `manifest` with each key and put the bodies beside it, in the order of its entries."""
    payload = msgspec.json.encode(manifest, order="deterministic")
    envelope = seal_envelope(MANIFEST_PAYLOAD_TYPE, payload, list(keys))
    policy_set = PolicySet(envelope.to_bytes(), tuple(bodies[entry.name] for entry in manifest.entries))
    return SignedSet(manifest, hashlib.sha256(payload).digest(), policy_set)


def read_signed_untrusted(policy_set: PolicySet) -> SignedSet:
    """Return a set that somebody made, of documents that nodes take; no signature is checked.

    Raises:
        MalformedInput: unreadable, or a body is not the one its manifest lists, or no such document. Remote's
            fault. State unchanged.
    """
    payload = decode_envelope_untrusted(policy_set.manifest).payload
    manifest = decode_payload_untrusted(payload, MANIFEST_DECODER, "a manifest")
    bodies = open_base_untrusted(policy_set, manifest.scope, None, Verifier()).bodies
    for name, body in bodies.items():
        document = decode_payload_untrusted(body, _DOCUMENT_DECODER, f"a document {name[:200]!r}")
        if document_name(document) != name or document_violations(document):
            raise MalformedInput(f"the body of {name[:200]!r} is not a document that nodes take")
    return SignedSet(manifest, hashlib.sha256(payload).digest(), policy_set)


def signers_in(signed: SignedSet, keys: Mapping[bytes, bytes], verifier: Verifier) -> set[bytes]:
    """Return which of `keys` (key id -> public key) signed a set."""
    return signers_of(decode_envelope_untrusted(signed.policy_set.manifest), keys, verifier)


def countersign(signed: SignedSet, keys: Sequence[SigningKey]) -> SignedSet:
    """Return the set with the signatures of these keys beside those it has; one that is there stays once."""
    envelope = decode_envelope_untrusted(signed.policy_set.manifest)
    added = seal_envelope(envelope.payload_type, envelope.payload, list(keys)).signatures
    ours = {one.key_id for one in added}
    others = tuple(one for one in envelope.signatures if one.key_id not in ours)
    manifest = msgspec.structs.replace(envelope, signatures=(*others, *added)).to_bytes()
    return SignedSet(signed.manifest, signed.manifest_hash, PolicySet(manifest, signed.policy_set.bodies))


def _require_limits(bodies: Mapping[str, bytes]) -> None:
    if len(bodies) > limits.DOCUMENTS_PER_SET_MAX:
        raise MalformedInput(f"{len(bodies)} documents in one scope, {limits.DOCUMENTS_PER_SET_MAX} allowed")
    for name, body in bodies.items():
        if len(body) > limits.DOCUMENT_BYTES_MAX:
            raise MalformedInput(f"{name} has {len(body)} bytes, {limits.DOCUMENT_BYTES_MAX} are allowed")
    # Names, hashes and signatures take room as well; 160 bytes an entry and 4 KiB are above what they need.
    total = sum(len(body) + len(name) + 160 for name, body in bodies.items()) + 4_096
    if total > limits.POLICY_SET_BYTES_MAX:
        raise MalformedInput(f"a scope of {total} bytes, {limits.POLICY_SET_BYTES_MAX} are allowed")
