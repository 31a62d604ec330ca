"""Who may call a local workload.

The caller's identity comes from its certificate and nowhere else. Rules, in order:

1. An identity that is none, or of another trust domain, is refused.
2. A path that can be read in two ways is refused (`gossipmesh.traffic.paths`).
3. The first rule that matches decides; denies stand first. None: the section's `default_allow`.
4. A path with parameters is judged with and without them, and must be allowed both ways. What a deny's path
   closes is wider than what an allow's opens: it includes what lenient servers take for the same path.
5. TCP has no method and no path: a deny that names them denies, an allow that names them does not allow.

The rule named in a verdict is for the log; a caller is told 403 and no more.
"""

from functools import lru_cache
from typing import Final

import msgspec

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import parse_spiffe_id, service_of_spiffe_id
from gossipmesh.model.limits import IDENTITIES_REMEMBERED_MAX, PATH_RULES_REMEMBERED_MAX
from gossipmesh.model.snapshot import AccessRule, InboundSection, PathMatch
from gossipmesh.traffic.paths import closed_form, matched_path_untrusted, path_matches, without_parameters

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
    if path is None:
        return _first_match(inbound, identity, namespace, method, None)
    try:
        matched = matched_path_untrusted(path)
    except MalformedInput:
        return Verdict(False, RULE_PATH)
    verdict = _first_match(inbound, identity, namespace, method, matched)
    if verdict.allow and ";" in matched:
        return _first_match(inbound, identity, namespace, method, without_parameters(matched))
    return verdict


def _first_match(
    inbound: InboundSection, identity: str, namespace: str, method: str | None, path: str | None
) -> Verdict:
    for rule in inbound.rules:
        if _source_matches(rule, identity, namespace) and _target_matches(rule, method, path):
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
    matches = path_matches if rule.allow else _closes
    return any(
        (not target.methods or method in target.methods)
        and (not target.paths or any(matches(match, path) for match in target.paths))
        for target in rule.targets
    )


def _closes(match: PathMatch, path: str) -> bool:
    """Tell whether a deny's path closes `path`, by itself or by what a lenient server makes of it."""
    return path_matches(match, path) or path_matches(_closed_match(match), closed_form(path))


# A pure function of a rule's path, remembered because rules are asked for every request.
@lru_cache(maxsize=PATH_RULES_REMEMBERED_MAX)
def _closed_match(match: PathMatch) -> PathMatch:
    # A rule that names parameters means them; without them it would close what nobody closed.
    return match if ";" in match.value else PathMatch(match.kind, closed_form(match.value))
