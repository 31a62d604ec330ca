"""Whose the other end of a TLS connection is: the one place that tells, for engines, agents and authority.

In comes the leaf that was shown, the path OpenSSL verified, and what is known of members; out goes an
identity, or a refusal with a code and a sentence. Nothing else in this project may read a peer's certificate,
because OpenSSL alone lets anyone through: the carrier CA's key is public. Rules, in order:

1. The leaf is one (`trust.x509_leaf`), not revoked by its serial number, of the trust domain, and of whom was
   dialled, if anyone was.
2. `/authority` counts only where the authority was dialled, and only directly below an intermediate.
3. Its key is listed, by the node that was dialled or by any member for that identity: taken, whoever
   issued it, as long as the node's credential holds.
4. Not listed: only if an intermediate of Trust signed it *directly*, and either its node signs no key sets,
   or whoever asks is alone (its agent is gone or hears nobody) and the leaf was issued later than all that is
   known of its node.
5. Who knows no Trust (told by an agent of 0.2) takes whom a root vouches for, as 0.2 does, and no carrier.

Spec: X509-SVID section 5.2; RFC 5280 section 6.1 (the path is OpenSSL's to verify).
Deviation: a path to a root makes nobody anybody once members sign their keys; that is the point.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple, Protocol

from gossipmesh.model.errors import PeerRefused
from gossipmesh.model.identity import SHORT_ID_BYTES, authority_spiffe_id, node_id_of, node_spiffe_id
from gossipmesh.trust.leaf_serial import LeafSerial, decode_leaf_serial_untrusted
from gossipmesh.trust.peer_tables import CredentialTable, Known, PinTable
from gossipmesh.trust.x509_leaf import Leaf, read_leaf_untrusted


class Ground(StrEnum):
    """Why a peer was taken: its node lists the key, an intermediate issued it, or a root vouches for it."""

    LISTED = "listed"
    ISSUED = "issued"
    VOUCHED = "vouched"


class Shown(Protocol):
    """What was shown, DER: the leaf, and above it the path OpenSSL verified, nearest first, root included."""

    @property
    def leaf(self) -> bytes:
        """Return the leaf."""
        ...

    @property
    def issuers(self) -> Sequence[bytes]:
        """Return the path above it."""
        ...


class Presented(NamedTuple):
    """What was shown, by value."""

    leaf: bytes
    issuers: Sequence[bytes]


@dataclass(frozen=True)
class Dialled:
    """Whom a caller means to reach. `pins`: what its node's key set lists for it; None: it has none."""

    spiffe_id: str
    node: bytes = b""
    pins: tuple[bytes, ...] | None = None


@dataclass(frozen=True)
class PeerFacts:
    """What is known when a peer is judged. Certificates are DER, sets of them in no order.

    `intermediates` None: nobody said who issues. `alone`: no agent is here, or it hears no other member.
    `revoked_leaves`: serial numbers of certificates that count no more, whatever else is known.
    """

    trust_domain: str
    roots: frozenset[bytes]
    intermediates: frozenset[bytes] | None = None
    pins: PinTable = field(default_factory=PinTable)
    credentials: CredentialTable = field(default_factory=CredentialTable)
    alone: bool = False
    revoked_leaves: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Peer:
    """Who is at the other end. `node` (short id) and `generation` None: nobody can tell.

    `was_known`: a credential of its node was known when it was taken. `issuer`: who signed its leaf, DER, if
    it was taken for that; empty where its node lists the key. `serial`: the number of the leaf it showed.
    """

    spiffe_id: str
    ground: Ground
    node: bytes | None = None
    generation: int | None = None
    was_known: bool = False
    issuer: bytes = b""
    serial: int = 0


def identify_untrusted(presented: Shown, facts: PeerFacts, dialled: Dialled | None = None) -> Peer:
    """Tell who showed this certificate.

    Args:
        presented: of a handshake that OpenSSL has finished.
        dialled: whom the caller meant to reach; None where the peer is the caller.

    Raises:
        PeerRefused: nobody we may take it for; its code says by which rule. Remote's fault. State unchanged.
    """
    leaf = read_leaf_untrusted(presented.leaf)
    if leaf.serial in facts.revoked_leaves:
        raise PeerRefused("revoked-leaf", f"this certificate of {leaf.spiffe_id} is revoked: {leaf.serial:x}")
    return replace(_judged(leaf, presented, facts, dialled), serial=leaf.serial)


def _judged(leaf: Leaf, presented: Shown, facts: PeerFacts, dialled: Dialled | None) -> Peer:
    """Judge a leaf that is not revoked by its serial number."""
    if not leaf.spiffe_id.startswith(f"spiffe://{facts.trust_domain}/"):
        raise PeerRefused("trust-domain", f"{leaf.spiffe_id} is not of trust domain {facts.trust_domain}")
    if dialled is not None and leaf.spiffe_id != dialled.spiffe_id:
        raise PeerRefused("other-identity", f"it is {leaf.spiffe_id}, not {dialled.spiffe_id}")
    if leaf.spiffe_id == authority_spiffe_id(facts.trust_domain):
        return _authority(presented, facts, dialled)
    if facts.intermediates is None:
        return _vouched(leaf, presented, facts)
    node = facts.pins.node_of(leaf.pin) if dialled is None else dialled.node
    listed = node is not None if dialled is None else leaf.pin in (dialled.pins or ())
    if listed and node is not None:
        return _listed(leaf, node, facts)
    return _issued(leaf, presented, facts, dialled)


