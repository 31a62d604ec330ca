"""Sealed links between this node and one run of a peer.

Rules:
1. A link belongs to the pair of runs; a peer that starts anew gets a new link, counters from one.
2. A link is derived from what both sides hold anyway (credentials and run ids); nothing is negotiated.
Paper: none. A signed NodeState carries its node's run, so members who know one another by gossip need no
handshake at all; docs/GOSSIP.md, "Packets".
"""

from gossipmesh.gossip.base.context import Context
from gossipmesh.model import limits
from gossipmesh.model.errors import Untrusted
from gossipmesh.trust.keys import ExchangeKey
from gossipmesh.trust.seal import Ciphers, ReplayWindow, Sealer, derive_sealer, shared_secret_untrusted
from gossipmesh.wire.datagram import Seen, encode_body, encode_data_header, encode_message


class Link:
    """Both directions of one pair of runs."""

    __slots__ = ("_opener", "_sealer", "_sent", "_window", "run")

    def __init__(self, sealer: Sealer, opener: Sealer, run: int) -> None:
        self._sealer = sealer
        self._opener = opener
        self._window = ReplayWindow()
        self._sent = 0
        self.run = run

    @property
    def sent_count(self) -> int:
        """Return the counter of the last packet sent."""
        return self._sent

    def packet(
        self,
        group_tag: int,
        own_short: int,
        own_run: int,
        messages: list[bytes],
        *,
        beat: int = 0,
        lag_ms: int = 0,
    ) -> bytes:
        """Return a sealed packet of these messages, `seen` put in front."""
        self._sent += 1
        header = encode_data_header(group_tag, own_short, own_run, self._sent)
        body = encode_body([encode_message(Seen(self._window.highest, beat, lag_ms)), *messages])
        return header + self._sealer.seal(self._sent, header, body)

    def fresh(self, counter: int) -> bool:
        """Tell whether a packet with this counter may be new."""
        return self._window.fresh(counter)

    def open_untrusted(self, counter: int, header: bytes, sealed: bytes) -> bytes:
        """Open a packet and take its counter.

        Raises:
            Untrusted: not sealed by this peer for this run of ours. Remote's fault. State unchanged.
        """
        body = self._opener.open_untrusted(counter, header, sealed)
        self._window.take(counter)
        return body


class LinkMaker:
    """Derives links; remembers nothing but our own half."""

    def __init__(self, ctx: Context, own_id: bytes) -> None:
        self._ctx = ctx
        self._own_id = own_id
        self._ciphers = Ciphers(limits.LINK_CIPHERS_MAX)

    def derive_untrusted(self, peer_id: bytes, peer_key: bytes, peer_run: int) -> Link:
        """Return the link with one run of a peer. Cost: 60 us.

        Raises:
            Untrusted: the peer's exchange key is unusable. Remote's fault. State unchanged.
        """
        own = self._own_id + self._ctx.run_id.to_bytes(8, "big")
        peer = peer_id + peer_run.to_bytes(8, "big")
        sealer, opener = derive_pair_untrusted(
            self._ctx.keys.exchange, peer_key, self._ctx.group_tag, b"datagram", own, peer, self._ciphers
        )
        self._ctx.statistics.links += 1
        return Link(sealer, opener, peer_run)


def derive_pair_untrusted(
    own_key: ExchangeKey,
    peer_key: bytes,
    group_tag: int,
    purpose: bytes,
    own: bytes,
    peer: bytes,
    ciphers: Ciphers | None = None,
) -> tuple[Sealer, Sealer]:
    """Return (sealer, opener) between `own` and `peer`, each an id with everything fresh about it.

    Raises:
        Untrusted: the peer's exchange key is unusable. Remote's fault. State unchanged.
    """
    secret = shared_secret_untrusted(own_key, peer_key)
    salt = group_tag.to_bytes(4, "big")
    label = b"gossipmesh " + purpose + b" v1\0"
    if len(own) != len(peer):
        raise Untrusted("two ends of unlike form")
    return (
        derive_sealer(secret, salt, label + own + peer, ciphers),
        derive_sealer(secret, salt, label + peer + own, ciphers),
    )
