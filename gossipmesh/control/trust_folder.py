"""Trust in an authority's folder: every version, and the keys that sign the next one.

Ends at files; what the next version says is `control.trust_changes`'.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.net.secret_files import read_secret, require_private, write_secret
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.envelope import Envelope
from gossipmesh.trust.keys import SigningKey, Verifier
from gossipmesh.trust.pem import is_locked, signing_key_from_pem_untrusted
from gossipmesh.wire.codec import decode_json_untrusted

AskPassphrase = Callable[[str], bytes]
"""Returns the passphrase of the key in a file."""


def no_passphrase(what: str) -> bytes:
    """Say that a key is under a passphrase where nobody can be asked for one.

    Raises:
        OperatorError: always. State unchanged.
    """
    raise OperatorError(f"{what} is under a passphrase; give it with --passphrase-file or --passphrase-fd")


class _Described(msgspec.Struct, frozen=True):
    """What of authority.json says which trust domain this is."""

    trust_domain: str


def load_trust(directory: Path, trust_domain: str) -> TrustedDocuments:
    """Return every version of Trust in the folder, verified.

    Raises:
        OperatorError: missing, or open to others. State unchanged.
        MalformedInput: a version that does not follow the one before it. State unchanged.
    """
    documents = TrustedDocuments(trust_domain=trust_domain, verifier=Verifier(), features=())
    for path in sorted((directory / "trust").glob("*.envelope")):
        documents.load_trust_untrusted(read_secret(path))
    return documents


def read_trust(directory: Path) -> TrustedDocuments:
    """Return Trust for a command that needs nothing else of the folder; there is at least one version.

    Raises:
        OperatorError: no authority there, open to others, or damaged. State unchanged.
    """
    described = directory / "authority.json"
    if not described.exists():
        raise OperatorError(f"no authority in {directory}; give the folder `authority init` made with --dir")
    require_private(directory)
    try:
        domain = decode_json_untrusted(read_secret(described), _Described, "authority.json").trust_domain
        documents = load_trust(directory, domain)
    except MalformedInput as error:
        raise OperatorError(
            f"Trust in {directory} is damaged ({error}); restore the folder from a backup"
        ) from None
    if documents.trust is None:
        raise OperatorError(f"there is no Trust in {directory / 'trust'}; restore the folder from a backup")
    return documents


def write_trust(directory: Path, envelope: Envelope, version: int) -> None:
    """Put the next version of Trust into the folder; it is on disk when this returns.

    Raises:
        OperatorError: the disk does not take it. What was there stands.
    """
    write_secret(directory / "trust" / f"{version:05}.envelope", envelope.to_bytes())
    write_secret(directory / "trust.json", envelope.to_json().encode() + b"\n")


def read_signing_key(path: Path, ask: AskPassphrase = no_passphrase) -> SigningKey:
    """Return the Ed25519 key in a 0600 file; `ask` gives the passphrase of one that has one.

    Raises:
        OperatorError: missing, open to others, no such key, or no or another passphrase. State unchanged.
    """
    content = read_secret(path)
    try:
        return signing_key_from_pem_untrusted(content, ask(str(path)) if is_locked(content) else None)
    except MalformedInput as error:
        raise OperatorError(f"{path} is no signing key: {error}") from None


def read_root_keys(
    directory: Path, paths: Sequence[Path], ask: AskPassphrase = no_passphrase
) -> list[SigningKey]:
    """Return the document root keys in `paths`, or where none is given those that lie in the folder.

    Raises:
        OperatorError: as `read_signing_key`; or there is none. State unchanged.
    """
    chosen = list(paths) or sorted((directory / "documents").glob("*.key"))
    if not chosen:
        raise OperatorError(
            f"no document root key in {directory / 'documents'}: they are kept offline; give each that signs "
            "with --root-key FILE"
        )
    return [read_signing_key(path, ask) for path in chosen]
