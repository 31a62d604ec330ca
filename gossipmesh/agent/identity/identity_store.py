"""A node's identity on disk: one file, `identity.json`, 0600 in a 0700 folder, replaced whole.

One file and not one per key, because a renewal or a turn changes keys, chains and the credential together:
after a crash or on a full disk the old identity stands, or the new one, never a mixture. What is read is
checked as if a stranger had written it: keys against certificates and credential, both against Trust. Rules:
1. Format 2 holds the keys of each identity (`key_turning`); a file of format 1 is read as one whose keys are
   in use and whose next ones are made now. It is written as format 2 by whoever owns the identity.
2. A key without the authority's certificate is whole: its node's key set makes it known.
Ends at the identity; getting one is `agent.identity.enrolment`'s. Certificates' dates are judged by their
users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from gossipmesh.agent.identity.dropped import is_dropped
from gossipmesh.agent.identity.key_turning import HeldKeys, Holding, LeafKey
from gossipmesh.model.documents import TrustDocument
from gossipmesh.model.errors import MalformedInput, OperatorError, Untrusted
from gossipmesh.model.host_port import is_host_port
from gossipmesh.model.identity import node_name_of_spiffe_id, parse_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.opening import Enrolled
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.net.secret_files import (
    Reservation,
    make_private_directory,
    read_secret,
    require_private,
    reserve_file,
    write_secret,
)
from gossipmesh.trust.carrier import carrier_leaf_pem
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier
from gossipmesh.trust.leaf_serial import encode_leaf_serial
from gossipmesh.trust.pins import pin_of
from gossipmesh.trust.records import open_credential_untrusted
from gossipmesh.trust.svid import (
    LEAF_ENTROPY_BYTES,
    LeafFacts,
    check_chain_untrusted,
    leaf_key_pem,
    spki_hash_of_key,
    spki_of_key,
)
from gossipmesh.wire.codec import decode_json_untrusted, decode_untrusted, encode
from gossipmesh.wire.versions import POLICY_FEATURES

FILE_NAME: Final = "identity.json"
FORMAT: Final = 2
_FORMAT_BEFORE: Final = 1
RESERVED_BYTES: Final = 1_048_576  # 130 identities of three keys and chains of 2 KiB each
CREDENTIAL_BYTES_MAX: Final = 32_768
_ROOTS_REMEMBERED: Final = 32  # some 700 bytes each; a certificate is of the last few
_CARRIERS_MAX: Final = 512  # two keys for each identity a node may have, and room for those that go


@dataclass(frozen=True)
class Svid:
    """A chain (leaf first) and its key as PEM; validity in wall seconds."""

    spiffe_id: str
    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    not_before: int
    not_after: int


@dataclass(frozen=True)
class NodeIdentity:
    """Everything a node is: verified, its keys matching its certificates and its credential.

    `trust_envelopes` are all versions of Trust, oldest first; `bundle_pem` are the newest one's roots;
    `holding` are the keys of the node, its workloads and its services. `authorities` are where its token said
    that the authority is, HOST:PORT, in the order to try. `enrolled` is what the authority said of the
    others, where it enrolled this node just now. It is not kept in the file.
    """

    trust_domain: str
    name: str
    spiffe_id: str
    credential: SignedRecord
    credential_body: NodeCredential
    signing: SigningKey
    exchange: ExchangeKey
    trust_envelopes: tuple[bytes, ...]
    bundle_pem: bytes = field(repr=False)
    holding: Holding
    authorities: tuple[str, ...]
    enrolled: Enrolled | None = None

    def __repr__(self) -> str:
        return f"NodeIdentity({self.spiffe_id!r}, {len(self.holding.keys)} identities)"

    @property
    def svids(self) -> dict[str, Svid]:
        """Return what the authority issued for current keys, by SPIFFE ID in sorted order."""
        held = ((spiffe_id, keys.current) for spiffe_id, keys in self.holding.keys.items())
        return {spiffe_id: _svid(spiffe_id, key) for spiffe_id, key in held if key.chain_pem}

    @property
    def node_svid(self) -> Svid:
        """Return what the node shows as itself: the authority's leaf while it is valid, else a carrier's."""
        return self.node_svid_under(None)

    def node_svid_under(self, trust: TrustDocument | None) -> Svid:
        """Return the same where this Trust is in force, which may drop whoever issued the leaf."""
        keys = self.holding.keys[self.spiffe_id]
        key = keys.shown or keys.current
        if is_dropped(key, trust):
            key = msgspec.structs.replace(key, chain_pem=b"")
        if key.chain_pem and key.not_before <= wall_seconds() <= key.not_after:
            return _svid(self.spiffe_id, key)
        chain_pem = self.carrier_pem(self.spiffe_id, key)
        return Svid(self.spiffe_id, chain_pem, key.key_pem, key.not_before, key.not_after)

    def carrier_pem(self, spiffe_id: str, key: LeafKey) -> bytes:
        """Return a carrier leaf of a key held: it proves nothing, but goes through TLS."""
        body = self.credential_body
        serial = encode_leaf_serial(body.node_id, body.generation, 0, 0)
        return _carrier_leaf(self.trust_domain, spiffe_id, key.key_pem, serial)


@lru_cache(maxsize=_CARRIERS_MAX)
def _carrier_leaf(trust_domain: str, spiffe_id: str, key_pem: bytes, serial: int) -> bytes:
    """Make a carrier leaf once: its bytes are other ones each time, and contexts are kept by them."""
    return carrier_leaf_pem(trust_domain, spiffe_id, key_pem, serial)


class StoredKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key in the file, and the authority's chain for it, empty when there is none; PEM."""

    key: str
    chain: str = ""

    def __repr__(self) -> str:
        return "StoredKey()"


class StoredKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The keys of one identity in the file."""

    spiffe_id: str
    current: StoredKey
    next: StoredKey
    former: StoredKey | None = None
    used: bool = False


class StoredIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. Bytes are base64; seeds are the secret halves of the Ed25519 and X25519 keys.

    `turned`: wall seconds of the last turn of keys.
    """

    version: int
    trust_domain: str
    authority: str
    credential: bytes
    signing_seed: bytes
    exchange_seed: bytes
    trust: tuple[bytes, ...]
    turned: int
    keys: tuple[StoredKeys, ...]

    def __repr__(self) -> str:
        return f"StoredIdentity({self.trust_domain!r})"


class _SvidBefore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One SVID in a file of format 1; PEM."""

    spiffe_id: str
    chain: str
    key: str


class _IdentityBefore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of format 1."""

    version: int
    trust_domain: str
    authority: str
    credential: bytes
    signing_seed: bytes
    exchange_seed: bytes
    trust: tuple[bytes, ...]
    svids: tuple[_SvidBefore, ...]


class _Versioned(msgspec.Struct, frozen=True):
    """What any format says first."""

    version: int


def load_identity(directory: Path) -> NodeIdentity | None:
    """Read the identity kept in `directory`; None when there is none.

    Raises:
        OperatorError: open to other users, unreadable, damaged, or keys and certificates that do not
            belong together. Local's fault. State unchanged.
    """
    path = directory / FILE_NAME
    if not directory.exists():
        return None
    require_private(directory)
    if not path.exists() and not path.is_symlink():
        return None
    content = read_secret(path)
    try:
        return open_stored_untrusted(_decode_untrusted(content))
    except MalformedInput as error:
        raise OperatorError(
            f"the identity in {path} is damaged ({error}); restore it from a backup, or remove it and "
            "enrol this node again with a new token"
        ) from None


def fresh_key(spiffe_id: str) -> LeafKey:
    """Return a new P-256 key for an identity, with its pin."""
    key_pem = leaf_key_pem(random_bytes(LEAF_ENTROPY_BYTES))
    return LeafKey(pin_of(spiffe_id, spki_of_key(key_pem)), key_pem)


