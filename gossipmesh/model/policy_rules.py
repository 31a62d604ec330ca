"""What a well-typed policy document must also satisfy to be executable.

Pure, and the same function before signing and on every node: what `policy push` lets through is
exactly what nodes accept. Ends at one document; what documents say to each other is lint.
Spec: Gateway API v1.6 (HTTPRoute field validation), GEP-2257 (durations), GEP-1731 (retries).
Deviation: names are RFC 1123 labels, because they become parts of upstream names; a rule must have a
    backend whose weight is above zero, because a rule that can only fail is nobody's intention.
"""

import re
from collections.abc import Iterator
from typing import Final

from gossipmesh.model import limits
from gossipmesh.model.durations import parse_duration_untrusted
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import is_label, parse_spiffe_id
from gossipmesh.model.policy import (
    API_VERSIONS,
    AccessFrom,
    AccessPolicy,
    AccessTo,
    BackendRef,
    Document,
    HeaderMatchSpec,
    HTTPRoute,
    HTTPRouteMatch,
    HTTPRouteRetry,
    HTTPRouteRule,
    HTTPRouteTimeouts,
    ParentRef,
    PathMatchSpec,
    Subset,
    TargetRef,
)

Path = tuple[str | int, ...]
"""Where in a document: field names and list indexes, outermost first."""

Violation = tuple[Path, str]
"""A place and a sentence saying what was expected there."""

