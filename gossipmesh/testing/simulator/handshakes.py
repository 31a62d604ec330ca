"""What a simulated host's engine shows, and whether two hosts would take each other in a TLS handshake.

Each side judges by what its own core holds at that moment: Trust in its documents, members' keys through the
index that an agent tells its engine of, its own civil time; the verdict is the product's one function.
OpenSSL's part, a path to a root and the dates on it, is the product's check of chains.
Spec: RFC 5280 section 6.1; X509-SVID section 5.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gossipmesh.agent.engine.peer_facts import PeerFacts as ToldFacts
from gossipmesh.agent.engine.pin_index import listed_pins
from gossipmesh.agent.identity.dropped import is_dropped
from gossipmesh.agent.identity.identity_store import certified_key
from gossipmesh.agent.identity.key_turning import LeafKey
from gossipmesh.model.documents import TrustDocument
from gossipmesh.model.engine_features import SECTION_FEATURES
from gossipmesh.model.enrolment import Issued
from gossipmesh.model.errors import MalformedInput, Untrusted
from gossipmesh.model.identity import SHORT_ID_BYTES, authority_spiffe_id, parse_spiffe_id
from gossipmesh.model.instant import SECOND_NS, WallSeconds
from gossipmesh.model.records import IdentityPins
from gossipmesh.testing.builders import BuiltKeys
from gossipmesh.testing.simulator.host import WALL_START_S, Host
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.carrier import carrier_leaf_pem, carrier_root_pem
from gossipmesh.trust.leaf_serial import encode_leaf_serial
from gossipmesh.trust.peer_identity import Dialled, PeerFacts, Presented, identify_untrusted
from gossipmesh.trust.peer_tables import CredentialTable, PinTable
from gossipmesh.trust.svid import LeafFacts, check_chain_untrusted
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted

_PATHS_REMEMBERED: Final = 65_536
_SHOWN_MARGIN_S: Final = 300  # an engine shows no certificate that is about to end, or began just now


def civil_time(run: Run, host: Host) -> WallSeconds:
    """Return what a host's clock shows."""
    return WallSeconds(WALL_START_S + run.world.now_ns // SECOND_NS + host.wall_skew_s)


class Shown:
    """The TLS keys of one host, with what the authority issued for them; the node's own name comes first.

    `publishes`: it signs which keys they are; otherwise it is a node of 0.2, judged by its certificates.
    """

    def __init__(self, keys: BuiltKeys, leaf_keys: Mapping[str, LeafKey], *, publishes: bool) -> None:
        self.keys = keys
        self.leaf_keys = dict(leaf_keys)
        self.publishes = publishes
        self._carriers: dict[str, bytes] = {}

    @property
    def key_pems(self) -> dict[str, bytes]:
        """Return the keys by SPIFFE ID, PEM."""
        return {name: key.key_pem for name, key in self.leaf_keys.items()}

    def entries(self) -> list[IdentityPins]:
        """Return what the host publishes of its keys."""
        entries = [IdentityPins(parse_spiffe_id(name)[1], (key.pin,)) for name, key in self.leaf_keys.items()]
        return sorted(entries, key=lambda entry: entry.path)

    def take(self, issued: Issued, trust: TrustDocument, now: WallSeconds) -> None:
        """Keep what was issued if it holds by `trust`, the newest that came with it.

        Raises:
            MalformedInput: it does not. State unchanged.
        """
        bundle = "".join(trust.root_certificates).encode()
        found: dict[str, LeafKey] = {}
        for svid in issued.svids:
            chain, key = svid.chain.encode(), self.leaf_keys[svid.spiffe_id]
            facts = check_chain_untrusted(chain, bundle, now, trust.intermediates)
            found[svid.spiffe_id] = certified_key(svid.spiffe_id, key, chain, facts)
        self.leaf_keys.update(found)

    def chain(self, name: str, now: WallSeconds, trust: TrustDocument | None) -> bytes:
        """Return the chain shown as `name`, PEM: the authority's while it holds, else a carrier's.

        `now` and `trust` are what the host's own clock says, and the Trust that it has.
        """
        key = self.leaf_keys[name]
        holds = key.not_before + _SHOWN_MARGIN_S <= now <= key.not_after - _SHOWN_MARGIN_S
        if not self.publishes or (holds and not is_dropped(key, trust)):
            return key.chain_pem
        if name not in self._carriers:
            serial = encode_leaf_serial(self.keys.node_id, 1, 0, 0)
            domain = parse_spiffe_id(name)[0]
            self._carriers[name] = carrier_leaf_pem(domain, name, key.key_pem, serial)
        return self._carriers[name]


@dataclass(frozen=True)
class Judge:
    """What one host judges its peers by now."""

    run: Run
    host: Host
    facts: PeerFacts
    roots_pem: bytes

    @classmethod
    def of(cls, run: Run, host: Host) -> "Judge":
        """Look at what a running host holds, as its agent tells its engine. Cost: O(members)."""
        documents, domain = run.factory.documents[host.name], run.domain.trust_domain
        told = ToldFacts(run.core(host), documents, features=lambda: SECTION_FEATURES, hears=lambda: True)
        for _ in told.begin():
            pass  # an agent lets others run between its steps
        trust, inputs = documents.trust, told.inputs({})
        assert trust is not None
        assert inputs is not None
        facts = PeerFacts(
            domain,
            _certificates(trust.root_certificates),
            _certificates(inputs.intermediates),
            PinTable(_by_number(inputs.pins)),
            CredentialTable(_by_number(inputs.credentials)),
            alone=not inputs.hears,
        )
        return cls(run, host, facts, _roots_pem(trust) + carrier_root_pem(domain))

    def refusal(self, shown: Shown, name: str, at: WallSeconds, *, is_dialled: bool) -> str:
        """Return why this host would not take what another shows as `name`; empty when it would.

        `at`: what the other's clock shows, by which its engine chose the certificate.
        """
        documents = self.run.factory.documents[shown.keys.name]
        chain, dialled = shown.chain(name, at, documents.trust), None
        if is_dialled:
            node_id = shown.keys.node_id
            pins = listed_pins(self.run.core(self.host).keys_of(node_id), parse_spiffe_id(name)[1])
            dialled = Dialled(name, node_id[:SHORT_ID_BYTES], pins)
        try:
            _check_path_untrusted(chain, self.roots_pem, civil_time(self.run, self.host))
            identify_untrusted(_presented(chain, self.roots_pem), self.facts, dialled)
        except MalformedInput as refused:
            return f"{self.host.name} does not take {name}: {refused}"
        return ""


def authority_refusal(run: Run, host: Host, chain: bytes) -> str:
    """Return why a host would not take the authority that shows this chain for one; empty when it would."""
    trust, domain = run.factory.documents[host.name].trust, run.domain.trust_domain
    assert trust is not None
    facts = PeerFacts(domain, _certificates(trust.root_certificates), _certificates(trust.intermediates))
    roots_pem = _roots_pem(trust)
    try:
        _check_path_untrusted(chain, roots_pem, civil_time(run, host))
        identify_untrusted(_presented(chain, roots_pem), facts, Dialled(authority_spiffe_id(domain)))
    except MalformedInput as refused:
        return f"{host.name} does not take the authority: {refused}"
    return ""


def _roots_pem(trust: TrustDocument) -> bytes:
    return "".join(trust.root_certificates).encode()


def _by_number(shards: Mapping[str, bytes]) -> dict[int, bytes]:
    return {int(name, 16): entries for name, entries in shards.items()}


@lru_cache(maxsize=64)  # Trust before and after a change
def _certificates(pems: tuple[str, ...]) -> frozenset[bytes]:
    return frozenset(certificates_in_pem_untrusted("".join(pems).encode()))


def _check_path_untrusted(chain_pem: bytes, roots_pem: bytes, now: WallSeconds) -> None:
    """Check a path to a root, and the leaf's dates; those of CAs are years apart.

    Raises:
        MalformedInput: it does not hold, or not now. Remote's fault. State unchanged.
    """
    leaf = _leaf_untrusted(chain_pem, roots_pem)
    if not leaf.not_before <= now <= leaf.not_after:
        raise Untrusted(f"a certificate of {leaf.not_before} to {leaf.not_after}, and it is {now}")


@lru_cache(maxsize=_PATHS_REMEMBERED)
def _leaf_untrusted(chain_pem: bytes, roots_pem: bytes) -> LeafFacts:
    return check_chain_untrusted(chain_pem, roots_pem, None)


@lru_cache(maxsize=_PATHS_REMEMBERED)
def _presented(chain_pem: bytes, roots_pem: bytes) -> Presented:
    """Return a chain with the root that it ends at, as OpenSSL gives a path it has verified."""
    chain = x509.load_pem_x509_certificates(chain_pem)
    roots = x509.load_pem_x509_certificates(roots_pem)
    leaf, *issuers = (one.public_bytes(Encoding.DER) for one in chain)
    root = [one.public_bytes(Encoding.DER) for one in roots if one.subject == chain[-1].issuer]
    return Presented(leaf, (*issuers, *root[:1]))
