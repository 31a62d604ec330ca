"""An intermediate that a CA of the operator's own signed, in place of one below a root made here.

Ends at what was given being fit to issue; it is judged by the very rules that nodes judge chains by.
"""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from gossipmesh.control.certificates import make_svid, to_pem
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.identity import authority_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.net.files import read_file
from gossipmesh.net.secret_files import read_secret
from gossipmesh.trust.svid import PEM_BYTES_MAX, check_chain_untrusted, read_leaf_key_untrusted


@dataclass(frozen=True)
class GivenIntermediate:
    """What issues: the certificate above it, its own, and its key; PEM."""

    root_pem: str
    intermediate_pem: str
    key_pem: bytes = field(repr=False)


def read_given(
    root: Path, intermediate: Path, key: Path, trust_domain: str, now: WallSeconds
) -> GivenIntermediate:
    """Read an intermediate and what signed it, and issue a certificate by it to see that nodes would take it.

    Raises:
        OperatorError: unreadable, or no node would take what it issues; the reason. State unchanged.
    """
    try:
        found = x509.load_pem_x509_certificate(read_file(intermediate, PEM_BYTES_MAX))
        above = x509.load_pem_x509_certificate(read_file(root, PEM_BYTES_MAX))
        key_pem = read_secret(key)
        private = read_leaf_key_untrusted(key_pem)
        if found.public_key() != private.public_key():
            raise MalformedInput(f"{key} is not its key")
        sample = make_svid(private.public_key(), authority_spiffe_id(trust_domain), found, private, now, 1)
        check_chain_untrusted(to_pem(sample) + to_pem(found), to_pem(above), now)
    except OSError as error:
        raise OperatorError(f"cannot read {error.filename or intermediate}: {error.strerror}") from None
    except (MalformedInput, ValueError, x509.ExtensionNotFound) as error:
        raise OperatorError(
            f"the intermediate in {intermediate} cannot issue for this mesh: {error}; it must be a CA of "
            f"P-256, signed by {root}, both with path lengths that leave room, and without name constraints"
        ) from None
    return GivenIntermediate(to_pem(above).decode(), to_pem(found).decode(), key_pem)
