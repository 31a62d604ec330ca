"""Documents the control plane signs, as values: Trust and the Manifest of a policy set.

Their payloads are JSON (readable in an archive ten years on); policy documents themselves are in
`gossipmesh.model.policy`. Unknown fields are errors here: ignoring a `when:` would open a door.
"""

from enum import StrEnum

import msgspec

from gossipmesh.model import limits


def generation_of(version: int) -> int:
    """Return the generation a policy set's version, or a floor in Trust, belongs to."""
    return version >> limits.GENERATION_SHIFT


def first_version_of(generation: int) -> int:
    """Return the least version of a generation: the floor in Trust that names it."""
    return generation << limits.GENERATION_SHIFT


class SignerRole(StrEnum):
    """What a key in Trust may sign."""

    CREDENTIAL = "credential"
    POLICY = "policy"


class Signer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key and what it may sign; `public_key` is 32 raw bytes in hex, `scopes` are exact names."""

    name: str
    role: SignerRole
    public_key: str
    scopes: tuple[str, ...] = ()


class Access(StrEnum):
    """Whether what no policy speaks of is allowed, where a scope has no set yet."""

    ALLOW = "allow"
    DENY = "deny"


def _no_numbers() -> dict[str, int]:
    """Return an empty mapping that is written even so, as builds before 0.3 did."""
    return {}


class TrustDocument(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    tag="Trust",
):
    """Who may say what, from version 1 on; the next one is signed by thresholds of both.

    `root_certificates` and `intermediates` are PEM; `root_keys` are Ed25519 keys in hex;
    `policy_threshold` is per scope (absent: 1); `floors` raise a scope's accepted version, and name its
    generation: the floor's upper bits (see `generation_of`).

    Fields of the feature `trust-2` follow; builds before it refuse a document that has one, so each is left
    out while it says nothing. `revoked` maps a node's name to the generation that is revoked with all below
    it; `revoked_leaves` maps the serial number of one certificate (lower-case hex without leading zeros) to
    the wall seconds at which it has surely ended; `roll` is the SHA-256 in hex of the list of credentials
    signed anew, "" for none; `authorities` are where the authority answers (HOST:PORT, a name or an address),
    in the order to try.
    """

    version: int
    trust_domain: str
    root_certificates: tuple[str, ...]
    intermediates: tuple[str, ...]
    root_keys: tuple[str, ...]
    root_threshold: int
    signers: tuple[Signer, ...]
    policy_threshold: dict[str, int] = msgspec.field(default_factory=_no_numbers)
    floors: dict[str, int] = msgspec.field(default_factory=_no_numbers)
    access: Access = Access.ALLOW
    revoked: dict[str, int] = {}
    revoked_leaves: dict[str, int] = {}
    roll: str = ""
    authorities: tuple[str, ...] = ()


def says_more_than_0_2(trust: TrustDocument) -> bool:
    """Tell whether a build without the feature `trust-2` would refuse this document."""
    revokes = bool(trust.revoked or trust.revoked_leaves)
    return bool(trust.access is not Access.ALLOW or revokes or trust.roll or trust.authorities)


def revoked_serials(trust: TrustDocument) -> frozenset[int]:
    """Return the serial numbers of the certificates that count no more."""
    return frozenset(int(serial, 16) for serial in trust.revoked_leaves)


class ManifestEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One document of a set: `name` is `Kind/namespace/name`, `sha256` hex of the exact body.

    `since` is the manifest version that introduced the name; it settles conflicts of equal rank.
    """

    name: str
    sha256: str
    size: int
    since: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="Manifest"):
    """A scope's whole policy at one version; entries sorted by name, no name twice.

    `base` and `base_hash` name the manifest it was made on (0 and "" for the first). `created` and
    `refresh_by` are wall seconds and only inform.
    """

    trust_domain: str
    scope: str
    version: int
    base: int
    base_hash: str
    entries: tuple[ManifestEntry, ...]
    requires: tuple[str, ...]
    created: int
    refresh_by: int