def certified_key(spiffe_id: str, key: LeafKey, chain_pem: bytes, facts: LeafFacts) -> LeafKey:
    """Return a key with the authority's chain for it.

    Raises:
        Untrusted: the chain is of another identity, or of another key. State unchanged.
    """
    if facts.spiffe_id != spiffe_id:
        raise Untrusted(f"the certificate of {spiffe_id[:300]} is of {facts.spiffe_id}")
    if spki_hash_of_key(key.key_pem) != facts.spki_hash:
        raise Untrusted(f"the key of {spiffe_id} does not match its certificate")
    return msgspec.structs.replace(
        key, chain_pem=chain_pem, not_before=facts.not_before, not_after=facts.not_after
    )


def reserve_identity(directory: Path) -> Reservation:
    """Hold the disk space for an identity before anything irrevocable is asked for.

    Raises:
        OperatorError: no space or no permission. State unchanged.
    """
    make_private_directory(directory)
    return reserve_file(directory / FILE_NAME, RESERVED_BYTES)


def write_identity(directory: Path, identity: NodeIdentity) -> None:
    """Replace the identity in `directory`. May block: the disk is written and synced.

    Raises:
        OperatorError: not written; the one before stands.
    """
    write_secret(directory / FILE_NAME, encode_stored(stored_of(identity)))


def upgrade_identity(directory: Path, identity: NodeIdentity) -> bool:
    """Write what was read from a file of format 1 as format 2; tell whether it was one.

    Raises:
        OperatorError: not written; the one before stands.
    """
    content = read_secret(directory / FILE_NAME)
    if decode_json_untrusted(content, _Versioned, "an identity").version == FORMAT:
        return False
    write_identity(directory, identity)
    return True


def encode_stored(stored: StoredIdentity) -> bytes:
    """Return the file's content."""
    return msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n"


def stored_of(identity: NodeIdentity) -> StoredIdentity:
    """Return what the file holds for `identity`."""
    return StoredIdentity(
        version=FORMAT,
        trust_domain=identity.trust_domain,
        authority=",".join(identity.authorities),
        credential=encode(identity.credential),
        signing_seed=identity.signing.seed(),
        exchange_seed=identity.exchange.seed(),
        trust=identity.trust_envelopes,
        turned=identity.holding.turned,
        keys=stored_keys(identity.holding.keys),
    )


def stored_keys(held: Mapping[str, HeldKeys]) -> tuple[StoredKeys, ...]:
    """Return keys as the file holds them."""
    return tuple(_stored_keys(spiffe_id, keys) for spiffe_id, keys in held.items())


def _stored_keys(spiffe_id: str, keys: HeldKeys) -> StoredKeys:
    former = None if keys.former is None else _stored_key(keys.former)
    return StoredKeys(spiffe_id, _stored_key(keys.current), _stored_key(keys.next), former, keys.is_used)


def _stored_key(key: LeafKey) -> StoredKey:
    return StoredKey(key.key_pem.decode(), key.chain_pem.decode())


def _svid(spiffe_id: str, key: LeafKey) -> Svid:
    return Svid(spiffe_id, key.chain_pem, key.key_pem, key.not_before, key.not_after)


def _decode_untrusted(content: bytes) -> StoredIdentity:
    """Read the file of either format; the next keys that format 1 has not are made now.

    Raises:
        MalformedInput: of another format, or not such a file. State unchanged.
    """
    version = decode_json_untrusted(content, _Versioned, "an identity").version
    if version == FORMAT:
        return decode_json_untrusted(content, StoredIdentity, "an identity of format 2")
    if version != _FORMAT_BEFORE:
        raise MalformedInput(f"its format is {version}, this build reads {_FORMAT_BEFORE} and {FORMAT}")
    before = decode_json_untrusted(content, _IdentityBefore, "an identity of format 1")
    keys = [
        StoredKeys(svid.spiffe_id, StoredKey(svid.key, svid.chain), _fresh_stored(svid.spiffe_id), used=True)
        for svid in before.svids
    ]
    return StoredIdentity(
        version=FORMAT,
        trust_domain=before.trust_domain,
        authority=before.authority,
        credential=before.credential,
        signing_seed=before.signing_seed,
        exchange_seed=before.exchange_seed,
        trust=before.trust,
        turned=0,
        keys=tuple(keys),
    )


