"""Who is at the other end of a mesh connection, and whether it still is: the engine's facts for the judge.

Ends at facts put together and verdicts counted; the judging is `trust.peer_identity`'s. Rules:

1. Facts are those of the snapshot, the identities and the agent's presence at the moment of the handshake; an
   engine is alone when no agent that hears others has been here for a minute.
2. Whoever was taken is judged again, by its node, its generation and its issuer, when credentials or Trust's
   intermediates change: what is open to a node that is revoked, forgotten or enrolled again, or by a
   certificate of an intermediate that was dropped, ends then, both ways; to a node of which nothing is known
   any more, within a minute.
3. Each refusal is counted by its code; a few a second are told in full, so that a flood fills no disk.
"""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import SHORT_ID_BYTES, node_id_of, node_spiffe_id
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.snapshot import (
    CredentialsSection,
    PinsSection,
    Section,
    SnapshotEndpoint,
    TrustSection,
)
from gossipmesh.net.tls import TlsPeerRefused
from gossipmesh.trust.peer_identity import Dialled, Peer, PeerFacts, still_holds
from gossipmesh.trust.peer_tables import CredentialTable, PinTable
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted

# An agent that is started again is back before: until then nobody is taken on an intermediate's word alone.
ALONE_AFTER_NS: Final = 60 * SECOND_NS
ABSENT_AFTER_NS: Final = 60 * SECOND_NS


@dataclasses.dataclass(frozen=True)
class KnownPeers:
    """What one snapshot says of members. `intermediates` None: it says nothing, as those of 0.2."""

    trust_domain: str
    intermediates: frozenset[bytes] | None
    hears: bool
    pins: PinTable
    credentials: CredentialTable
    revoked_leaves: frozenset[int] = frozenset()

    @classmethod
    def of_sections(
        cls, trust_domain: str, sections: Mapping[str, Section], previous: "KnownPeers | None"
    ) -> "KnownPeers":
        """Take a snapshot's sections; tables that did not change are `previous`' own.

        Raises:
            MalformedInput: an intermediate that is no certificate, a serial number that is none, or members'
                keys without who may issue: read as a snapshot of 0.2, it would open what they close. Remote's
                fault. State unchanged.

        Cost: O(sections), and over credentials that changed.
        """
        trust: TrustSection | None = None
        pins: dict[int, bytes] = {}
        credentials: dict[int, bytes] = {}
        for name, section in sections.items():
            if isinstance(section, PinsSection):
                pins[int(name[-2:], 16)] = section.entries
            elif isinstance(section, CredentialsSection):
                credentials[int(name[-2:], 16)] = section.entries
            elif isinstance(section, TrustSection):
                trust = section
        if trust is None and (pins or credentials):
            raise MalformedInput("a snapshot with members' keys and without Trust")
        same = previous is not None and previous.credentials.shards == credentials
        return cls(
            trust_domain,
            None if trust is None else _intermediates(trust),
            trust is not None and trust.hears,
            PinTable(pins),
            previous.credentials if same and previous is not None else CredentialTable(credentials),
            frozenset() if trust is None else _serials(trust),
        )


def _intermediates(trust: TrustSection) -> frozenset[bytes]:
    return frozenset(
        one for pem in trust.intermediates for one in certificates_in_pem_untrusted(pem.encode())
    )


def _serials(trust: TrustSection) -> frozenset[int]:
    try:
        return frozenset(int(one, 16) for one in trust.revoked_leaves)
    except ValueError as error:
        raise MalformedInput(f"a serial number that is none: {error}"[:200]) from None


class Peers:
    """The facts in force, and what became of those who were judged by them."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._known: KnownPeers | None = None
        self._roots: frozenset[bytes] = frozenset()
        self._attached = False
        self._left_at: Instant | None = None  # since when there is no company, as far as was noticed
        self._facts: PeerFacts | None = None
        self.turn = 0  # how often what is known of nodes has changed
        self._absent_hold = True
        self._absent_looked_at: Instant | None = None  # first look since somebody may be
        self._absent_due = False
        self._told_since = Instant(0)
        self._told_count = 0

    def learn(self, known: KnownPeers) -> bool:
        """Judge by a new snapshot from now on; return whether those who were taken have to be looked at."""
        before, self._known, self._facts = self._known, known, None
        if before is None:
            return False
        credentials_changed = before.credentials is not known.credentials
        if credentials_changed:
            self._absent_hold = self._absent_due = True
        before_trust = (before.intermediates, before.revoked_leaves)
        changed = credentials_changed or before_trust != (known.intermediates, known.revoked_leaves)
        self.turn += changed
        return changed

    def absence_counts(self, instant: Instant) -> bool:
        """Tell whether nodes that are known no more are gone from now on; asked once a second.

        An agent that lost its disk knows nobody for a while: that must end no connection.
        """
        if not self._absent_due:
            return False
        if self._absent_looked_at is None:
            self._absent_looked_at = instant
        if instant - self._absent_looked_at < ABSENT_AFTER_NS:
            return False
        self._absent_looked_at, self._absent_due, self._absent_hold = None, False, False
        self.turn += 1
        return True

    def trust_roots(self, roots: frozenset[bytes]) -> None:
        """Take these roots (DER) from now on."""
        self._roots, self._facts = roots, None

    def attend(self, attached: bool) -> None:
        """Take note of whether an agent is here."""
        self._attached, self._facts = attached, None

    def alone(self, instant: Instant) -> bool:
        """Tell whether no agent that hears others has been here for a while; ask this once a second."""
        if self._attached and self._known is not None and self._known.hears:
            self._left_at = None
        elif self._left_at is None:
            self._left_at = instant
        return self._left_at is not None and instant - self._left_at >= ALONE_AFTER_NS

    def facts(self, instant: Instant) -> PeerFacts | None:
        """Return what a peer is judged by now; None before there is a snapshot."""
        known, alone = self._known, self.alone(instant)
        if known is not None and (self._facts is None or self._facts.alone != alone):
            self._facts = PeerFacts(
                known.trust_domain,
                self._roots,
                known.intermediates,
                known.pins,
                known.credentials,
                alone,
                known.revoked_leaves,
            )
        return self._facts

    def dialled(self, endpoint: SnapshotEndpoint) -> Dialled:
        """Return whom a connection to `endpoint` is for."""
        domain = "" if self._known is None else self._known.trust_domain
        return Dialled(endpoint.spiffe_id, _short_id(domain, endpoint.node), endpoint.pins)

    def gone(self, peer: Peer | None) -> bool:
        """Tell whether a connection has to end, because its peer's node is what it was no more."""
        if peer is None or self._known is None:
            return False
        known = self._known
        facts = (known.credentials, known.intermediates, known.revoked_leaves)
        return not still_holds(peer, *facts, absent_holds=self._absent_hold)

    def cut(self, count: int = 1) -> None:
        """Count connections that ended for it."""
        self._counters.add("peers_cut", count)

    def refused(self, error: TlsPeerRefused, instant: Instant) -> bool:
        """Count a refusal; tell whether it is one of the few that are written down in full."""
        self._counters.add(f"peers_refused_{error.code.replace('-', '_')}")
        if instant - self._told_since >= SECOND_NS:
            self._told_since, self._told_count = instant, 0
        self._told_count += 1
        return self._told_count <= limits.PEER_REFUSALS_TOLD_PER_S_MAX


@lru_cache(maxsize=limits.IDENTITIES_REMEMBERED_MAX)
def _short_id(trust_domain: str, node: str) -> bytes:
    return node_id_of(node_spiffe_id(trust_domain, node))[:SHORT_ID_BYTES]
