"""Writes `spec/engine/v1-draft/peers.json`: `python -m tests.conformance.peers.make`.

Signatures are random: it changes.

A vector is what a peer shows, what is known of members, whom the caller dialled, if anybody, and the verdict.
"""

import json
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from gossipmesh.model.identity import NodeId, node_id_of
from gossipmesh.model.snapshot import HAS_KEY_SETS, REVOKED
from gossipmesh.trust.carrier import carrier_leaf_pem, carrier_root_pem
from gossipmesh.trust.leaf_serial import encode_leaf_serial
from gossipmesh.trust.pins import pin_of
from tests.conformance.peers.certificates import ENDED, UNTIL, Ca, Leaf, PrivateKey, ca, key_pem, p256, usage

OUT = Path(__file__).parents[3] / "spec" / "engine" / "v1-draft" / "peers.json"
DOMAIN = "mesh.test"
CART = f"spiffe://{DOMAIN}/ns/shop/svc/cart"
WEB = f"spiffe://{DOMAIN}/ns/shop/svc/web"
AUTHORITY = f"spiffe://{DOMAIN}/authority"
GENERATION, SERIAL = 1_700_000_000, 1_700_000_500  # what is known of n1

ROOT = ca("gossipmesh root", 1)
ISSUING = ca("gossipmesh issuing", 2, ROOT)
DELEGATE = ca("gossipmesh delegate", 3, ISSUING)
DROPPED = ca("gossipmesh issuing before", 4, ROOT)
SECOND_ROOT = ca("gossipmesh root", 5, serial=8)  # of the first one's name
SECOND_ISSUING = ca("gossipmesh issuing 2", 6, SECOND_ROOT)
STRANGER = ca("a stranger", 7)
OTHER_NAMES = x509.NameConstraints([x509.UniformResourceIdentifier("elsewhere.test")], None)
CONSTRAINED = ca("gossipmesh issuing for others", 8, ROOT, ((OTHER_NAMES, True),))
CAS = {
    "root": ROOT,
    "issuing": ISSUING,
    "delegate": DELEGATE,
    "dropped": DROPPED,
    "second root": SECOND_ROOT,
    "second issuing": SECOND_ISSUING,
    "constrained": CONSTRAINED,
    "stranger": STRANGER,
}
NAMED = {cert.certificate.public_bytes(Encoding.DER): name for name, cert in CAS.items()}
N1, N2, N3 = (node_id_of(f"spiffe://{DOMAIN}/node/{name}") for name in ("n1", "n2", "n3"))
KEY, NEXT_KEY, OTHER_KEY = p256(21), p256(22), p256(23)


def serial_of(node: NodeId, generation: int = GENERATION, serial: int = SERIAL, index: int = 0) -> int:
    return encode_leaf_serial(node, generation, serial, index)


def pin(spiffe_id: str, key: PrivateKey) -> str:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return pin_of(spiffe_id, der).hex()


@dataclass
class Facts:
    """What is known: n1 lists KEY and NEXT_KEY for cart, n2 OTHER_KEY, unless a vector says otherwise."""

    roots: tuple[str, ...] = ("root",)
    intermediates: tuple[str, ...] | None = ("issuing", "second issuing", "constrained")
    pins: dict[str, str] = field(default_factory=dict)
    flags: dict[NodeId, int] = field(default_factory=dict)
    known: dict[NodeId, tuple[int, int]] = field(default_factory=dict)
    alone: bool = False
    missing: tuple[NodeId, ...] = ()

    def shown(self) -> dict[str, Any]:
        pins = {
            pin(CART, KEY): N1[:8].hex(),
            pin(CART, NEXT_KEY): N1[:8].hex(),
            pin(CART, OTHER_KEY): N2[:8].hex(),
            **self.pins,
        }
        credentials = {
            node[:8].hex(): [
                *self.known.get(node, (GENERATION, SERIAL)),
                self.flags.get(node, HAS_KEY_SETS),
            ]
            for node in (N1, N2)
            if node not in self.missing
        }
        return {
            "trust_domain": DOMAIN,
            "roots": list(self.roots),
            "intermediates": None if self.intermediates is None else list(self.intermediates),
            "pins": pins,
            "credentials": credentials,
            "alone": self.alone,
        }


