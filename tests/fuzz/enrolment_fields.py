"""Targets behind the form of a request: valid ones with some fields exchanged, signed again by who asks.

Bytes that are mutated hardly ever get past JSON and types. Here the bytes choose which fields are what, from
what is right, what is another's and what is nobody's: the authority's own rules are what stands in the way.
"""

import random
from typing import Any

import msgspec
import pytest

from gossipmesh.control.pacing import Bucket
from gossipmesh.control.requests import RequestRefused
from gossipmesh.model.enrolment import Issued, RenewRequest
from gossipmesh.model.instant import DAY_S
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.trust.keys import ExchangeKey, SigningKey
from gossipmesh.trust.svid import leaf_key_pem, make_request
from gossipmesh.wire.codec import decode_untrusted
from tests.fuzz.decoders import Target
from tests.fuzz.enrolled import CART, DOMAIN, EXCHANGE_SEED, NODE, NOW, SIGNING, Enrolled

OTHER = SigningKey(b"\x07" * 32)
ALLOWED = (NODE, f"{NODE}/workloads", CART, f"spiffe://{DOMAIN}/ns/shop/svc/other")
FOREIGN = (
    f"spiffe://{DOMAIN}/ns/bank/svc/vault",
    f"spiffe://{DOMAIN}/node/n2",
    f"spiffe://{DOMAIN}/node/n2/workloads",
    f"spiffe://{DOMAIN}/authority",
    "spiffe://other.test/node/n1",
    f"spiffe://{DOMAIN}/ns/shop/svc/Cart",
    f"spiffe://{DOMAIN}/ns/shop/svc/cart/more",
)
SMALL_ORDER = bytes(32)
SEEDS = [bytes([number]) * 8 for number in range(40)]
RECORD_BYTES_MAX = 20_000


class Pools:
    """Certificate requests by name, one key each, and damaged ones."""

    def __init__(self, made: Enrolled) -> None:
        keys = {
            name: leaf_key_pem(bytes([number]) * 48) for number, name in enumerate((*ALLOWED, *FOREIGN), 60)
        }
        self.good = [make_request(keys[name], name) for name in ALLOWED]
        self.foreign = [make_request(key, name) for name, key in keys.items() if name in FOREIGN]
        self.secret = made.token.secret

    def requests(self, rng: random.Random) -> tuple[str, ...]:
        """Return the node's own request and others, mostly in a row that may be asked for."""
        chosen = [self.good[0], *rng.sample(self.good[1:], rng.randint(0, 3))]
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            wrong = rng.choice((rng.choice(self.foreign), _damaged(rng.choice(self.good), rng), self.good[0]))
            chosen.insert(rng.randint(0, len(chosen)), wrong)
        if rng.random() < 0.1:
            rng.shuffle(chosen)
        return tuple(chosen[: rng.choice((0, 1, 99, 99, 99, 99))])


def enrol_target() -> Target:
    made = Enrolled("enrol-fields")
    pools = Pools(made)

    def feed(data: bytes) -> tuple[int, int]:
        """A token is redeemed by whoever has it, once, for what it names; a refusal costs it nothing."""
        rng = random.Random(data)
        made.token_path.write_bytes(made.unspent)
        keys = rng.choice((SIGNING, SIGNING, SIGNING, OTHER))
        plain = made.enrol_request()
        request = msgspec.structs.replace(
            plain,
            requests=pools.requests(rng),
            signing_key=_mostly(rng, keys.public, (SMALL_ORDER, b"", keys.public[:-1], OTHER.public)),
            exchange_key=_mostly(rng, plain.exchange_key, (SMALL_ORDER, b"x", rng.randbytes(32))),
            secret=_mostly(rng, plain.secret, ("", "00" * 32, plain.secret.upper(), plain.secret + "0")),
            token_id=_mostly(rng, plain.token_id, ("", "../" + plain.token_id, "00" * 8)),
            authority_instance=_mostly(rng, plain.authority_instance, ("", "00" * 8)),
        )
        request = _proven(request, _mostly(rng, keys, (OTHER, None)))
        try:
            issued = made.issuer.enrol(request, NOW, "10.0.0.1")
        except RequestRefused:
            assert made.token_path.read_bytes() == made.unspent, "a refusal spent the token"
            raise
        _require_own(issued, request.signing_key, request.exchange_key)
        with pytest.raises(RequestRefused, match="used already"):
            made.issuer.enrol(request, NOW, "10.0.0.1")
        return 0, 1

    return Target("enrol-fields", 3, "bytes", SEEDS, feed, 0, 1, True)


def renew_target() -> Target:
    made = Enrolled("renew-fields")
    made.issuer._renewals = Bucket(2**40, 1)
    pools = Pools(made)
    exchange = ExchangeKey(EXCHANGE_SEED).public

    def feed(data: bytes) -> tuple[int, int]:
        """A renewal is the enrolled key's, for its own names, and raises the serial alone."""
        rng = random.Random(data)
        before = made.ledger.enrolment("n1")
        assert before is not None
        serials = (msgspec.UNSET, before.serial, before.serial + 1, 0, -1, NOW + 2 * DAY_S, 2**62, 2**70)
        request = RenewRequest(
            spiffe_id=_mostly(rng, NODE, (*FOREIGN, f"{NODE}/workloads", "", "n1")),
            requests=pools.requests(rng),
            issued=_mostly(rng, NOW, (NOW - 299, NOW + 299, NOW - 4_000, NOW + 2 * DAY_S, 0, -1)),
            serial=_mostly(rng, NOW, serials),
        )
        signer = _mostly(rng, SIGNING, (OTHER, None))
        request = _proven(request, signer)
        try:
            issued = made.issuer.renew(request, NOW, "10.0.0.1")
        except RequestRefused:
            assert made.ledger.enrolment("n1") == before, "a refusal changed the ledger"
            raise
        after = made.ledger.enrolment("n1")
        assert after is not None
        assert (signer, request.spiffe_id) == (SIGNING, NODE)
        assert after.generation == before.generation
        assert before.serial < after.serial <= max(before.serial + 1, NOW + DAY_S)
        _require_own(issued, SIGNING.public, exchange)
        return 0, 1

    return Target("renew-fields", 3, "bytes", SEEDS, feed, 0, 1, True)


def _mostly(rng: random.Random, right: Any, others: tuple[Any, ...]) -> Any:
    return rng.choice(others) if rng.random() < 0.06 else right


def _proven(request: Any, key: SigningKey | None) -> Any:
    """Return the request with a key's proof; None: without any."""
    return request if key is None else msgspec.structs.replace(request, proof=key.sign(request.proof_bytes()))


def _damaged(pem: str, rng: random.Random) -> str:
    at = rng.randrange(len(pem))
    return pem[:at] + rng.choice("AZaz09+/=\n-") + pem[at + rng.randint(0, 2) :]


def _require_own(issued: Issued, signing_key: bytes, exchange_key: bytes) -> None:
    """Require that what was issued is of this node, by these keys."""
    assert issued.svids[0].spiffe_id == NODE
    assert {svid.spiffe_id for svid in issued.svids} <= set(ALLOWED)
    record = decode_untrusted(issued.credential, SignedRecord, bytes_max=RECORD_BYTES_MAX)
    credential = decode_untrusted(record.body, NodeCredential, bytes_max=RECORD_BYTES_MAX)
    assert (credential.spiffe_id, credential.signing_key) == (NODE, signing_key)
    assert credential.exchange_key == exchange_key


def field_targets() -> list[Target]:
    """Return every target of this module."""
    return [enrol_target(), renew_target()]
