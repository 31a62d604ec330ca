"""Who may call a local workload.

The caller's identity comes from its certificate and nowhere else. Rules, in order:

1. An identity that is none, or of another trust domain, is refused.
2. A path that can be read in two ways is refused (`gossipmesh.traffic.paths`).
3. The first rule that matches decides; denies stand first. None: the section's `default_allow`.
4. TCP has no method and no path: a deny that names them denies, an allow that names them does not allow.

The rule named in a verdict is for the log; a caller is told 403 and no more.
"""

from functools import lru_cache
from typing import Final

import msgspec

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import parse_spiffe_id, service_of_spiffe_id
from gossipmesh.model.limits import IDENTITIES_REMEMBERED_MAX
from gossipmesh.model.snapshot import AccessRule, AccessTarget, InboundSection
from gossipmesh.traffic.paths import matched_path_untrusted, path_matches

RULE_DEFAULT: Final = "default"
RULE_IDENTITY: Final = "identity"
RULE_PATH: Final = "path"


class Verdict(msgspec.Struct, frozen=True):
    """`rule` is `namespace/policy#rule`, or `default`, `identity`, `path` when no rule was asked."""

    allow: bool
    rule: str


def decide(inbound: InboundSection, identity: str | None, method: str | None, path: str | None) -> Verdict:
    """Tell whether `identity` may do this to the workload.

    Args:
        identity: the SPIFFE ID of the caller's certificate, None for no certificate.
        method: as received; None for TCP.
        path: the target as received; None for TCP.
    """
    namespace = None if identity is None else _namespace_of(inbound.spiffe_id, identity)
    if namespace is None or identity is None:
        return Verdict(False, RULE_IDENTITY)
    matched: str | None = None
    if path is not None:
        try:
            matched = matched_path_untrusted(path)
        except MalformedInput:
            return Verdict(False, RULE_PATH)
    for rule in inbound.rules:
        if _source_matches(rule, identity, namespace) and _target_matches(rule, method, matched):
            return Verdict(rule.allow, rule.name)
    return Verdict(inbound.default_allow, RULE_DEFAULT)


# A pure function of two names, remembered because one caller sends many requests.
@lru_cache(maxsize=IDENTITIES_REMEMBERED_MAX)
def _namespace_of(own_spiffe_id: str, identity: str) -> str | None:
    """Return the caller's namespace, "" for a node; None when it may not speak at all."""
    try:
        if parse_spiffe_id(identity)[0] != parse_spiffe_id(own_spiffe_id)[0]:
            return None
        return (service_of_spiffe_id(identity) or "").partition("/")[0]
    except MalformedInput:
        return None


def _source_matches(rule: AccessRule, identity: str, namespace: str) -> bool:
    if not rule.sources:
        return True
    return any(
        (not source.identities and not source.namespaces)
        or identity in source.identities
        or (namespace != "" and namespace in source.namespaces)
        for source in rule.sources
    )


def _target_matches(rule: AccessRule, method: str | None, path: str | None) -> bool:
    if not rule.targets:
        return True
    if method is None or path is None:
        return not rule.allow or any(not target.methods and not target.paths for target in rule.targets)
    return any(_one_target_matches(target, method, path) for target in rule.targets)


def _one_target_matches(target: AccessTarget, method: str, path: str) -> bool:
    if target.methods and method not in target.methods:
        return False
    return not target.paths or any(path_matches(match, path) for match in target.paths)