def _fresh_stored(spiffe_id: str) -> StoredKey:
    return StoredKey(fresh_key(spiffe_id).key_pem.decode())


def open_stored_untrusted(stored: StoredIdentity) -> NodeIdentity:
    """Check that everything in an identity belongs together, and return it.

    Raises:
        MalformedInput: it does not; the sentence says what. State unchanged.
    """
    verifier = Verifier(verdicts_max=64)
    documents = TrustedDocuments(
        trust_domain=stored.trust_domain, verifier=verifier, features=POLICY_FEATURES
    )
    roots: dict[str, None] = {}
    for envelope in stored.trust:
        roots |= dict.fromkeys(documents.load_trust_untrusted(envelope).root_certificates)
    if documents.trust is None:
        raise MalformedInput("it holds no Trust document")
    bundle_pem = "".join(documents.trust.root_certificates).encode()
    record = decode_untrusted(stored.credential, SignedRecord, bytes_max=CREDENTIAL_BYTES_MAX)
    credential = open_credential_untrusted(record, stored.trust_domain, documents.credential_keys, verifier)
    try:
        signing, exchange = SigningKey(stored.signing_seed), ExchangeKey(stored.exchange_seed)
    except ValueError:
        raise MalformedInput("a signing or exchange key of the wrong length") from None
    if credential.signing_key != signing.public or credential.exchange_key != exchange.public:
        raise Untrusted("the signing or exchange key is not the credential's")
    # A key's certificate may be older than the newest roots: of a node that was away while they were changed.
    known_pem = "".join(list(roots)[-_ROOTS_REMEMBERED:]).encode()
    keys = _open_keys_untrusted(stored.keys, stored.trust_domain, known_pem)
    name = node_name_of_spiffe_id(credential.spiffe_id)
    if name is None or credential.spiffe_id not in keys:
        raise Untrusted(f"there is no key for {credential.spiffe_id}")
    return NodeIdentity(
        trust_domain=stored.trust_domain,
        name=name,
        spiffe_id=credential.spiffe_id,
        credential=record,
        credential_body=credential,
        signing=signing,
        exchange=exchange,
        trust_envelopes=tuple(documents.trust_envelopes),
        bundle_pem=bundle_pem,
        holding=Holding(keys, WallSeconds(stored.turned)),
        authorities=_open_authorities_untrusted(stored.authority),
    )


def _open_keys_untrusted(
    stored: Sequence[StoredKeys], trust_domain: str, bundle_pem: bytes
) -> dict[str, HeldKeys]:
    """Return the keys by SPIFFE ID, sorted, each path and key checked.

    Raises:
        MalformedInput: a chain that does not hold, or a key that is not its leaf's. State unchanged.
    """
    found: dict[str, HeldKeys] = {}
    for entry in sorted(stored, key=lambda entry: entry.spiffe_id):
        name = entry.spiffe_id
        if parse_spiffe_id(name)[0] != trust_domain:
            raise Untrusted(f"a key of {name[:300]}, which is of another trust domain")
        former = None if entry.former is None else _open_key_untrusted(name, entry.former, bundle_pem)
        found[name] = HeldKeys(
            _open_key_untrusted(name, entry.current, bundle_pem),
            _open_key_untrusted(name, entry.next, bundle_pem),
            former,
            entry.used,
        )
    return found


def _open_key_untrusted(spiffe_id: str, stored: StoredKey, bundle_pem: bytes) -> LeafKey:
    key_pem = stored.key.encode()
    key = LeafKey(pin_of(spiffe_id, spki_of_key(key_pem)), key_pem)
    if not stored.chain:
        return key
    chain_pem = stored.chain.encode()
    return certified_key(spiffe_id, key, chain_pem, check_chain_untrusted(chain_pem, bundle_pem, None))


def _open_authorities_untrusted(text: str) -> tuple[str, ...]:
    """Read where the authority is, separated by commas.

    Raises:
        MalformedInput: not HOST:PORT. State unchanged.
    """
    places = tuple(text.split(",")) if text else ()
    for place in places:
        if not is_host_port(place):
            raise MalformedInput(f"{place[:100]!r} where the authority's HOST:PORT was due")
    return places