class Vectors:
    """The vectors made so far."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        want: str,
        leaf: Leaf,
        issuer: Ca | None = ISSUING,
        facts: Facts | None = None,
        *,
        dialled: dict[str, Any] | None = None,
        path: tuple[str, ...] | None = None,
        openssl: bool = False,
    ) -> None:
        """Add one. `want`: a ground or `!code`; `issuer` None: the carrier; `openssl`: it refuses already."""
        if issuer is None:
            pem = carrier_leaf_pem(DOMAIN, leaf.spiffe_id, key_pem(leaf.key), leaf.serial)
            chain, issuers = [pem.decode()], ["carrier"]
        else:
            made = leaf.signed(issuer)
            above = [NAMED[one.public_bytes(Encoding.DER)] for one in made[1:]]
            chain = [made[0].public_bytes(Encoding.PEM).decode(), *above]
            issuers = [*above, *(path or (self._root_of(issuer),))]
        outcome = (
            {"refused": want[1:]} if want.startswith("!") else {"identity": leaf.spiffe_id, "ground": want}
        )
        self.made.append(
            {
                "name": name,
                "shown": {"chain": chain, "key": key_pem(leaf.key).decode(), "issuers": issuers},
                "facts": (facts or Facts()).shown(),
                "dialled": dialled,
                "openssl_refuses": openssl,
                **outcome,
            }
        )

    @staticmethod
    def _root_of(issuer: Ca) -> str:
        top = issuer.above[-1] if issuer.above else issuer.certificate
        roots = {root.certificate.subject.rfc4514_string(): root for root in (ROOT, STRANGER)}
        if issuer is SECOND_ISSUING:
            return "second root"
        return NAMED[roots[top.issuer.rfc4514_string()].certificate.public_bytes(Encoding.DER)]


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


LISTED = Leaf(CART, KEY, serial_of(N1))
UNLISTED = Leaf(CART, p256(31), serial_of(N1))


def leaf_rules(vectors: Vectors) -> None:
    """The key is listed, so that the form of the leaf alone decides."""
    add = vectors.add
    add("a leaf as it should be, by the authority", "listed", LISTED)
    add("a leaf as it should be, by the carrier", "listed", LISTED, None)
    add("the key for the coming week", "listed", LISTED.but(key=NEXT_KEY))
    add("by a delegate below an intermediate", "listed", LISTED, DELEGATE)
    add("by an intermediate that Trust dropped", "listed", LISTED, DROPPED)
    add("by a CA of nobody here", "!handshake", LISTED, STRANGER, openssl=True)
    is_ca = x509.BasicConstraints(ca=True, path_length=0)
    add("the CA bit", "!ca", LISTED.but(constraints=is_ca))
    add("the CA bit and a CA's key usage", "!ca", LISTED.but(constraints=is_ca, usage=usage("key_cert_sign")),
        openssl=True)  # fmt: skip
    add("no basic constraints", "!ca", LISTED.but(constraints=None))
    signs = usage("digital_signature", "key_cert_sign")
    add("keyCertSign beside digitalSignature", "!key-usage", LISTED.but(usage=signs))
    add(
        "cRLSign beside digitalSignature",
        "!key-usage",
        LISTED.but(usage=usage("digital_signature", "crl_sign")),
    )
    add("keyAgreement without digitalSignature", "!key-usage", LISTED.but(usage=usage("key_agreement")))
    add("no key usage", "!key-usage", LISTED.but(usage=None))
    add("a key usage that is not critical", "!key-usage", LISTED.but(usage_critical=False))
    add("no extended key usage", "!extended-key-usage", LISTED.but(purposes=()))
    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    add("for clients only", "!extended-key-usage", LISTED.but(purposes=(client,)))
    add("for servers only", "!extended-key-usage", LISTED.but(purposes=(server,)), openssl=True)
    leaf_names(vectors)
    leaf_keys_and_extensions(vectors)
    both = Facts(roots=("root", "second root"))
    add("two roots of one name, by the second", "listed", LISTED, SECOND_ISSUING, both)
    other_way = Facts(roots=("second root", "root"))
    add("two roots of one name, the other one first", "listed", LISTED, SECOND_ISSUING, other_way)


def leaf_names(vectors: Vectors) -> None:
    add = vectors.add
    names = {
        "no name": (),
        "a DNS name beside the SPIFFE ID": (uri(CART), x509.DNSName("cart.shop")),
        "two SPIFFE IDs": (uri(CART), uri(WEB)),
        "one SPIFFE ID twice": (uri(CART), uri(CART)),
        "a DNS name alone": (x509.DNSName("cart.shop"),),
        "an address alone": (x509.IPAddress(ip_address("10.0.0.1")),),
        "another scheme": (uri("https://mesh.test/ns/shop/svc/cart"),),
        "a path this mesh does not issue": (uri("spiffe://mesh.test/ns/shop/sa/cart"),),
        "a path with an empty part": (uri("spiffe://mesh.test//ns/shop/svc/cart"),),
        "a trust domain in capitals": (uri("spiffe://MESH.test/ns/shop/svc/cart"),),
        "a query behind the path": (uri("spiffe://mesh.test/ns/shop/svc/cart?x=1"),),
    }
    for name, found in names.items():
        add(f"names: {name}", "!names", LISTED.but(names=found))
    other = "spiffe://other.test/ns/shop/svc/cart"
    add("another trust domain", "!trust-domain", LISTED.but(spiffe_id=other, names=(uri(other),)))
    longer = "spiffe://mesh.test.other/ns/shop/svc/cart"
    add(
        "a trust domain that begins like ours",
        "!trust-domain",
        LISTED.but(spiffe_id=longer, names=(uri(longer),)),
    )


def leaf_keys_and_extensions(vectors: Vectors) -> None:
    add = vectors.add
    for kind, key in {
        "RSA": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "P-384": ec.generate_private_key(ec.SECP384R1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    }.items():
        listed = Facts(pins={pin(CART, key): N1[:8].hex()})
        add(f"a key of {kind}", "!key-kind", LISTED.but(key=key), facts=listed)
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    add("an unknown extension", "listed", LISTED.but(more=((strange, False),)))
    add("an unknown critical extension", "!extension", LISTED.but(more=((strange, True),)), openssl=True)
    add("name constraints in a leaf", "!extension", LISTED.but(more=((OTHER_NAMES, False),)))
    add("an issuer constrained to other names", "!handshake", LISTED, CONSTRAINED, openssl=True)
    add("a leaf that has ended", "!handshake", LISTED.but(until=ENDED), openssl=True)
    add("a leaf that has not begun", "!handshake", LISTED.but(since=UNTIL.replace(year=2098)), openssl=True)


def authority(vectors: Vectors) -> None:
    leaf = Leaf(AUTHORITY, KEY)
    vectors.add("the authority's leaf, shown by a caller", "!authority", leaf)
    listed = Facts(pins={pin(AUTHORITY, KEY): N1[:8].hex()})
    vectors.add("the authority's leaf, listed by a member", "!authority", leaf, facts=listed)
    asked = {"spiffe_id": AUTHORITY, "node": "", "pins": None}
    vectors.add("the authority, where it is called", "issued", leaf, dialled=asked)
    vectors.add("the authority by a delegate", "!authority", leaf, DELEGATE, dialled=asked)
    vectors.add("the authority by the carrier", "!authority", leaf, None, dialled=asked)
    dropped = Facts(intermediates=("second issuing",))
    vectors.add(
        "the authority by an intermediate that Trust dropped",
        "!authority",
        leaf,
        facts=dropped,
        dialled=asked,
    )
    token = Facts(intermediates=None)
    vectors.add("the authority, by a token's root", "issued", leaf, facts=token, dialled=asked)
    vectors.add("a delegate's, by a token's root", "!authority", leaf, DELEGATE, token, dialled=asked)
    vectors.add("a node, where the authority is called", "!other-identity", LISTED, dialled=asked)


def callers(vectors: Vectors) -> None:
    """Keys that no key set lists, and what is known of their nodes."""
    add = vectors.add
    newer, equal = serial_of(N1, GENERATION, SERIAL + 1), serial_of(N1)
    higher, lower = serial_of(N1, GENERATION + 1, 1), serial_of(N1, GENERATION - 1, SERIAL + 9)
    add("a carrier leaf of a key nobody lists", "!carried", UNLISTED, None)
    add("a stolen intermediate's leaf", "!unlisted", UNLISTED)
    add("a stolen intermediate's leaf that claims a later serial", "!unlisted", UNLISTED.but(serial=newer))
    add(
        "a stolen intermediate's leaf that claims a later generation",
        "!unlisted",
        UNLISTED.but(serial=higher),
    )
    unheard = UNLISTED.but(serial=serial_of(N3))
    add("a stolen intermediate's leaf for a node nobody knows", "!no-credential", unheard)
    add("a key that is listed for another identity", "!unlisted", LISTED.but(spiffe_id=WEB))
    add("a delegate's leaf", "!carried", UNLISTED, DELEGATE)
    add("a root's own leaf", "!carried", UNLISTED, ROOT)
    add("a leaf of an intermediate that Trust dropped", "!carried", UNLISTED, DROPPED)
    add("listed by a node without a credential", "!no-credential", LISTED, facts=Facts(missing=(N1,)))
    add("listed by a revoked node", "!revoked", LISTED, facts=Facts(flags={N1: REVOKED}))
    node = f"spiffe://{DOMAIN}/node/n2"
    add("one node's name, issued to another", "!other-node", UNLISTED.but(spiffe_id=node))
    alone = Facts(alone=True)
    for name, want, serial in [
        ("alone: issued later than what is known", "issued", newer),
        ("alone: a later generation", "issued", higher),
        ("alone: issued no later", "!not-newer", equal),
        ("alone: an earlier generation", "!not-newer", lower),
        ("alone: a newcomer", "issued", serial_of(N3)),
        ("alone: a serial number of 0.2", "!unlisted", 2**150 + 1),
    ]:
        add(name, want, UNLISTED.but(serial=serial), facts=alone)
    add("alone: a carrier leaf", "!carried", UNLISTED.but(serial=newer), None, alone)
    add("alone: a listed key", "listed", LISTED, None, alone)
    gone = Facts(alone=True, flags={N1: REVOKED}, known={N1: (GENERATION + 1, 0)})
    add("alone: a revoked node's", "!revoked", UNLISTED.but(serial=newer), facts=gone)
    again = UNLISTED.but(serial=serial_of(N1, GENERATION + 2, 1))
    add("alone: a revoked node, enrolled again", "issued", again, facts=gone)
    lacking = Facts(flags={N1: 0})
    add("its node signs no key sets", "issued", UNLISTED, facts=lacking)
    add("its node signs no key sets, and it was issued before it enrolled again", "!superseded",
        UNLISTED.but(serial=lower), facts=lacking)  # fmt: skip
    add("its node signs no key sets, by the carrier", "!carried", UNLISTED, None, lacking)
    without = Facts(flags={N1: REVOKED}, known={N1: (GENERATION + 1, 0)})
    add("its node signed no key sets, and is revoked", "!revoked", UNLISTED, facts=without)
    before = UNLISTED.but(serial=2**150 + 1)
    add(
        "a serial number of 0.2 while some member signs no key sets",
        "issued",
        before,
        facts=Facts(flags={N2: 0}),
    )
    add("a serial number of 0.2 when all members sign key sets", "!unlisted", before)
    own = before.but(spiffe_id=f"spiffe://{DOMAIN}/node/n1")
    add("a node's own leaf of 0.2", "issued", own, facts=lacking)
    add("a node's own leaf of 0.2, though it signs key sets", "!unlisted", own, facts=Facts(flags={N2: 0}))
    told_nothing = Facts(intermediates=None, pins={})
    add("told nothing of keys: by an intermediate", "vouched", UNLISTED, facts=told_nothing)
    add("told nothing of keys: by the carrier", "!carried", UNLISTED, None, told_nothing)


def dialled(vectors: Vectors) -> None:
    add = vectors.add
    lists: dict[str, Any] = {
        "spiffe_id": CART,
        "node": N1[:8].hex(),
        "pins": [pin(CART, KEY), pin(CART, NEXT_KEY)],
    }
    add("dialled: a key its node lists, by the carrier", "listed", LISTED, None, dialled=lists)
    add("dialled: a key its node lists, by the authority", "listed", LISTED, dialled=lists)
    add("dialled: someone else answers", "!other-identity", LISTED.but(spiffe_id=WEB), dialled=lists)
    add("dialled: a carrier leaf of a key nobody lists", "!carried", UNLISTED, None, dialled=lists)
    add("dialled: a stolen intermediate's leaf", "!unlisted", UNLISTED, dialled=lists)
    claims = UNLISTED.but(serial=serial_of(N1, GENERATION + 5, 1))
    add("dialled: a stolen intermediate's leaf of a later generation", "!unlisted", claims, dialled=lists)
    others = LISTED.but(key=OTHER_KEY, serial=serial_of(N2))
    add("dialled: another node's listed key, by the carrier", "!carried", others, None, dialled=lists)
    add("dialled: another node's listed key, by the authority", "!other-node", others, dialled=lists)
    turned = {**lists, "pins": [pin(CART, NEXT_KEY)]}
    add("dialled: a key its node has dropped", "!carried", LISTED, None, dialled=turned)
    none_left = {**lists, "pins": []}
    add("dialled: its node lists no key for it", "!unlisted", LISTED, dialled=none_left)
    lacks = {**lists, "pins": None}
    add("dialled: its node signs no key sets", "issued", UNLISTED, facts=Facts(flags={N1: 0}), dialled=lacks)
    add("dialled: its node signs no key sets, by the carrier", "!carried", UNLISTED, None,
        Facts(flags={N1: 0}), dialled=lacks)  # fmt: skip
    add("dialled: its node signs key sets, and none was told", "!unlisted", UNLISTED, dialled=lacks)
    add("dialled: revoked", "!revoked", LISTED, facts=Facts(flags={N1: REVOKED}), dialled=lists)
    later = UNLISTED.but(serial=serial_of(N1, GENERATION, SERIAL + 1))
    add(
        "dialled, alone: issued later than what is known",
        "issued",
        later,
        facts=Facts(alone=True),
        dialled=lists,
    )
    add("dialled, alone: issued no later", "!not-newer", UNLISTED, facts=Facts(alone=True), dialled=lists)


def main() -> None:
    """Write the file."""
    vectors = Vectors()
    for group in (leaf_rules, authority, callers, dialled):
        group(vectors)
    certificates = {name: one.pem for name, one in CAS.items()}
    certificates["carrier"] = carrier_root_pem(DOMAIN).decode()
    OUT.write_text(json.dumps({"certificates": certificates, "vectors": vectors.made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
