"""Documents the control plane signs, as values: Trust and the Manifest of a policy set.

Their payloads are JSON (readable in an archive ten years on); policy documents themselves are in
`gossipmesh.model.policy`. Unknown fields are errors here: ignoring a `when:` would open a door.
"""

from enum import StrEnum

import msgspec


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


class TrustDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="Trust"):
    """Who may say what, from version 1 on; the next one is signed by thresholds of both.

    `root_certificates` and `intermediates` are PEM; `root_keys` are Ed25519 keys in hex;
    `policy_threshold` is per scope (absent: 1); `floors` raise a scope's accepted version.
    """

    version: int
    trust_domain: str
    root_certificates: tuple[str, ...]
    intermediates: tuple[str, ...]
    root_keys: tuple[str, ...]
    root_threshold: int
    signers: tuple[Signer, ...]
    policy_threshold: dict[str, int] = {}
    floors: dict[str, int] = {}


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
