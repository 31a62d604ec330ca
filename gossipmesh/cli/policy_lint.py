"""What is well formed and can never match: refused before it is signed, because nobody writes it on purpose.

A Deny that names no method anybody sends looks closed and is open. Nodes take such documents all the same
(their rules are `gossipmesh.model.policy_rules`), so what is in force stays in force through any upgrade.
Pure; ends at one document.
"""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Final

from gossipmesh.cli.policy_files import SourceDocument
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import (
    host_name_of_spiffe_id,
    node_name_of_spiffe_id,
    parse_spiffe_id,
    service_of_spiffe_id,
)
from gossipmesh.model.policy import AccessPolicy, HTTPRoute
from gossipmesh.model.policy_rules import document_violations
from gossipmesh.traffic.paths import matched_path_untrusted
from gossipmesh.wire.problems import Path, Problem

METHOD: Final = "GM1021"
IDENTITY: Final = "GM1022"
PATH: Final = "GM1023"
EMPTY: Final = "GM1024"
HEADER: Final = "GM1025"

# IANA's HTTP Method Registry but for PRI, which no request has, and what caches and drafts have made usual.
_METHODS: Final = """
    ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY
    MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT
    REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL
    BAN M-SEARCH NOTIFY PURGE QUERY SUBSCRIBE UNSUBSCRIBE
"""
METHODS: Final = frozenset(_METHODS.split())

_Found = Iterator[tuple[Path, str, str]]


def unmatchable(
    item: SourceDocument, trust_domain: str | None, methods: Collection[str] = ()
) -> list[Problem]:
    """Return what in a document can never match.

    Args:
        trust_domain: of the mesh it is for; None where that is not known.
        methods: methods of the operator's own, besides those everybody knows.
    """
    document = item.document
    found: _Found = iter(())
    if isinstance(document, AccessPolicy):
        found = _access(item, document, trust_domain, methods)
    elif isinstance(document, HTTPRoute):
        found = _route(document, methods)
    wrong = {path for path, _ in document_violations(document)}
    return [
        item.source.problem(path, code, text)
        for path, code, text in found
        if item.vouches_for(path) and path not in wrong
    ]


def _route(route: HTTPRoute, methods: Collection[str]) -> _Found:
    for number, rule in enumerate(route.spec.rules):
        for index, match in enumerate(rule.matches):
            place: Path = ("spec", "rules", number, "matches", index)
            if match.method is not None:
                yield from _method((*place, "method"), match.method, methods)
            if match.path is not None:
                yield from _path((*place, "path", "value"), match.path.value)
            for at, header in enumerate(match.headers):
                if header.value != header.value.strip():
                    text = "a value has no space at either end (RFC 9110 section 5.5), so no request has this"
                    yield (*place, "headers", at, "value"), HEADER, text


def _access(
    item: SourceDocument, policy: AccessPolicy, trust_domain: str | None, methods: Collection[str]
) -> _Found:
    yield from _empty_lists(item)
    for number, rule in enumerate(policy.spec.rules):
        for index, source in enumerate(rule.from_):
            place: Path = ("spec", "rules", number, "from", index, "identities")
            for at, identity in enumerate(source.identities):
                yield from _identity((*place, at), identity, trust_domain)
        for index, target in enumerate(rule.to):
            place = ("spec", "rules", number, "to", index)
            for at, method in enumerate(target.methods):
                yield from _method((*place, "methods", at), method, methods)
            for at, pattern in enumerate(target.paths):
                yield from _path((*place, "paths", at), pattern.removesuffix("/*") or "/")


def _method(path: Path, method: str, methods: Collection[str]) -> _Found:
    if method in METHODS or method in methods or method != method.upper():
        return  # lower case is refused by the kind's own rules
    close = get_close_matches(method, [*METHODS, *methods], n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    yield (
        path,
        METHOD,
        f"{method[:40]!r} is no method anybody sends: {meant}--allow-method {method[:40]} if it is",
    )


def _identity(path: Path, identity: str, trust_domain: str | None) -> _Found:
    try:
        domain, rest = parse_spiffe_id(identity)
        calls = (
            service_of_spiffe_id(identity)
            or node_name_of_spiffe_id(identity)
            or host_name_of_spiffe_id(identity)
        )
    except MalformedInput:
        return  # told by the kind's own rules
    if trust_domain is not None and domain != trust_domain:
        text = f"this mesh is {trust_domain}: nobody of {domain} is let in, so this never matches"
        yield path, IDENTITY, f"{text}; did you mean spiffe://{trust_domain}{rest}?"
    elif calls is None:
        yield path, IDENTITY, f"{rest} is the authority's, which calls nobody"


def _path(path: Path, value: str) -> _Found:
    try:
        matched_path_untrusted(value)
    except MalformedInput as error:
        yield path, PATH, f"{value[:100]!r} is refused in every request ({error}), so this never matches"


def _empty_lists(item: SourceDocument) -> _Found:
    """Find lists that are written and empty: one that is left out means anything, and so would these."""
    spec = item.source.value.get("spec") if isinstance(item.source.value, dict) else None
    rules = spec.get("rules") if isinstance(spec, dict) else None
    for number, rule in enumerate(rules if isinstance(rules, list) else []):
        for side, names in (("from", ("identities", "namespaces")), ("to", ("methods", "paths"))):
            given = rule.get(side) if isinstance(rule, dict) else None
            place: Path = ("spec", "rules", number, side)
            if given == []:
                yield place, EMPTY, f"an empty list names nobody; leave `{side}` out to mean anything"
            for index, part in enumerate(given if isinstance(given, list) else []):
                for name in names if isinstance(part, dict) else ():
                    if part.get(name) == []:
                        yield (*place, index, name), EMPTY, f"an empty list; name some {name} or leave it out"
