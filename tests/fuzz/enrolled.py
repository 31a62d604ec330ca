"""An authority in files that no disk holds, and a node that it enrolled: what other targets begin from."""

import random
import tempfile
from pathlib import Path

import msgspec

from gossipmesh.agent.identity.identity_store import StoredIdentity, StoredKey, StoredKeys
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.roots import Plan, create_authority
from gossipmesh.control.tokens import TokenOrder
from gossipmesh.model.enrolment import EnrolRequest, Issued, JoinToken, OpenReport, RenewRequest
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.member import Address
from gossipmesh.trust.keys import ExchangeKey, SigningKey
from gossipmesh.trust.svid import leaf_key_pem, make_request

NOW = WallSeconds(1_800_000_000)
DOMAIN = "mesh.test"
NODE = f"spiffe://{DOMAIN}/node/n1"
CART = f"spiffe://{DOMAIN}/ns/shop/svc/cart"
NAMES = (NODE, CART)
SIGNING_SEED, EXCHANGE_SEED = b"\x01" * 32, b"\x02" * 32
SIGNING = SigningKey(SIGNING_SEED)
PLACE = "127.0.0.1:1"
_MEMORY = Path("/dev/shm")  # every answer is synced to a disk before it is given
_FOLDER = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None, prefix="gossipmesh-fuzz-")


def folder(name: str) -> Path:
    """Return a private folder of this run, made when it is not there; all are removed at its end."""
    found = Path(_FOLDER.name) / name
    found.mkdir(mode=0o700, exist_ok=True)
    return found


class Enrolled:
    """The authority, the token that was spent, and what the node got for it."""

    def __init__(self, name: str) -> None:
        entropy = random.Random(1).randbytes
        self.directory = folder(name) / "authority"
        self.authority = create_authority(Plan(DOMAIN, self.directory, dev=True), NOW, entropy)
        self.ledger = Ledger(self.directory)
        self.issuer = Issuer(self.authority, self.ledger, entropy)
        order = TokenOrder(Address.parse(PLACE), "n1", ("shop/*",), 600)
        self.token: JoinToken = self.issuer.create_token(order, NOW)
        self.token_path = self.directory / "tokens" / f"{self.token.token_id}.json"
        self.unspent = self.token_path.read_bytes()
        self.keys = {name: leaf_key_pem(bytes([number]) * 48) for number, name in enumerate(NAMES, start=3)}
        self.requests = tuple(make_request(key, name) for name, key in self.keys.items())
        self.issued: Issued = self.issuer.enrol(signed(self.enrol_request()), NOW)

    def enrol_request(self) -> EnrolRequest:
        """Return a request that is not signed yet."""
        token = self.token
        exchange = ExchangeKey(EXCHANGE_SEED).public
        return EnrolRequest(
            token.authority_instance, token.token_id, token.secret, SIGNING.public, exchange, self.requests
        )

    def renew_request(self) -> RenewRequest:
        """Return the same for a renewal."""
        return RenewRequest(NODE, self.requests, NOW, serial=NOW)

    def stored(self) -> StoredIdentity:
        """Return what the node keeps on its disk."""
        held = []
        for number, svid in enumerate(self.issued.svids, start=30):
            key = StoredKey(self.keys[svid.spiffe_id].decode(), svid.chain)
            following = StoredKey(leaf_key_pem(bytes([number]) * 48).decode())
            held.append(StoredKeys(svid.spiffe_id, key, following, former=following, used=True))
        return StoredIdentity(
            version=2,
            trust_domain=DOMAIN,
            authority=PLACE,
            credential=self.issued.credential,
            signing_seed=SIGNING_SEED,
            exchange_seed=EXCHANGE_SEED,
            trust=self.issued.trust,
            turned=NOW,
            keys=tuple(held),
        )


def signed(request: EnrolRequest | RenewRequest | OpenReport) -> EnrolRequest | RenewRequest | OpenReport:
    """Return a request with the proof of the node's key."""
    return msgspec.structs.replace(request, proof=SIGNING.sign(request.proof_bytes()))