def still_holds(
    peer: Peer,
    credentials: CredentialTable,
    intermediates: frozenset[bytes] | None = None,
    revoked_leaves: frozenset[int] = frozenset(),
    *,
    absent_holds: bool,
) -> bool:
    """Tell whether a peer that was taken may stay: its node is there, in the generation it was taken in.

    Who showed one of `revoked_leaves` may not.
    Who was taken for its issuer stays as long as that is one of `intermediates` (None: nobody said who is).
    `absent_holds`: a node of which nothing is known any more may, since whoever tells us may not have heard
    of it yet; who is revoked or forgotten is known as such.
    """
    if peer.serial in revoked_leaves:
        return False
    if peer.issuer and intermediates is not None and peer.issuer not in intermediates:
        return False
    if peer.node is None or peer.generation is None:
        return True
    known = credentials.known(peer.node)
    if known is None:
        return absent_holds or not peer.was_known
    return known.generation < peer.generation or (known.generation == peer.generation and not known.revoked)


def _authority(presented: Shown, facts: PeerFacts, dialled: Dialled | None) -> Peer:
    identity = authority_spiffe_id(facts.trust_domain)
    if dialled is None:
        raise PeerRefused(
            "authority", "the authority's certificate, shown by a caller: the authority calls nobody"
        )
    issuers = presented.issuers
    if facts.intermediates is None:
        direct = len(issuers) == 2 and issuers[-1] in facts.roots  # a token names the root alone
    else:
        direct = bool(issuers) and issuers[0] in facts.intermediates
    if not direct:
        raise PeerRefused("authority", "a certificate of the authority that no intermediate in Trust signed")
    return Peer(identity, Ground.ISSUED)


def _vouched(leaf: Leaf, presented: Shown, facts: PeerFacts) -> Peer:
    issuers = presented.issuers
    if not issuers or issuers[-1] not in facts.roots:
        raise PeerRefused(
            "carried", f"no root in Trust vouches for {leaf.spiffe_id}, and no key set was told"
        )
    serial = decode_leaf_serial_untrusted(leaf.serial)
    node, generation = (None, None) if serial is None else (serial.node, serial.generation)
    return Peer(leaf.spiffe_id, Ground.VOUCHED, node, generation, issuer=issuers[0])


def _listed(leaf: Leaf, node: bytes, facts: PeerFacts) -> Peer:
    known = facts.credentials.known(node)
    if known is None:
        raise PeerRefused(
            "no-credential", f"the node that lists this key of {leaf.spiffe_id} has no credential"
        )
    if known.revoked:
        raise PeerRefused("revoked", f"the node that lists this key of {leaf.spiffe_id} is revoked")
    return Peer(leaf.spiffe_id, Ground.LISTED, node, known.generation, was_known=True)


def _issued(leaf: Leaf, presented: Shown, facts: PeerFacts, dialled: Dialled | None) -> Peer:
    """Judge a leaf whose key no key set lists."""
    issuers = presented.issuers
    if not issuers or issuers[0] not in (facts.intermediates or ()):
        raise PeerRefused(
            "carried",
            f"no key set lists this key of {leaf.spiffe_id}, and no intermediate in Trust signed it",
        )
    serial = decode_leaf_serial_untrusted(leaf.serial)
    node = _node_of(leaf, serial, facts, dialled)
    known = None if node is None else facts.credentials.known(node)
    if facts.alone and serial is not None and _is_newer(serial, known):
        return Peer(leaf.spiffe_id, Ground.ISSUED, node, serial.generation, known is not None, issuers[0])
    if node is None:
        if not facts.credentials.any_without_key_sets:
            raise PeerRefused(
                "unlisted", f"no key set lists this key of {leaf.spiffe_id}, and every member signs key sets"
            )
        return Peer(leaf.spiffe_id, Ground.ISSUED, issuer=issuers[0])
    return replace(_without_key_sets(leaf, serial, node, known, facts), issuer=issuers[0])


def _without_key_sets(
    leaf: Leaf, serial: LeafSerial | None, node: bytes, known: Known | None, facts: PeerFacts
) -> Peer:
    if known is None:
        raise PeerRefused("no-credential", f"no credential is known of the node that shows {leaf.spiffe_id}")
    if known.revoked:
        raise PeerRefused("revoked", f"the node that shows {leaf.spiffe_id} is revoked")
    if known.has_key_sets:
        why = (
            "and it is no newer than its node's credential"
            if facts.alone
            else "though its node signs key sets"
        )
        code = "not-newer" if facts.alone else "unlisted"
        raise PeerRefused(code, f"no key set lists this key of {leaf.spiffe_id}, {why}")
    if serial is not None and serial.generation < known.generation:
        raise PeerRefused("superseded", f"{leaf.spiffe_id} was issued before its node was enrolled again")
    generation = known.generation if serial is None else max(known.generation, serial.generation)
    return Peer(leaf.spiffe_id, Ground.ISSUED, node, generation, was_known=True)


def _node_of(
    leaf: Leaf, serial: LeafSerial | None, facts: PeerFacts, dialled: Dialled | None
) -> bytes | None:
    """Return the short id of the node a leaf is of, by all that says so; None when nothing does.

    Raises:
        PeerRefused: its name, its serial number and whom was dialled are not of one node. State unchanged.
    """
    said = [] if serial is None else [serial.node]
    if dialled is not None and dialled.node:
        said.append(dialled.node)
    path = leaf.spiffe_id.removeprefix(f"spiffe://{facts.trust_domain}/").split("/")
    if path[0] == "node":
        said.append(node_id_of(node_spiffe_id(facts.trust_domain, path[1]))[:SHORT_ID_BYTES])
    if len(set(said)) > 1:
        raise PeerRefused("other-node", f"a certificate of {leaf.spiffe_id} that was issued to another node")
    return said[0] if said else None


def _is_newer(serial: LeafSerial, known: Known | None) -> bool:
    return known is None or (serial.generation, serial.serial) > (known.generation, known.serial)
