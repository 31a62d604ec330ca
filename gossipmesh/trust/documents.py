"""The only door signed documents come in by: Trust, and the policy sets it allows.

Ends where documents are verified, decoded and ordered; spreading and storing them is the gossip core's,
compiling them the snapshot compiler's. A value of type `AcceptedSet` was verified; a `PolicySet` was not.
Rules:
1. Trust goes from N to N+1 only, signed by thresholds of the old and of the new root keys.
2. A set is judged by its bytes, by Trust and by this build's features: never by catalog, clock or node.
3. A scope's sets are of the generation its floor in Trust names (the upper bits of a version), and of no
   other. Within it (version, manifest hash) never goes down; of two sets of one version the greater hash wins
   everywhere. What is in force of a generation before stays so until a set of the new one is here.
4. Nothing changes until everything is verified, and then it changes whole.
5. Of an unverified payload only a refusal's scope and version are ever shown, and only a scope in Trust.
6. Of an envelope only the signatures that count are kept (`envelope`, rule 2), and nothing is decided by
   which others it came with.
Spec: TUF section 5.3 (root rotation; 5.3.11, recovery from a fast-forward) and 5.6 (targets), DSSE v1.
    Deviation: floors are (version, hash) pairs, because without clocks or a coordinator two pushes of one
    version must end as one winner; and a generation, where TUF deletes its files when keys were rotated, so
    that every node recovers at the same Trust, whatever it saw before.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.documents import (
    Manifest,
    ManifestEntry,
    SignerRole,
    TrustDocument,
    first_version_of,
    generation_of,
)
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.policy import Document, document_name
from gossipmesh.model.policy_rules import document_violations
from gossipmesh.trust.alarms import Alarms
from gossipmesh.trust.envelope import (
    MANIFEST_PAYLOAD_TYPE,
    TRUST_PAYLOAD_TYPE,
    Envelope,
    decode_envelope_untrusted,
    decode_payload_untrusted,
    keep_signatures,
    signatures_of,
)
from gossipmesh.trust.keys import Verifier, key_id
from gossipmesh.trust.trust_rules import decode_trust_untrusted, is_scope, keys_of, scopes_of
from gossipmesh.wire.codec import decode_untrusted, encode

Floor = tuple[int, bytes]
"""The least a scope accepts: (version, hash of the manifest's payload, 32 bytes or empty)."""

NO_FLOOR: Final[Floor] = (0, b"")

MANIFEST_DECODER: Final = msgspec.json.Decoder(Manifest)
_UNKNOWN_FIELD: Final = "Object contains unknown"  # how msgspec words it
_DOCUMENT_DECODER: msgspec.json.Decoder[Document] = msgspec.json.Decoder(Document)


class PolicySet(msgspec.Struct, frozen=True, array_like=True):
    """Unverified: a manifest's envelope (wire form) and the bodies, in the order of its entries."""

    manifest: bytes
    bodies: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Return the wire form."""
        return encode(self)


@dataclass(frozen=True)
class AcceptedSet:
    """Verified: a scope's documents at one version. `manifest_hash` is SHA-256 of the payload."""

    scope: str
    version: int
    manifest_hash: bytes
    manifest: Manifest
    documents: tuple[Document, ...]
    raw: PolicySet

    @property
    def floor(self) -> Floor:
        """Return the pair that orders this set among those of its scope."""
        return (self.version, self.manifest_hash)


class PolicyRefusal(Untrusted):
    """A set that is not taken, and why. Remote's fault. State unchanged.

    `code` is stable: malformed, too-large, unsigned, signature, scope, threshold, generation, older, same,
    hash, unsupported, features, trust-domain; jump of a set that is being published, and busy of a node that
    cannot take it now. `scope` is empty and `version` 0 where the set does not tell.
    """

    def __init__(self, code: str, reason: str, scope: str, version: int, manifest_hash: bytes) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.scope = scope
        self.version = version
        self.manifest_hash = manifest_hash


def decode_policy_set_untrusted(data: bytes) -> PolicySet:
    """Read the wire form; nothing is verified yet.

    Raises:
        MalformedInput: not a set within limits. Remote's fault. State unchanged.
    """
    policy_set = decode_untrusted(data, PolicySet, bytes_max=limits.POLICY_SET_BYTES_MAX)
    if len(policy_set.bodies) > limits.DOCUMENTS_PER_SET_MAX:
        raise MalformedInput(f"{len(policy_set.bodies)} documents in a set")
    return policy_set


def is_body_of(entry: ManifestEntry, body: bytes) -> bool:
    """Tell whether a body is the one a manifest's entry was signed for."""
    return len(body) == entry.size and hashlib.sha256(body).hexdigest() == entry.sha256


class TrustedDocuments:
    """What this node believes: every Trust version since the first, a floor and a set for each scope."""

    def __init__(self, *, trust_domain: str, verifier: Verifier, features: Sequence[str]) -> None:
        self._trust_domain = trust_domain
        self._verifier = verifier
        self._features = tuple(sorted(features))
        self._trusts: list[tuple[TrustDocument, bytes, bytes]] = []  # document, payload, envelope as kept
        self._floors: dict[str, Floor] = {}
        self._in_force: dict[str, AcceptedSet] = {}
        self.alarms = Alarms()

    @property
    def trust(self) -> TrustDocument | None:
        """Return the newest Trust document; None before the first."""
        return self._trusts[-1][0] if self._trusts else None

    @property
    def trust_envelopes(self) -> list[bytes]:
        """Return the envelopes of all versions held, oldest first, no gap."""
        return [envelope for _, _, envelope in self._trusts]

    @property
    def trust_sha256(self) -> bytes:
        """Return the SHA-256 of the newest Trust's payload; empty before the first."""
        return hashlib.sha256(self._trusts[-1][1]).digest() if self._trusts else b""

    def trust_envelope(self, version: int) -> bytes:
        """Return the envelope of a version that is held, as it is kept.

        Raises:
            IndexError: it is not held. Local fault. State unchanged.
        """
        return self._trusts[version - self._trusts[0][0].version][2]

    @property
    def credential_keys(self) -> dict[bytes, bytes]:
        """Return key id -> public key of those that may sign a NodeCredential now."""
        return {} if self.trust is None else keys_of(self.trust, SignerRole.CREDENTIAL, None)

    @property
    def credential_keys_ever(self) -> dict[bytes, bytes]:
        """Return key id -> public key of those that any version of Trust held names for credentials."""
        named = [keys_of(trust, SignerRole.CREDENTIAL, None) for trust, _, _ in self._trusts]
        return {key: public for keys in named for key, public in keys.items()}

    def load_trust_untrusted(self, envelope: bytes) -> TrustDocument:
        """Verify a Trust document and put it in force; one already held is returned as it is.

        Spec: TUF section 5.3.4 (signed by both), 5.3.5 (exactly N+1).

        Args:
            envelope: wire form. The first one must come from a source the caller has pinned: it
                proves only that it was signed by the keys it names.

        Raises:
            Untrusted: of another trust domain, not the next version, below a threshold, or
                beyond limits. Remote's fault. State unchanged.
            MalformedInput: unreadable. Remote's fault. State unchanged.
        """
        if len(envelope) > limits.TRUST_BYTES_MAX:
            raise Untrusted(f"a Trust document of {len(envelope)} bytes, {limits.TRUST_BYTES_MAX} allowed")
        opened = decode_envelope_untrusted(envelope)
        if opened.payload_type != TRUST_PAYLOAD_TYPE:
            raise Untrusted("an envelope that is not of a Trust document")
        offered = decode_trust_untrusted(opened.payload)
        if offered.trust_domain != self._trust_domain:
            raise Untrusted(f"Trust of {offered.trust_domain[:80]!r}, not of {self._trust_domain!r}")
        signatures = self._require_root_threshold(opened, offered)
        if self.trust is not None:
            for known, payload, held in self._trusts:
                if known.version == offered.version and payload == opened.payload:
                    return known
                if known.version == offered.version:
                    self._require_root_threshold(opened, known)
                    self._note_rival_trust(offered, (held, envelope))
            if offered.version != self.trust.version + 1:
                raise Untrusted(
                    f"Trust version {offered.version} does not follow {self.trust.version}; "
                    "only the next one is taken"
                )
            if len(self._trusts) >= limits.TRUST_VERSIONS_MAX:
                raise Untrusted(f"more than {limits.TRUST_VERSIONS_MAX} versions of Trust")
            signatures = {**signatures, **self._require_root_threshold(opened, self.trust)}
        self._trusts.append((offered, opened.payload, keep_signatures(opened, signatures)))
        return offered

    def with_trust(self, envelopes: Sequence[bytes]) -> "TrustedDocuments":
        """Return documents with this Trust and then `envelopes`, to judge by; these stay as they are.

        Raises:
            MalformedInput: as `load_trust_untrusted`. State unchanged.
        """
        ahead = TrustedDocuments(
            trust_domain=self._trust_domain, verifier=self._verifier, features=self._features
        )
        ahead._trusts = list(self._trusts)
        ahead.alarms = self.alarms
        for envelope in envelopes:
            ahead.load_trust_untrusted(envelope)
        return ahead

    def check_untrusted(self, policy_set: PolicySet) -> AcceptedSet:
        """Verify a set completely and return it; nothing changes, `adopt` does that.

        Signatures come before hashes: 136 us against a millisecond of hashing for a full set.
        Cost: at most SIGNATURES_PER_ENVELOPE_MAX signature checks, then O(bytes of the set).

        Raises:
            PolicyRefusal: see its codes. Remote's fault. State unchanged.
        """
        authentic = self._authenticate(policy_set, [] if self.trust is None else [self.trust])
        scope, offered, refuse = authentic.scope, authentic.floor, authentic.refuse
        held = self._in_force.get(scope)
        if held is not None and held.version == offered[0] and held.floor != offered:
            self._note_rival_set(held, authentic)
        self._require_place(scope, offered, refuse)
        if held is not None and held.floor == offered:
            refuse("same", f"version {offered[0]} ({_short(offered)}) is in force already")
        return self._read(authentic)

    def restore_untrusted(self, policy_set: PolicySet) -> AcceptedSet:
        """Take back from our own disk the set that was in force, and put it in force.

        Policy is fail-static: a set stays in force though a later Trust dropped its signer, so any
        version of Trust held may vouch for it here. It may stand above the floor, when the crash came
        between writing the set and writing its floor, and never below.

        Raises:
            PolicyRefusal: see its codes. State unchanged.
        """
        authentic = self._authenticate(policy_set, [trust for trust, _, _ in self._trusts])
        scope, offered = authentic.scope, authentic.floor
        floor = self._floors.get(scope, NO_FLOOR)
        if self._rank(scope, offered) < self._rank(scope, floor):
            authentic.refuse("older", _below(offered, floor))
        accepted = self._read(authentic)
        self._floors[accepted.scope] = accepted.floor
        self._in_force[accepted.scope] = accepted
        return accepted

    def adopt(self, accepted: AcceptedSet) -> None:
        """Put a checked set in force and raise its scope's floor to it.

        The caller has the floor on disk first.

        Raises:
            PolicyRefusal: `older`, when a greater one was adopted since the check, or `generation`, when
                Trust went on since. State unchanged.
        """
        refuse = _Refuse(accepted.scope, accepted.version, accepted.manifest_hash)
        self._require_place(accepted.scope, accepted.floor, refuse)
        jump = self.jump_of(accepted)
        if jump > limits.VERSIONS_PER_PUSH_MAX:
            self.alarms.note(
                "jump",
                accepted.scope,
                accepted.version,
                f"version {accepted.version} of {accepted.scope!r} jumped over {jump} versions, and no agent "
                "publishes such a set: its signer's key may be stolen",
                (accepted.raw.manifest,),
            )
        self._floors[accepted.scope] = accepted.floor
        self._in_force[accepted.scope] = accepted

    def floor(self, scope: str) -> Floor:
        """Return the least (version, hash) the scope accepts: Trust's explicit floor, or ours above it.

        A floor of ours from another generation than Trust names does not count: it is what a stolen signer
        had us take, or what it was before.
        """
        own = self._floors.get(scope, NO_FLOOR)
        explicit = (self._explicit_floor(scope), b"")
        return max(own, explicit) if self.is_current(scope, own[0]) else explicit

    def generation(self, scope: str) -> int:
        """Return the generation of a scope that Trust names, 0 where it names none."""
        return generation_of(self._explicit_floor(scope))

    def is_current(self, scope: str, version: int) -> bool:
        """Tell whether a version is of the generation Trust names."""
        return generation_of(version) == self.generation(scope)

    def has_begun(self, scope: str) -> bool:
        """Tell whether the scope's floor is above the beginning of its generation."""
        return self.floor(scope) > (first_version_of(self.generation(scope)), b"")

    def jump_of(self, accepted: AcceptedSet) -> int:
        """Return over how many versions a set jumps that is not in force yet; a push jumps over none."""
        floor, _ = self.floor(accepted.scope)
        return max(0, accepted.version - max(floor, first_version_of(self.generation(accepted.scope))) - 1)

    def require_no_jump(self, accepted: AcceptedSet) -> None:
        """Refuse to publish a set that would use up its scope's versions; taking one is another matter.

        Raises:
            PolicyRefusal: `jump`. Whoever signed it is at fault. State unchanged.
        """
        jump = self.jump_of(accepted)
        if jump > limits.VERSIONS_PER_PUSH_MAX:
            reason = (
                f"version {accepted.version} jumps over {jump} versions of {accepted.scope!r}, and a push "
                "rises by one: not published from here; if nobody meant it, the signer's key is stolen, see "
                "`gossipmesh authority rotate signer`"
            )
            raise PolicyRefusal("jump", reason, accepted.scope, accepted.version, accepted.manifest_hash)

    def in_force(self, scope: str) -> AcceptedSet | None:
        """Return the set in force; None when there is none."""
        return self._in_force.get(scope)

    def scopes(self) -> list[str]:
        """Return the scopes that have a set in force, sorted."""
        return sorted(self._in_force)

    def has_signer(self, scope: str) -> bool:
        """Tell whether Trust names a signer of `scope`; any other name is an offerer's own."""
        return self.trust is not None and scope in scopes_of(self.trust)

    def signers_ever(self, scope: str) -> list[bytes]:
        """Return the public keys that any version of Trust held names for a scope, in their order."""
        named = (keys_of(trust, SignerRole.POLICY, scope).values() for trust, _, _ in self._trusts)
        return list(dict.fromkeys(key for keys in named for key in keys))

    def restore_floor(self, scope: str, version: int, manifest_hash: bytes) -> None:
        """Take back a floor from our own disk; it can only rise, or become one of Trust's generation."""
        floors = (self._floors.get(scope, NO_FLOOR), (version, manifest_hash))
        self._floors[scope] = max(floors, key=lambda floor: self._rank(scope, floor))

    def kept_floors(self) -> list[tuple[str, int, bytes]]:
        """Return the floors of every scope (scope, version, hash) without Trust's explicit ones, sorted."""
        return [(scope, *floor) for scope, floor in sorted(self._floors.items())]

    def _note_rival_set(self, held: AcceptedSet, rival: "_Authentic") -> None:
        self.alarms.note(
            "rival-sets",
            held.scope,
            held.version,
            f"two signed sets of version {held.version} of {held.scope!r} ({_short(held.floor)}, "
            f"{_short(rival.floor)}): two pushes at once, or a signer that tells two stories",
            (held.raw.manifest, rival.raw.manifest),
        )

    def _note_rival_trust(self, offered: TrustDocument, envelopes: tuple[bytes, bytes]) -> None:
        self.alarms.note(
            "rival-trusts",
            "",
            offered.version,
            f"two Trust documents of version {offered.version}, both signed by enough root keys: the one "
            "held here stays; find out who signed the other",
            envelopes,
        )

    def _explicit_floor(self, scope: str) -> int:
        return 0 if self.trust is None else self.trust.floors.get(scope, 0)

    def _rank(self, scope: str, floor: Floor) -> tuple[bool, int, bytes]:
        """Return what orders a scope's floors: those of Trust's generation are above all others."""
        return (self.is_current(scope, floor[0]), *floor)

    def _require_place(self, scope: str, offered: Floor, refuse: "_Refuse") -> None:
        """Refuse what is of another generation than Trust names, or below the floor."""
        if not self.is_current(scope, offered[0]):
            named, wanted = self.generation(scope), generation_of(offered[0])
            advice = "an older Trust's; sign it again" if wanted < named else "no Trust known here names that"
            refuse(
                "generation",
                f"version {offered[0]} is of generation {wanted} of {scope!r}, Trust names {named}: {advice}",
            )
        floor = self.floor(scope)
        if offered < floor:
            refuse("older", _below(offered, floor))

    def _require_root_threshold(self, envelope: Envelope, trust: TrustDocument) -> dict[bytes, bytes]:
        """Return the signatures by root keys of `trust`, in their order there, if they are enough."""
        keys = {key_id(key): key for key in (bytes.fromhex(text) for text in trust.root_keys)}
        signatures = signatures_of(envelope, keys, self._verifier)
        if len(signatures) < trust.root_threshold:
            raise Untrusted(
                f"Trust with {len(signatures)} signatures of root keys of version {trust.version}, "
                f"{trust.root_threshold} needed"
            )
        return signatures

    def _authenticate(self, policy_set: PolicySet, trusts: Sequence[TrustDocument]) -> "_Authentic":
        """Return a set whose manifest enough of its scope's signers signed, under one of `trusts`."""
        refuse = _Refuse("", 0, b"")
        _require_sizes(policy_set, refuse)
        try:
            envelope = decode_envelope_untrusted(policy_set.manifest)
        except MalformedInput as error:
            refuse("malformed", f"the manifest's envelope cannot be read: {error}")
        manifest_hash = hashlib.sha256(envelope.payload).digest()
        manifest, problem = _decode_manifest(envelope.payload)
        refuse = _Refuse("", 0, manifest_hash)
        if manifest is not None and any(manifest.scope in scopes_of(trust) for trust in trusts):
            refuse = _Refuse(manifest.scope, manifest.version, manifest_hash)
        if envelope.payload_type != MANIFEST_PAYLOAD_TYPE:
            refuse("malformed", f"the payload type {envelope.payload_type[:80]!r} is not a manifest's")
        if not envelope.signatures:
            refuse("unsigned", "the manifest carries no signature")
        signatures = self._require_signers(envelope, manifest, trusts, refuse)
        if manifest is None:
            refuse("unsupported" if _UNKNOWN_FIELD in problem else "malformed", problem)
        if manifest.trust_domain != self._trust_domain:
            refuse("trust-domain", f"made for {manifest.trust_domain[:80]!r}, not {self._trust_domain!r}")
        _require_manifest_rules(manifest, refuse)
        # Who signed for the scope under another Trust stays: that Trust may be the one a peer judges by.
        ever = {key_id(key): key for key in self.signers_ever(manifest.scope)}
        signatures = signatures_of(envelope, ever, self._verifier) | signatures
        kept = PolicySet(keep_signatures(envelope, signatures), policy_set.bodies)
        return _Authentic(manifest, manifest_hash, kept, refuse)

    def _require_signers(
        self,
        envelope: Envelope,
        manifest: Manifest | None,
        trusts: Sequence[TrustDocument],
        refuse: "_Refuse",
    ) -> dict[bytes, bytes]:
        """Return the signatures of a threshold of the scope's signers, as one of `trusts` names them."""
        code, reason = "signature", "no signature verifies with a policy signer's key in Trust"
        for trust in trusts:
            signed = signatures_of(envelope, keys_of(trust, SignerRole.POLICY, None), self._verifier)
            if not signed:
                continue
            if manifest is None:
                return signed
            in_scope = keys_of(trust, SignerRole.POLICY, manifest.scope).values()
            counted = {key: signed[key] for key in in_scope if key in signed}
            needed = trust.policy_threshold.get(manifest.scope, 1)
            if len(counted) >= needed:
                return counted
            code, reason = "scope", f"its signer may not sign for the scope {manifest.scope[:80]!r}"
            if counted:
                code, reason = "threshold", f"{len(counted)} distinct signers of the scope, {needed} needed"
        raise refuse.refusal(code, reason)

    def _read(self, authentic: "_Authentic") -> AcceptedSet:
        """Return the documents of an authenticated manifest, every body checked."""
        manifest, bodies, refuse = authentic.manifest, authentic.raw.bodies, authentic.refuse
        missing = sorted(feature for feature in manifest.requires if feature not in self._features)
        if missing:
            refuse("features", f"it requires {', '.join(missing)[:200]}, which this build cannot execute")
        if len(bodies) != len(manifest.entries):
            refuse("malformed", f"{len(bodies)} bodies for {len(manifest.entries)} entries")
        for entry, body in zip(manifest.entries, bodies, strict=True):
            if not is_body_of(entry, body):
                refuse("hash", f"the body of {entry.name[:200]!r} is not the one that was signed")
        documents = tuple(
            _read_document(entry.name, body, refuse)
            for entry, body in zip(manifest.entries, bodies, strict=True)
        )
        return AcceptedSet(
            authentic.scope, manifest.version, authentic.manifest_hash, manifest, documents, authentic.raw
        )


@dataclass(frozen=True)
class _Refuse:
    """Raises PolicyRefusal about one set."""

    scope: str
    version: int
    manifest_hash: bytes

    def __call__(self, code: str, reason: str) -> NoReturn:
        raise self.refusal(code, reason) from None

    def refusal(self, code: str, reason: str) -> PolicyRefusal:
        return PolicyRefusal(code, reason, self.scope, self.version, self.manifest_hash)


@dataclass(frozen=True)
class _Authentic:
    """A set whose manifest is signed and follows its rules, as it is kept; its bodies are not checked yet."""

    manifest: Manifest
    manifest_hash: bytes
    raw: PolicySet
    refuse: _Refuse

    @property
    def scope(self) -> str:
        return self.manifest.scope

    @property
    def floor(self) -> Floor:
        return (self.manifest.version, self.manifest_hash)


def _short(floor: Floor) -> str:
    return floor[1].hex()[:8] or "-"


def _below(offered: Floor, floor: Floor) -> str:
    return f"version {offered[0]} ({_short(offered)}) is below {floor[0]} ({_short(floor)})"


def _require_sizes(policy_set: PolicySet, refuse: _Refuse) -> None:
    total = len(policy_set.manifest) + sum(len(body) for body in policy_set.bodies)
    largest = max((len(body) for body in policy_set.bodies), default=0)
    if len(policy_set.bodies) > limits.DOCUMENTS_PER_SET_MAX:
        refuse("too-large", f"{len(policy_set.bodies)} documents, {limits.DOCUMENTS_PER_SET_MAX} allowed")
    if largest > limits.DOCUMENT_BYTES_MAX:
        refuse("too-large", f"a document of {largest} bytes, {limits.DOCUMENT_BYTES_MAX} allowed")
    if total > limits.POLICY_SET_BYTES_MAX:
        refuse("too-large", f"a set of {total} bytes, {limits.POLICY_SET_BYTES_MAX} allowed")


def _decode_manifest(payload: bytes) -> tuple[Manifest | None, str]:
    """Return the manifest, or None and what is wrong; version bounds are checked here, before any use."""
    try:
        manifest = decode_payload_untrusted(payload, MANIFEST_DECODER, "a manifest")
    except MalformedInput as error:
        return None, str(error)
    if not 1 <= manifest.version <= limits.VERSION_MAX:
        return None, f"a manifest's version is in 1..{limits.VERSION_MAX}"
    return manifest, ""


def _require_manifest_rules(manifest: Manifest, refuse: _Refuse) -> None:
    if not is_scope(manifest.scope):
        refuse("malformed", f"{manifest.scope[:80]!r} is no scope's name")
    if not 0 <= manifest.base < manifest.version:
        refuse("malformed", "a manifest's base is a version before its own")
    names = [entry.name for entry in manifest.entries]
    if names != sorted(set(names)):
        refuse("malformed", "a manifest's entries are sorted by name, no name twice")
    if any(not 1 <= entry.since <= manifest.version for entry in manifest.entries):
        refuse("malformed", "an entry's `since` is a version up to the manifest's own")


def _read_document(name: str, body: bytes, refuse: _Refuse) -> Document:
    """Return a body as a document this build can execute whole."""
    label = name[:200]
    try:
        document = _DOCUMENT_DECODER.decode(body)
    except msgspec.ValidationError as error:
        refuse("unsupported", f"{label!r}: {error}"[:300])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        refuse("malformed", f"{label!r} is not JSON: {error}"[:300])
    violations = document_violations(document)
    if violations:
        path, message = violations[0]
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        refuse("unsupported", f"{label!r}: ${place}: {message}"[:300])
    if document_name(document) != name:
        refuse("malformed", f"the body of {label!r} is {document_name(document)[:200]!r}")
    return document
