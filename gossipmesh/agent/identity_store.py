"""A node's identity on disk: one file, `identity.json`, 0600 in a 0700 folder, replaced whole.

One file and not one per key, because a renewal changes chains, keys and the credential together: after a
crash or on a full disk the old identity stands, or the new one, never a mixture. What is read is checked
as if a stranger had written it: keys against certificates and credential, both against Trust.
Ends at the identity; getting one is `agent.enrolment`'s. Certificates' dates are judged by their users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from gossipmesh.model.errors import MalformedInput, OperatorError, Untrusted
from gossipmesh.model.identity import node_name_of_spiffe_id, parse_spiffe_id
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.net.secret_files import (
    Reservation,
    make_private_directory,
    read_secret,
    require_private,
    reserve_file,
)
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier
from gossipmesh.trust.records import open_credential_untrusted
from gossipmesh.trust.svid import check_chain_untrusted, spki_hash_of_key
from gossipmesh.wire.codec import decode_untrusted, encode
from gossipmesh.wire.versions import FEATURES, STATE_FORMAT

FILE_NAME: Final = "identity.json"
RESERVED_BYTES: Final = 262_144  # room for over a hundred SVIDs
CREDENTIAL_BYTES_MAX: Final = 32_768


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
    `svids` holds the node's own and one per service, by SPIFFE ID in sorted order.
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
    svids: Mapping[str, Svid]
    authority: Address | None

    def __repr__(self) -> str:
        return f"NodeIdentity({self.spiffe_id!r}, {len(self.svids)} SVIDs)"

    @property
    def node_svid(self) -> Svid:
        """Return the node's own SVID."""
        return self.svids[self.spiffe_id]


class StoredSvid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One SVID in the file; PEM."""

    spiffe_id: str
    chain: str
    key: str

    def __repr__(self) -> str:
        return f"StoredSvid({self.spiffe_id!r})"


class StoredIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. Bytes are base64; seeds are the secret halves of the Ed25519 and X25519 keys."""

    version: int
    trust_domain: str
    authority: str
    credential: bytes
    signing_seed: bytes
    exchange_seed: bytes
    trust: tuple[bytes, ...]
    svids: tuple[StoredSvid, ...]

    def __repr__(self) -> str:
        return f"StoredIdentity({self.trust_domain!r})"


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
        stored = msgspec.json.decode(content, type=StoredIdentity)
        return open_stored_untrusted(stored)
    except (msgspec.MsgspecError, UnicodeError, MalformedInput) as error:
        raise OperatorError(
            f"the identity in {path} is damaged ({error}); restore it from a backup, or remove it and "
            "enrol this node again with a new token"
        ) from None


def reserve_identity(directory: Path) -> Reservation:
    """Hold the disk space for an identity before anything irrevocable is asked for.

    Raises:
        OperatorError: no space or no permission. State unchanged.
    """
    make_private_directory(directory)
    return reserve_file(directory / FILE_NAME, RESERVED_BYTES)


def encode_stored(stored: StoredIdentity) -> bytes:
    """Return the file's content."""
    return msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n"


def stored_of(identity: NodeIdentity) -> StoredIdentity:
    """Return what the file holds for `identity`."""
    return StoredIdentity(
        version=STATE_FORMAT,
        trust_domain=identity.trust_domain,
        authority="" if identity.authority is None else str(identity.authority),
        credential=encode(identity.credential),
        signing_seed=identity.signing.seed(),
        exchange_seed=identity.exchange.seed(),
        trust=identity.trust_envelopes,
        svids=tuple(
            StoredSvid(svid.spiffe_id, svid.chain_pem.decode(), svid.key_pem.decode())
            for svid in identity.svids.values()
        ),
    )


def open_stored_untrusted(stored: StoredIdentity) -> NodeIdentity:
    """Check that everything in an identity belongs together, and return it.

    Raises:
        MalformedInput: it does not; the sentence says what. State unchanged.
    """
    if stored.version != STATE_FORMAT:
        raise MalformedInput(f"its format is {stored.version}, this build reads {STATE_FORMAT}")
    verifier = Verifier(verdicts_max=64)
    documents = TrustedDocuments(trust_domain=stored.trust_domain, verifier=verifier, features=FEATURES)
    for envelope in stored.trust:
        documents.load_trust_untrusted(envelope)
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
    svids = _open_svids_untrusted(stored.svids, stored.trust_domain, bundle_pem)
    name = node_name_of_spiffe_id(credential.spiffe_id)
    if name is None or credential.spiffe_id not in svids:
        raise Untrusted(f"there is no SVID for {credential.spiffe_id}")
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
        svids=svids,
        authority=Address.parse(stored.authority) if stored.authority else None,
    )


def _open_svids_untrusted(
    stored: Sequence[StoredSvid], trust_domain: str, bundle_pem: bytes
) -> dict[str, Svid]:
    """Return the SVIDs by SPIFFE ID, sorted, each path and key checked.

    Raises:
        MalformedInput: a chain that does not hold, or a key that is not its leaf's. State unchanged.
    """
    svids: dict[str, Svid] = {}
    for entry in sorted(stored, key=lambda entry: entry.spiffe_id):
        facts = check_chain_untrusted(entry.chain.encode(), bundle_pem, None)
        if facts.spiffe_id != entry.spiffe_id or parse_spiffe_id(facts.spiffe_id)[0] != trust_domain:
            raise Untrusted(f"the certificate of {entry.spiffe_id[:300]} is of {facts.spiffe_id}")
        if spki_hash_of_key(entry.key.encode()) != facts.spki_hash:
            raise Untrusted(f"the key of {entry.spiffe_id} does not match its certificate")
        svids[entry.spiffe_id] = Svid(
            entry.spiffe_id, entry.chain.encode(), entry.key.encode(), facts.not_before, facts.not_after
        )
    return svids
