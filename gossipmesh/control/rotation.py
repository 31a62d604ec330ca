"""Giving the authority another credential key, intermediate or root, in three steps that nobody notices.

    name    the new one is made, lies in DIR/next, and the next Trust names it beside the old one
    use     once the mesh has that Trust: the authority issues by the new one
    drop    once nothing of the old one is needed any more: the Trust after that does not name it

A credential key that was stolen is dropped at once, with the roll (`control.roll`): whatever is needed of it
is signed anew there.

Rules:
1. What is used was named before, so that no node meets what its Trust does not know.
2. Each step may be asked for again after a crash: what was made is kept, and files are replaced whole.
Ends at files and unsigned Trust documents; signing and handing out are the command's.
Spec: TUF section 6.1 (key migration); RFC 5280 for certificates.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from gossipmesh.control.certificates import SERIAL_BYTES, make_intermediate, make_root, to_pem
from gossipmesh.control.ledger import Enrolment, Ledger
from gossipmesh.control.roots import INSTANCE_BYTES, Authority, Entropy
from gossipmesh.control.trust_changes import successor
from gossipmesh.model.documents import Signer, SignerRole, TrustDocument
from gossipmesh.model.enrolment import LEAF_LIFE_S
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.records import SignedRecord
from gossipmesh.net.secret_files import read_secret, write_secret
from gossipmesh.trust.keys import KEY_BYTES, SigningKey, key_id
from gossipmesh.trust.pem import signing_key_from_pem_untrusted, signing_key_to_pem
from gossipmesh.trust.svid import LEAF_ENTROPY_BYTES, leaf_key_pem, read_leaf_key_untrusted
from gossipmesh.wire.codec import decode_untrusted

KINDS: Final = ("credential", "intermediate", "root")
STEPS: Final = ("name", "use", "drop")
_FILES: Final = {
    "credential": ("credential.key",),
    "intermediate": ("intermediate.key", "intermediate.pem"),
    "root": ("root.pem", "intermediate.key", "intermediate.pem"),
}
_RECORD_BYTES_MAX: Final = 32_768


@dataclass(frozen=True)
class Rotation:
    """One kind of key of one authority on its way to the next."""

    kind: str
    authority: Authority

    @property
    def waiting(self) -> Path:
        """Return the folder where the new one waits."""
        return self.authority.directory / "next" / self.kind

    def next_step(self) -> str:
        """Return the step that follows from what lies there and what Trust names."""
        if self.waiting.exists():
            return "use" if self._is_named() else "name"
        return "drop" if self._former() else "name"

    def name(self, root_key: ec.EllipticCurvePrivateKey | None, now: WallSeconds, entropy: Entropy) -> None:
        """Make the new one, unless that was done already. `root_key`: what signs an intermediate.

        Raises:
            OperatorError: not written. State unchanged.
        """
        if self.waiting.exists():
            return
        unfinished = self.waiting.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        if self.kind == "credential":
            write_secret(unfinished / "credential.key", signing_key_to_pem(SigningKey(entropy(KEY_BYTES))))
        else:
            self._make_certificates(unfinished, root_key, now, entropy)
        unfinished.rename(self.waiting)

    def named(self) -> TrustDocument:
        """Return the next Trust, which names the new one beside the old one.

        Raises:
            OperatorError: as `successor`. State unchanged.
        """
        trust = self.authority.trust
        if self.kind == "credential":
            others = {signer.name for signer in trust.signers}
            names = (f"credential-{number}" for number in range(2, len(others) + 3))
            name = next(name for name in names if name not in others)
            signer = Signer(name, SignerRole.CREDENTIAL, self._waiting_key().public.hex())
            return successor(trust, signers=(*trust.signers, signer))
        intermediates = (*trust.intermediates, self._waiting_text("intermediate.pem"))
        roots = trust.root_certificates
        if self.kind == "root":
            roots = (*roots, self._waiting_text("root.pem"))
        return successor(trust, intermediates=intermediates, root_certificates=roots)

    def use(self) -> None:
        """Issue by the new one from now on; a server that runs takes it up by itself.

        Raises:
            OperatorError: Trust does not name it yet, or a disk that refuses. What is used stands, or is
                whole once this is done again.
        """
        if not self._is_named():
            raise OperatorError(f"no Trust names a new {self.kind} yet; do --step name first")
        for name in _FILES[self.kind]:
            write_secret(self.authority.directory / name, read_secret(self.waiting / name))
        shutil.rmtree(self.waiting)

    def former_keys(self) -> list[str]:
        """Return the ids, in hex, of the credential keys that Trust names beside the one in use."""
        return [key_id(bytes.fromhex(key)).hex() for key in self._former()]

    def dropped(self, now: WallSeconds, *, force: bool, roll: str = "") -> TrustDocument:
        """Return the next Trust, without the old one.

        `roll` names what replaces all that the old credential key signed; a former roll goes with its key.

        Raises:
            OperatorError: there is no old one, or something of it is needed still; with `force` only the
                former. State unchanged.
        """
        former = self._former()
        if not former:
            raise OperatorError(f"Trust names no {self.kind} but the one in use; nothing is to be dropped")
        needed = "" if roll else self._why_needed(Ledger(self.authority.directory), now)
        if needed and not force:
            raise OperatorError(f"{needed}; wait, or drop it all the same with --force")
        trust = self.authority.trust
        if self.kind == "credential":
            kept = tuple(signer for signer in trust.signers if signer.public_key not in former)
            return successor(trust, signers=kept, roll=roll)
        roots, intermediates = trust.root_certificates, trust.intermediates
        if self.kind == "root":
            used = x509.load_pem_x509_certificate(self.authority.root_pem.encode()).subject
            roots = (self.authority.root_pem,)
            gone = [pem for pem in intermediates if _issuer_of(pem) != used]
        else:
            gone = list(former)
        kept_intermediates = tuple(pem for pem in intermediates if pem not in gone)
        return successor(trust, root_certificates=roots, intermediates=kept_intermediates)

    def _why_needed(self, ledger: Ledger, now: WallSeconds) -> str:
        if self.kind == "credential":
            current = key_id(self.authority.credential_key.public)
            nodes = (ledger.enrolment(name) for name in ledger.nodes())
            behind = [one.node for one in nodes if one and not one.revoked and _signer_of(one) != current]
            return f"{len(behind)} nodes have credentials of the old key: {', '.join(behind[:10])}" * bool(
                behind
            )
        used = [deed.time for deed in ledger.log.deeds() if deed.what == f"rotate {self.kind}: use"]
        left_s = max(used, default=0) + LEAF_LIFE_S - now
        return f"certificates that the old {self.kind} issued live for {left_s // 60} min more" * (left_s > 0)

    def _is_named(self) -> bool:
        trust = self.authority.trust
        if self.kind == "credential":
            return self._waiting_key().public.hex() in {signer.public_key for signer in trust.signers}
        named = self._waiting_text("intermediate.pem") in trust.intermediates
        return named and (self.kind != "root" or self._waiting_text("root.pem") in trust.root_certificates)

    def _former(self) -> Sequence[str]:
        """Return what Trust names of this kind beside what is used."""
        trust = self.authority.trust
        if self.kind == "credential":
            keys = [s.public_key for s in trust.signers if s.role is SignerRole.CREDENTIAL]
            return [key for key in keys if key != self.authority.credential_key.public.hex()]
        if self.kind == "root":
            return [pem for pem in trust.root_certificates if pem != self.authority.root_pem]
        used = to_pem(self.authority.intermediate).decode()
        return [pem for pem in trust.intermediates if pem != used]

    def _make_certificates(
        self,
        folder: Path,
        root_key: ec.EllipticCurvePrivateKey | None,
        now: WallSeconds,
        entropy: Entropy,
    ) -> None:
        mark = entropy(INSTANCE_BYTES).hex()
        root = x509.load_pem_x509_certificate(self.authority.root_pem.encode())
        if self.kind == "root" and root_key is not None:
            root = make_root(root_key, f"gossipmesh root {mark}", now, entropy(SERIAL_BYTES))
        if root_key is None or root.public_key() != root_key.public_key():
            raise OperatorError("that is not the key of the X.509 root; nothing was made")
        key_pem = leaf_key_pem(entropy(LEAF_ENTROPY_BYTES))
        public = read_leaf_key_untrusted(key_pem).public_key()
        name = f"gossipmesh issuing {mark}"
        made = make_intermediate(public, name, root, root_key, now, entropy(SERIAL_BYTES))
        write_secret(folder / "intermediate.key", key_pem)
        write_secret(folder / "intermediate.pem", to_pem(made))
        if self.kind == "root":
            write_secret(folder / "root.pem", to_pem(root))

    def _waiting_key(self) -> SigningKey:
        return signing_key_from_pem_untrusted(read_secret(self.waiting / "credential.key"))

    def _waiting_text(self, name: str) -> str:
        return read_secret(self.waiting / name).decode("ascii")


def mark(directory: Path, what: str, now: WallSeconds) -> None:
    """Put a step on record.

    Raises:
        OperatorError: not written. The step was made.
    """
    ledger = Ledger(directory)
    with ledger.changing():
        ledger.log.append(now, what)


def _issuer_of(pem: str) -> x509.Name:
    return x509.load_pem_x509_certificate(pem.encode()).issuer


def _signer_of(enrolment: Enrolment) -> bytes:
    """Return the key id that signed a node's credential; empty for one that was not kept."""
    if not enrolment.credential:
        return b""
    return decode_untrusted(enrolment.credential, SignedRecord, bytes_max=_RECORD_BYTES_MAX).key_id
