"""An authority for a simulated mesh, by its own code over a folder on disk, and the nodes' side of renewals.

Keys, certificates, Trust and its signatures are what `gossipmesh.control` makes; so are the answers to
renewals. Whether a node takes the authority for one is judged by the function that agents ask. What lies
between is virtual: who can reach whom, and when.
Rule: all of it follows from the seed. A CA's signatures are random otherwise, and Trust holds them.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from random import Random
from typing import Final
from unittest import mock

import msgspec
from cryptography import x509

from gossipmesh.control.certificates import SERIAL_BYTES, make_svid, random_serial, to_pem
from gossipmesh.control.credentials import make_leaves, sign_credential
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Enrolment, Ledger
from gossipmesh.control.roots import Plan, create_authority, load_authority
from gossipmesh.control.rotation import Rotation, mark
from gossipmesh.control.trust_changes import sign_trust
from gossipmesh.control.trust_folder import read_root_keys, write_trust
from gossipmesh.model.documents import TrustDocument
from gossipmesh.model.enrolment import Issued, RenewRequest
from gossipmesh.model.identity import authority_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.records import SignedRecord
from gossipmesh.net.secret_files import read_secret, write_secret
from gossipmesh.testing.builders import BuiltKeys
from gossipmesh.trust.svid import (
    LEAF_ENTROPY_BYTES,
    leaf_key_pem,
    make_request,
    read_leaf_key_untrusted,
    read_request_untrusted,
)
from gossipmesh.wire.codec import decode_untrusted

_RECORD_BYTES_MAX: Final = 32_768
_PATTERNS: Final = ("*/*",)


class SimulatedAuthority:
    """The authority of one mesh; `now` is given with each call, in wall seconds."""

    def __init__(self, trust_domain: str, seed: int, now: WallSeconds) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="gossipmesh-authority-")
        self.directory = Path(self._place.name) / "authority"
        self._entropy = Random(f"{seed}/authority").randbytes
        with _repeatable_signatures():
            self.authority = create_authority(Plan(trust_domain, self.directory), now, self._entropy)
        self._issuer = Issuer(self.authority, Ledger(self.directory), self._entropy)

    def close(self) -> None:
        """Remove the folder."""
        self._place.cleanup()

    @property
    def trust_envelopes(self) -> tuple[bytes, ...]:
        """Return every version of Trust, oldest first."""
        return self.authority.trust_envelopes

    # -- nodes ------------------------------------------------------------------------------

    def enrol(self, keys: BuiltKeys, leaf_keys: Mapping[str, bytes], now: WallSeconds) -> Issued:
        """Put a node on record as its token would, and return what it is answered.

        Args:
            leaf_keys: the keys it wants certificates for, PEM, by SPIFFE ID; the node's own first.
        """
        requests = [read_request_untrusted(make_request(key, name)) for name, key in leaf_keys.items()]
        enrolment = Enrolment(
            node=keys.name,
            generation=1,
            serial=1,
            signing_key=keys.signing.public,
            exchange_key=keys.exchange.public,
            services=_PATTERNS,
            enrolled=now,
            ends=0,
        )
        ledger = Ledger(self.directory)
        signed = sign_credential(self.authority, enrolment, requests, now)
        ledger.put_enrolment(signed)
        leaves = make_leaves(self.authority, signed, requests, now)
        return Issued(svids=leaves, credential=signed.credential, trust=self.trust_envelopes)

    def renew(self, keys: BuiltKeys, leaf_keys: Mapping[str, bytes], now: WallSeconds) -> Issued:
        """Answer a node's renewal, as the server does once it has read the request."""
        requests = tuple(make_request(key, name) for name, key in leaf_keys.items())
        form = RenewRequest(spiffe_id=keys.spiffe_id, requests=requests, issued=now, serial=now)
        return self._issuer.renew(
            msgspec.structs.replace(form, proof=keys.signing.sign(form.proof_bytes())), now
        )

    def shown(self, now: WallSeconds) -> bytes:
        """Return the chain that the server shows: its own SVID by what it issues with now, PEM."""
        key = read_leaf_key_untrusted(leaf_key_pem(self._entropy(LEAF_ENTROPY_BYTES)))
        issuer, issuer_key = self.authority.intermediate, self.authority.intermediate_key
        serial = random_serial(self._entropy(SERIAL_BYTES))
        name = authority_spiffe_id(self.authority.trust_domain)
        return to_pem(make_svid(key.public_key(), name, issuer, issuer_key, now, serial)) + to_pem(issuer)

    # -- rotations --------------------------------------------------------------------------

    def name_new(self, kind: str, now: WallSeconds) -> bytes:
        """Take the step `name` of a rotation; return the envelope of the Trust that names the new one."""
        rotation = Rotation(kind, self.authority)
        key_file = self.directory / "root.key"
        key = None
        if kind == "root":
            write_secret(key_file, leaf_key_pem(self._entropy(LEAF_ENTROPY_BYTES)))
        if kind != "credential":
            key = read_leaf_key_untrusted(read_secret(key_file))
        with _repeatable_signatures():
            rotation.name(key, now, self._entropy)
        return self._publish(rotation.named(), f"rotate {kind}: name", now)

    def use_new(self, kind: str, now: WallSeconds) -> None:
        """Take the step `use`: from now on the new one issues."""
        Rotation(kind, self.authority).use()
        mark(self.directory, f"rotate {kind}: use", now)
        self._reload()

    def drop_old(self, kind: str, now: WallSeconds, *, force: bool = False) -> bytes:
        """Take the step `drop`; return the envelope of the Trust without the old one.

        Raises:
            OperatorError: something of the old one is needed still. State unchanged.
        """
        document = Rotation(kind, self.authority).dropped(now, force=force)
        return self._publish(document, f"rotate {kind}: drop", now)

    def _publish(self, document: TrustDocument, what: str, now: WallSeconds) -> bytes:
        root_keys = read_root_keys(self.directory, ())
        envelope = sign_trust(self.authority.trust, document, root_keys)
        write_trust(self.directory, envelope, document.version)
        mark(self.directory, what, now)
        self._reload()
        return envelope.to_bytes()

    def _reload(self) -> None:
        self.authority = load_authority(self.directory)
        self._issuer.use(self.authority)


def record_in(issued: Issued) -> SignedRecord:
    """Return the credential in an answer."""
    return decode_untrusted(issued.credential, SignedRecord, bytes_max=_RECORD_BYTES_MAX)


def leaf_key_of(label: str) -> bytes:
    """Return the P-256 key that follows from a label, PEM."""
    return leaf_key_pem(hashlib.sha384(f"gossipmesh simulated leaf/{label}".encode()).digest())


@contextmanager
def _repeatable_signatures() -> Iterator[None]:
    """Sign certificates by RFC 6979 meanwhile, so that one seed makes one Trust."""
    repeatable = partialmethod(x509.CertificateBuilder.sign, ecdsa_deterministic=True)
    with mock.patch.object(x509.CertificateBuilder, "sign", repeatable):
        yield
