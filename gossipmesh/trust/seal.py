"""Sealing of packets and frames between two members, replay windows, and cookies for strangers.

Ends at authenticity: who may speak at all is the catalog's to say.
Rules:
1. One key per ordered pair and pair of runs; a run id is fresh random at each start.
2. Nonces are counters; AES-256-GCM-SIV (RFC 8452) keeps a cloned disk that repeats one from
   leaking more than the equality of two packets.
3. Opening raises `Untrusted` and nothing else.
Spec: RFC 7748 (X25519), RFC 5869 (HKDF), RFC 8452.
Deviation: docs/GOSSIP.md names epochs in the key; run ids subsume them, since each start draws one.
"""

import hashlib
import hmac
from collections import deque
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from gossipmesh.model import limits
from gossipmesh.model.errors import Untrusted
from gossipmesh.trust.keys import ExchangeKey

_NONCE_BYTES: Final = 12
_PAD_BITS: Final = 32  # a nonce is the counter and four zero bytes
_WINDOW_MASK: Final = (1 << limits.REPLAY_WINDOW_PACKETS) - 1
COOKIE_BYTES: Final = 20


class Ciphers:
    """Lets so many sealers keep a context; each takes 3 KB that 20,000 idle keys would take 60 MB of.

    Who got one first loses it first, also when it was used just now: making one again costs as much as
    sealing a packet, keeping an order of use a tenth of that for every packet.
    """

    __slots__ = ("_count_max", "_holders")

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._holders: deque[Sealer] = deque()

    def __repr__(self) -> str:
        return "Ciphers()"

    def __len__(self) -> int:
        return len(self._holders)

    def admit(self, sealer: "Sealer") -> None:
        """Let a sealer keep its context, and the one that has one longest drop its own."""
        self._holders.append(sealer)
        if len(self._holders) > self._count_max:
            self._holders.popleft().rest()


class Sealer:
    """One direction of one pair: seals or opens under one key, by counter."""

    __slots__ = ("_cipher", "_ciphers", "_key")

    def __init__(self, key: bytes, ciphers: Ciphers) -> None:
        self._key = key
        self._ciphers = ciphers
        self._cipher: AESGCMSIV | None = None

    def __repr__(self) -> str:
        return "Sealer()"

    def rest(self) -> None:
        """Drop the context until it is needed again."""
        self._cipher = None

    def _wake(self) -> AESGCMSIV:
        cipher = self._cipher = AESGCMSIV(self._key)
        self._ciphers.admit(self)
        return cipher

    def seal(self, counter: int, header: bytes, body: bytes) -> bytes:
        """Return `body` sealed, 16 bytes longer, with `header` authenticated beside it."""
        cipher = self._cipher or self._wake()
        return cipher.encrypt((counter << _PAD_BITS).to_bytes(_NONCE_BYTES, "big"), body, header)

    def open_untrusted(self, counter: int, header: bytes, sealed: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            Untrusted: not sealed under this key with this counter and header. Remote's fault.
                State unchanged.
        """
        cipher = self._cipher or self._wake()
        try:
            return cipher.decrypt((counter << _PAD_BITS).to_bytes(_NONCE_BYTES, "big"), sealed, header)
        except (InvalidTag, ValueError):
            raise Untrusted("a packet that does not open") from None


def shared_secret_untrusted(own: ExchangeKey, peer_public: bytes) -> bytes:
    """Return the X25519 secret of two members, 32 bytes. Cost: 40 us.

    Raises:
        Untrusted: the peer's key is no usable point. Remote's fault. State unchanged.
    """
    try:
        return own.exchange(peer_public)
    except ValueError:
        raise Untrusted("an exchange key of low order") from None


def derive_sealer(secret: bytes, salt: bytes, info: bytes, ciphers: Ciphers | None = None) -> Sealer:
    """Derive one direction's key by HKDF-SHA256; `info` names purpose, ids, runs and direction."""
    extracted = hmac.digest(salt, secret, "sha256")
    return Sealer(
        hmac.digest(extracted, info + b"\x01", "sha256"), Ciphers(1) if ciphers is None else ciphers
    )


class ReplayWindow:
    """Which of the last 256 counters of one sender's run were taken. Spec: RFC 4303, 3.4.3."""

    __slots__ = ("_bits", "highest")

    def __init__(self) -> None:
        self.highest = 0
        self._bits = 0

    @property
    def taken(self) -> int:
        """Return which counters were taken: bit n for the one n below the highest."""
        return self._bits

    def restore(self, highest: int, taken: int) -> None:
        """Go on where another window stood."""
        self.highest, self._bits = highest, taken & _WINDOW_MASK

    def fresh(self, counter: int) -> bool:
        """Tell whether `counter` may still be taken; changes nothing, so ask before opening."""
        if counter > self.highest:
            return True
        age = self.highest - counter
        return counter > 0 and age < limits.REPLAY_WINDOW_PACKETS and not self._bits >> age & 1

    def take(self, counter: int) -> None:
        """Mark an authenticated packet's counter as seen."""
        shift = counter - self.highest
        if shift > 0:
            if shift > limits.REPLAY_WINDOW_PACKETS:
                shift = limits.REPLAY_WINDOW_PACKETS
            self._bits = (self._bits << shift | 1) & _WINDOW_MASK
            self.highest = counter
        else:
            self._bits |= 1 << -shift


class CookieJar:
    """Makes and checks stateless cookies: an HMAC of address, run and time, good for ten seconds.

    Spec: RFC 9147 section 5.1 (the cookie of DTLS), whose idea this is.
    """

    __slots__ = ("_age_max_s", "_secret")

    def __init__(self, secret: bytes, age_max_s: int) -> None:
        self._secret = secret
        self._age_max_s = age_max_s

    def __repr__(self) -> str:
        return "CookieJar()"

    def bake(self, address: str, run: int, now_s: int) -> bytes:
        """Return a cookie for whoever receives packets at `address` in that run."""
        stamp = (now_s & 0xFFFFFFFF).to_bytes(4, "big")
        return stamp + self._tag(stamp, address, run)

    def accepts(self, cookie: bytes, address: str, run: int, now_s: int) -> bool:
        """Tell whether we made this cookie for that address and run within its age."""
        if len(cookie) != COOKIE_BYTES:
            return False
        age_s = (now_s - int.from_bytes(cookie[:4], "big")) & 0xFFFFFFFF
        if age_s > self._age_max_s:
            return False
        return hmac.compare_digest(cookie[4:], self._tag(cookie[:4], address, run))

    def _tag(self, stamp: bytes, address: str, run: int) -> bytes:
        message = stamp + run.to_bytes(8, "big") + address.encode()
        return hmac.digest(self._secret, message, "sha256")[: COOKIE_BYTES - 4]


def group_tag_of(trust_domain: str) -> int:
    """Return the u32 that keeps packets of different trust domains apart; no secret."""
    return int.from_bytes(hashlib.sha256(b"gossipmesh group\0" + trust_domain.encode()).digest()[:4], "big")