SUBSET_GROUP: Final = "gossipmesh.dev"
PARENTS_MAX: Final = 16
RULES_MAX: Final = 64
MATCHES_MAX: Final = 64
BACKENDS_MAX: Final = 16
HOSTNAMES_MAX: Final = 16
HEADERS_MAX: Final = 16
SOURCES_MAX: Final = 64
WEIGHT_MAX: Final = 1_000_000
RETRY_ATTEMPTS_MAX: Final = 10
TEXT_BYTES_MAX: Final = 1_024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_METHOD = re.compile(r"[A-Z][A-Z_-]{0,31}")
_HOSTNAME = re.compile(
    r"(?:\*\.)?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
_PATH = re.compile(r"/[A-Za-z0-9/._~!$&'()*+,;=:@%-]*")
_PATH_FORBIDDEN = ("//", "/./", "/../", "%2f", "%2F")
_VISIBLE = re.compile(r"[\x20-\x7e]+")


def document_violations(document: Document) -> list[Violation]:
    """Return everything that keeps `document` from being executed, in document order; empty: nothing."""
    return list(_document(document))


def _document(document: Document) -> Iterator[Violation]:
    expected = API_VERSIONS[type(document).__name__]
    if document.apiVersion != expected:
        yield ("apiVersion",), f"{_quoted(document.apiVersion)} is not {expected!r}"
    yield from _label(("metadata", "name"), document.metadata.name)
    yield from _label(("metadata", "namespace"), document.metadata.namespace)
    yield from _labels(("metadata", "labels"), document.metadata.labels)
    if isinstance(document, HTTPRoute):
        yield from _http_route(document)
    elif isinstance(document, AccessPolicy):
        yield from _access_policy(document)
    elif isinstance(document, Subset):
        yield from _subset(document)


def _http_route(route: HTTPRoute) -> Iterator[Violation]:
    spec = route.spec
    yield from _count(("spec", "parentRefs"), len(spec.parentRefs), 1, PARENTS_MAX)
    for index, parent in enumerate(spec.parentRefs[:PARENTS_MAX]):
        yield from _service_reference(("spec", "parentRefs", index), parent)
        if parent.namespace is not None:
            yield from _label(("spec", "parentRefs", index, "namespace"), parent.namespace)
    yield from _count(("spec", "hostnames"), len(spec.hostnames), 0, HOSTNAMES_MAX)
    for index, hostname in enumerate(spec.hostnames[:HOSTNAMES_MAX]):
        if len(hostname) > 253 or _HOSTNAME.fullmatch(hostname) is None:
            message = f"{_quoted(hostname)} is not a lower-case host name, with or without a leading '*.'"
            yield ("spec", "hostnames", index), message
    yield from _count(("spec", "rules"), len(spec.rules), 1, RULES_MAX)
    for index, rule in enumerate(spec.rules[:RULES_MAX]):
        yield from _http_rule(("spec", "rules", index), rule)


def _http_rule(path: Path, rule: HTTPRouteRule) -> Iterator[Violation]:
    if rule.name is not None:
        yield from _label((*path, "name"), rule.name)
    yield from _count((*path, "matches"), len(rule.matches), 0, MATCHES_MAX)
    for index, match in enumerate(rule.matches[:MATCHES_MAX]):
        yield from _http_match((*path, "matches", index), match)
    yield from _count((*path, "backendRefs"), len(rule.backendRefs), 1, BACKENDS_MAX)
    for index, backend in enumerate(rule.backendRefs[:BACKENDS_MAX]):
        yield from _backend((*path, "backendRefs", index), backend)
    if rule.backendRefs and all(backend.weight == 0 for backend in rule.backendRefs):
        yield (*path, "backendRefs"), "every weight is 0, at least one must be above"
    if rule.timeouts is not None:
        yield from _timeouts((*path, "timeouts"), rule.timeouts)
    if rule.retry is not None:
        yield from _retry((*path, "retry"), rule.retry)


def _http_match(path: Path, match: HTTPRouteMatch) -> Iterator[Violation]:
    if match.path is not None:
        yield from _path_match((*path, "path"), match.path)
    if match.method is not None and _METHOD.fullmatch(match.method) is None:
        yield (*path, "method"), f"{_quoted(match.method)} is not a method in upper case, such as GET"
    yield from _count((*path, "headers"), len(match.headers), 0, HEADERS_MAX)
    names: list[str] = []
    for index, header in enumerate(match.headers[:HEADERS_MAX]):
        yield from _header((*path, "headers", index), header)
        if header.name.lower() in names:
            yield (*path, "headers", index, "name"), f"{_quoted(header.name)} is matched twice"
        names.append(header.name.lower())


def _path_match(path: Path, match: PathMatchSpec) -> Iterator[Violation]:
    if match.type not in ("Exact", "PathPrefix"):
        yield (*path, "type"), f"{_quoted(match.type)} is not Exact or PathPrefix"
    yield from _url_path((*path, "value"), match.value)


def _header(path: Path, header: HeaderMatchSpec) -> Iterator[Violation]:
    if _TOKEN.fullmatch(header.name) is None:
        yield (*path, "name"), f"{_quoted(header.name)} is not a header name"
    if header.type != "Exact":
        yield (*path, "type"), f"{_quoted(header.type)} is not Exact"
    if len(header.value) > TEXT_BYTES_MAX or _VISIBLE.fullmatch(header.value) is None:
        yield (*path, "value"), f"{_quoted(header.value)} is not 1..{TEXT_BYTES_MAX} visible ASCII characters"


def _backend(path: Path, backend: BackendRef) -> Iterator[Violation]:
    if (backend.group, backend.kind) not in (("", "Service"), (SUBSET_GROUP, "Subset")):
        group_and_kind = _quoted(f"{backend.group}/{backend.kind}".strip("/"))
        yield (*path, "kind"), f"{group_and_kind} is not Service (group '') or Subset (group {SUBSET_GROUP})"
    yield from _label((*path, "name"), backend.name)
    if backend.namespace is not None:
        yield from _label((*path, "namespace"), backend.namespace)
    if not 0 <= backend.weight <= WEIGHT_MAX:
        yield (*path, "weight"), f"{str(backend.weight)[:30]} is not in 0..{WEIGHT_MAX}"


def _timeouts(path: Path, timeouts: HTTPRouteTimeouts) -> Iterator[Violation]:
    durations: list[int] = []
    for field, text in (("request", timeouts.request), ("backendRequest", timeouts.backendRequest)):
        if text is not None:
            wrong = list(_duration((*path, field), text))
            yield from wrong
            durations += [] if wrong else [parse_duration_untrusted(text)]
    if len(durations) == 2 and 0 < durations[0] < durations[1]:
        yield (*path, "backendRequest"), "a try may not last longer than the request it is part of"


def _retry(path: Path, retry: HTTPRouteRetry) -> Iterator[Violation]:
    yield from _count((*path, "codes"), len(retry.codes), 0, 200)
    for index, code in enumerate(retry.codes[:200]):
        if not 400 <= code <= 599:
            yield (*path, "codes", index), f"{str(code)[:30]} is not a status in 400..599"
    if retry.attempts is not None and not 0 <= retry.attempts <= RETRY_ATTEMPTS_MAX:
        yield (*path, "attempts"), f"{str(retry.attempts)[:30]} is not in 0..{RETRY_ATTEMPTS_MAX}"
    if retry.backoff is not None:
        yield from _duration((*path, "backoff"), retry.backoff)


def _subset(subset: Subset) -> Iterator[Violation]:
    yield from _label(("spec", "service"), subset.spec.service)
    if not subset.spec.labels:
        yield ("spec", "labels"), "a subset without labels is the whole service"
    yield from _labels(("spec", "labels"), subset.spec.labels)


def _access_policy(policy: AccessPolicy) -> Iterator[Violation]:
    spec = policy.spec
    yield from _service_reference(("spec", "targetRef"), spec.targetRef)
    if spec.action not in ("Allow", "Deny"):
        yield ("spec", "action"), f"{_quoted(spec.action)} is not Allow or Deny"
    yield from _count(("spec", "rules"), len(spec.rules), 1, RULES_MAX)
    for index, rule in enumerate(spec.rules[:RULES_MAX]):
        path: Path = ("spec", "rules", index)
        yield from _count((*path, "from"), len(rule.from_), 0, SOURCES_MAX)
        for number, source in enumerate(rule.from_[:SOURCES_MAX]):
            yield from _access_from((*path, "from", number), source)
        yield from _count((*path, "to"), len(rule.to), 0, SOURCES_MAX)
        for number, target in enumerate(rule.to[:SOURCES_MAX]):
            yield from _access_to((*path, "to", number), target)


def _access_from(path: Path, source: AccessFrom) -> Iterator[Violation]:
    if not source.identities and not source.namespaces:
        yield path, "identities or namespaces are needed; leave out `from` to mean anyone"
    yield from _count((*path, "identities"), len(source.identities), 0, SOURCES_MAX)
    for index, identity in enumerate(source.identities[:SOURCES_MAX]):
        try:
            parse_spiffe_id(identity)
        except MalformedInput as error:
            yield (*path, "identities", index), str(error)
    yield from _count((*path, "namespaces"), len(source.namespaces), 0, SOURCES_MAX)
    for index, namespace in enumerate(source.namespaces[:SOURCES_MAX]):
        yield from _label((*path, "namespaces", index), namespace)


def _access_to(path: Path, target: AccessTo) -> Iterator[Violation]:
    if not target.methods and not target.paths:
        yield path, "methods or paths are needed; leave out `to` to mean everything"
    yield from _count((*path, "methods"), len(target.methods), 0, SOURCES_MAX)
    for index, method in enumerate(target.methods[:SOURCES_MAX]):
        if _METHOD.fullmatch(method) is None:
            yield (*path, "methods", index), f"{_quoted(method)} is not a method in upper case, such as GET"
    yield from _count((*path, "paths"), len(target.paths), 0, SOURCES_MAX)
    for index, pattern in enumerate(target.paths[:SOURCES_MAX]):
        place = (*path, "paths", index)
        plain = pattern.removesuffix("/*") or "/"
        if "*" in plain:
            yield place, f"{_quoted(pattern)} has a '*' that is not a final '/*'"
        else:
            yield from _url_path(place, plain)


def _service_reference(path: Path, reference: ParentRef | TargetRef) -> Iterator[Violation]:
    if (reference.group, reference.kind) not in (("", "Service"), ("core", "Service")):
        group_and_kind = _quoted(f"{reference.group}/{reference.kind}".strip("/"))
        yield (*path, "kind"), f"{group_and_kind} is not Service (group '')"
    yield from _label((*path, "name"), reference.name)


def _url_path(path: Path, text: str) -> Iterator[Violation]:
    if len(text) > TEXT_BYTES_MAX or _PATH.fullmatch(text) is None:
        yield path, f"{_quoted(text)} is not a path: '/' first, no query, at most {TEXT_BYTES_MAX} characters"
    elif text.endswith(("/.", "/..")) or any(part in text for part in _PATH_FORBIDDEN):
        yield path, f"{_quoted(text)} has '//', '.', '..' or an encoded '/' in it, which requests never have"


def _labels(path: Path, labels: dict[str, str]) -> Iterator[Violation]:
    yield from _count(path, len(labels), 0, limits.LABELS_PER_SERVICE_MAX)
    for key in sorted(labels)[: limits.LABELS_PER_SERVICE_MAX]:
        size = max(len(key.encode(errors="replace")), len(labels[key].encode(errors="replace")))
        if not key or size > limits.LABEL_BYTES_MAX:
            yield (*path, key), f"a label has a key, and at most {limits.LABEL_BYTES_MAX} bytes on each side"


def _duration(path: Path, text: str) -> Iterator[Violation]:
    try:
        parse_duration_untrusted(text)
    except MalformedInput as error:
        yield path, str(error)


def _label(path: Path, text: str) -> Iterator[Violation]:
    if not is_label(text):
        yield path, f"{_quoted(text)} is not a name: a-z, 0-9 and '-', 1..63 characters, no '-' at either end"


def _count(path: Path, number: int, least: int, most: int) -> Iterator[Violation]:
    if not least <= number <= most:
        yield path, f"{number} entries, {least}..{most} allowed"


def _quoted(text: str) -> str:
    return repr(text[:100])
