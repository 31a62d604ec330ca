"""Whether what the authority gave us still counts: Trust may have dropped who signed it, or revoked it by its
serial number.

Who checks a path to a root refuses such a one however fresh it is, so its key is shown by a carrier leaf
until the authority has issued another. Dates are the engine's to look at.
"""

from functools import lru_cache
from typing import Final

from gossipmesh.agent.identity.key_turning import LeafKey
from gossipmesh.model.documents import SignerRole, TrustDocument, revoked_serials
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.records import SignedRecord
from gossipmesh.trust.keys import key_id
from gossipmesh.trust.svid import check_chain_untrusted, serial_of_chain

_CHAINS_REMEMBERED: Final = 512


def is_dropped(key: LeafKey, trust: TrustDocument | None) -> bool:
    """Tell whether a key has a certificate that nobody takes who has this Trust."""
    if trust is None or not key.chain_pem:
        return False
    if trust.revoked_leaves and _serial(key.chain_pem) in revoked_serials(trust):
        return True
    roots_pem = "".join(trust.root_certificates).encode()
    return not _holds(key.chain_pem, roots_pem, trust.intermediates)


def is_signer_dropped(credential: SignedRecord, trust: TrustDocument | None) -> bool:
    """Tell whether a credential is by a key that this Trust does not name, so that nobody takes it."""
    if trust is None:
        return False
    signers = (one for one in trust.signers if one.role is SignerRole.CREDENTIAL)
    return credential.key_id not in {key_id(bytes.fromhex(one.public_key)) for one in signers}


@lru_cache(maxsize=_CHAINS_REMEMBERED)
def _holds(chain_pem: bytes, roots_pem: bytes, intermediates: tuple[str, ...]) -> bool:
    try:
        check_chain_untrusted(chain_pem, roots_pem, None, intermediates)
    except MalformedInput:
        return False
    return True


@lru_cache(maxsize=_CHAINS_REMEMBERED)
def _serial(chain_pem: bytes) -> int:
    return serial_of_chain(chain_pem)
