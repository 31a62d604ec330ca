"""What a node and its authority say to each other, and the join token between them, as values.

JSON on both sides: tokens are read by people, messages go over one TLS connection per request. Bytes
are base64. Unknown fields are ignored in answers (they may grow) and refused in requests and tokens.
"""

from typing import Final

import msgspec

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.host_port import is_host_port
from gossipmesh.model.identity import is_label, is_trust_domain, pattern_allows
from gossipmesh.model.instant import DAY_S, HOUR_S, MINUTE_S

TOKEN_KIND: Final = "JoinToken"  # noqa: S105 - the name of a file format
TOKEN_FORMATS: Final = (1, 2)
AUTHORITIES_MAX: Final = 16
TOKEN_BYTES_MAX: Final = 65_536
REQUEST_BYTES_MAX: Final = 262_144
ANSWER_BYTES_MAX: Final = 8_388_608  # all of Trust is in it
SERVICES_PER_REQUEST_MAX: Final = 128  # with the patterns, a credential stays below RECORD_BYTES_MAX
PATTERNS_PER_NODE_MAX: Final = 64

LEAF_LIFE_S: Final = DAY_S  # 24 h, renewed at half life
LEAF_BACKDATE_S: Final = 65 * MINUTE_S  # an hour of skew and five minutes evicts nobody
CREDENTIAL_LIFE_S: Final = 45 * DAY_S  # how long a node may outlive its authority
CREDENTIAL_REFRESH_S: Final = 10 * DAY_S  # 34 days are left whenever an authority dies
LATE_RENEWAL_S: Final = 30 * DAY_S  # a machine that slept through its credential's end returns by itself
SERIAL_BY_CLOCK_MIN: Final = 1_000_000_000  # wall seconds of long ago: authorities of 0.2 count from 1
SERIAL_AHEAD_S: Final = DAY_S  # of a serial that a node asks for: its clock may be wrong, not without bound
TOKEN_TTL_S: Final = 10 * MINUTE_S
TOKEN_TTL_MAX_S: Final = 7 * 24 * HOUR_S

PROOF_ENROL: Final = b"gossipmesh enrolment proof v1\0"
PROOF_RENEW: Final = b"gossipmesh renewal proof v1\0"
PROOF_OPEN: Final = b"gossipmesh opening proof v1\0"


class JoinToken(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    tag=TOKEN_KIND,
):
    """The content of a token file (0600): who may join, as what, at which authority, until when.

    `secret` is 32 random bytes in hex, the authority keeps only its hash; `root_certificate` is PEM and
    pins the authority's TLS; `expires` is wall seconds. `authority` is HOST:PORT, `more_authorities` are
    where else it may be. `trust_version` and `trust_sha256` (of the payload, hex) pin a version of Trust
    that the answer must go through. Format 1, which 0.2 reads, has an address and neither of these.
    """

    version: int
    trust_domain: str
    authority: str
    authority_instance: str
    root_certificate: str
    root_sha256: str
    token_id: str
    node: str
    services: tuple[str, ...]
    secret: str
    expires: int
    more_authorities: tuple[str, ...] = ()
    trust_version: int = 0
    trust_sha256: str = ""

    def every_authority(self) -> tuple[str, ...]:
        """Return where the authority may be, in the order to try."""
        return (self.authority, *self.more_authorities)

    def __repr__(self) -> str:
        return f"JoinToken(token_id={self.token_id!r}, node={self.node!r})"


class EnrolRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/enrol. `requests` are PKCS #10 in PEM: the node's first, then one per concrete service.

    `proof` is the signing key's signature over `PROOF_ENROL` and everything above it (`proof_bytes`).
    """

    authority_instance: str
    token_id: str
    secret: str
    signing_key: bytes
    exchange_key: bytes
    requests: tuple[str, ...]
    proof: bytes = b""

    def __repr__(self) -> str:
        return f"EnrolRequest(token_id={self.token_id!r})"

    def proof_bytes(self) -> bytes:
        """Return what `proof` signs."""
        return PROOF_ENROL + msgspec.json.encode(msgspec.structs.replace(self, proof=b""))


class RenewRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/renew. As above; `issued` is the node's wall clock, `proof` by the enrolled signing key.

    `serial` is the least serial the node wants, above every one it knows of itself: an authority restored
    from a backup knows fewer. Nodes of 0.2 send none, and their authority takes none.
    """

    spiffe_id: str
    requests: tuple[str, ...]
    issued: int
    proof: bytes = b""
    serial: int | msgspec.UnsetType = msgspec.UNSET

    def proof_bytes(self) -> bytes:
        """Return what `proof` signs."""
        return PROOF_RENEW + msgspec.json.encode(msgspec.structs.replace(self, proof=b""))


class OpenReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/open: this node answers calls, opened by `how`. As above; answered by an empty object."""

    spiffe_id: str
    how: str
    issued: int
    proof: bytes = b""

    def proof_bytes(self) -> bytes:
        """Return what `proof` signs."""
        return PROOF_OPEN + msgspec.json.encode(msgspec.structs.replace(self, proof=b""))


class OpenNoted(msgspec.Struct, frozen=True):
    """The answer to that."""


class IssuedSvid(msgspec.Struct, frozen=True):
    """A chain, leaf first, as PEM."""

    spiffe_id: str
    chain: str


class Issued(msgspec.Struct, frozen=True):
    """The answer to both: chains in the order asked, the credential, and all of Trust.

    `credential` is a `SignedRecord` in its wire form; `trust` are envelopes, oldest first. `enrolled_count`
    nodes are enrolled now, this one among them; `founder`: none of them has said that it is open. None: an
    authority of a build that knows no opening. `left_out` are SPIFFE IDs that a renewal asked for, too, and
    that the node may not have any more.
    """

    svids: tuple[IssuedSvid, ...]
    credential: bytes
    trust: tuple[bytes, ...]
    enrolled_count: int | None = None
    founder: bool | None = None
    left_out: tuple[str, ...] = ()


class Refusal(msgspec.Struct, frozen=True):
    """Any other answer: a sentence, and a stable code."""

    error: str
    code: str = ""


def is_service_pattern(text: str) -> bool:
    """Tell whether `text` is `shop/cart`, `shop/*` or `*/*`."""
    namespace, slash, name = text.partition("/")
    return (
        slash == "/"
        and (name == "*" or is_label(name))
        and (is_label(namespace) or (namespace == "*" and name == "*"))
    )


def is_concrete(pattern: str) -> bool:
    """Tell whether a pattern names exactly one service."""
    return "*" not in pattern


def allows(patterns: tuple[str, ...], service: str) -> bool:
    """Tell whether any of `patterns` covers `service`."""
    return any(pattern_allows(pattern, service) for pattern in patterns)


def decode_token_untrusted(data: bytes) -> JoinToken:
    """Read a token file.

    Raises:
        MalformedInput: not a token this build reads. State unchanged.
    """
    if len(data) > TOKEN_BYTES_MAX:
        raise MalformedInput(f"{len(data)} bytes, {TOKEN_BYTES_MAX} allowed")
    try:
        token = msgspec.json.decode(data, type=JoinToken)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedInput(f"not a join token: {error}"[:200]) from None
    if token.version not in TOKEN_FORMATS:
        raise MalformedInput(f"a join token of format {token.version}, this build reads formats 1 and 2")
    if not is_trust_domain(token.trust_domain) or not is_label(token.node):
        raise MalformedInput("a join token whose trust domain or node cannot be")
    if len(token.services) > PATTERNS_PER_NODE_MAX or not all(is_service_pattern(s) for s in token.services):
        raise MalformedInput("a join token whose services are not of the form shop/cart or shop/*")
    if len(token.more_authorities) >= AUTHORITIES_MAX:
        raise MalformedInput(f"a join token with more than {AUTHORITIES_MAX} authorities")
    for place in token.every_authority():
        if not is_host_port(place):
            raise MalformedInput(f"{place[:100]!r} where the authority's HOST:PORT was due")
    return token
