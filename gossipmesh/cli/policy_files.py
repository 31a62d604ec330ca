"""Policy files: found, read, and validated whole before anything is signed.

What passes here is what nodes accept: shapes are the types nodes decode, and the rules are the same
function (`gossipmesh.model.policy_rules`). References between documents are checked against the set as
it would become, because only the signer sees it before it exists.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Final

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.policy import (
    API_VERSIONS,
    AccessPolicy,
    BackendRef,
    Document,
    HTTPRoute,
    HTTPRouteMatch,
    MeshPolicy,
    Subset,
    document_name,
)
from gossipmesh.model.policy_rules import document_violations
from gossipmesh.net.files import UnsafeFile, read_named, require_not_anybodys
from gossipmesh.wire.problems import Path, Problem
from gossipmesh.wire.shape_check import salvage_shape
from gossipmesh.wire.yaml_source import YamlDocument, YamlErrors, parse_yaml_untrusted

SUFFIXES: Final = (".yaml", ".yml", ".json")
STDIN: Final = "-"
SHAPES: Final[Mapping[str, type[HTTPRoute] | type[Subset] | type[AccessPolicy] | type[MeshPolicy]]] = {
    "HTTPRoute": HTTPRoute,
    "Subset": Subset,
    "AccessPolicy": AccessPolicy,
    "MeshPolicy": MeshPolicy,
}


class SourceDocument(msgspec.Struct, frozen=True):
    """A document and where it was written; `broken` are the paths that could not be read."""

    source: YamlDocument
    document: Document
    broken: tuple[Path, ...] = ()

    def vouches_for(self, path: Path) -> bool:
        """Tell whether what stands at `path` was written there, rather than filled in."""
        return not any(path[: len(lost)] == lost or lost[: len(path)] == path for lost in self.broken)


class PolicyFiles(msgspec.Struct, frozen=True):
    """Every document of the files given, and every problem found in them so far."""

    documents: tuple[SourceDocument, ...]
    problems: tuple[Problem, ...]


def find_files(names: Sequence[str]) -> list[FilePath]:
    """Return the files meant by `names`: a file itself, a directory's YAML and JSON files by name.

    Raises:
        OperatorError: a name that does not exist, a directory without such a file, or one anybody may write.
    """
    files: list[FilePath] = []
    for name in names:
        path = FilePath(name)
        if name == STDIN or path.is_file():
            files.append(path)
        elif path.is_dir():
            require_not_anybodys(path)
            found = sorted(item for item in path.iterdir() if item.suffix in SUFFIXES and item.is_file())
            if not found:
                raise OperatorError(f"the directory {name} has no policy file: none ends in .yaml or .yml")
            files.extend(found)
        else:
            raise OperatorError(f"no policy file at {name}: give an existing file, a directory or `-`")
    return list(dict.fromkeys(files))


def load_files(files: Iterable[FilePath]) -> PolicyFiles:
    """Read and check every file: YAML, shapes, each document's own rules, the same name twice.

    Raises:
        OperatorError: a file cannot be read.
    """
    documents: list[SourceDocument] = []
    problems: list[Problem] = []
    for file in files:
        text = _read(file)
        try:
            sources = parse_yaml_untrusted(text, str(file))
        except YamlErrors as error:
            problems.extend(error.problems)
            continue
        for source in sources:
            document, found = check_document(source)
            problems.extend(found)
            if document is not None:
                documents.append(document)
    problems.extend(_duplicates(documents))
    return PolicyFiles(tuple(documents), tuple(problems))


def check_document(source: YamlDocument) -> tuple[SourceDocument | None, list[Problem]]:
    """Return one document as its type, with every problem that concerns it alone."""
    kind = source.value.get("kind") if isinstance(source.value, dict) else None
    shape = SHAPES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        return None, [_unknown_kind(source, kind)]
    salvaged, problems, broken = salvage_shape(source, shape)
    if salvaged is None:
        return None, problems
    checked = SourceDocument(source, salvaged, tuple(broken))
    for path, message in document_violations(salvaged):
        if checked.vouches_for(path):
            code = "GM1015" if path == ("apiVersion",) else "GM1020"
            problems.append(source.problem(path, code, message))
    return checked, problems


def reference_problems(documents: Iterable[SourceDocument], names: Iterable[str]) -> list[Problem]:
    """Return the references of `documents` to documents that are not among `names`, the set to be."""
    known = set(names)
    subsets = sorted(name for name in known if name.startswith("Subset/"))
    problems = []
    for item in documents:
        for path, wanted in subset_references(item.document):
            if wanted not in known and item.vouches_for((*path, "name")):
                have = f"there are {', '.join(subsets[:5])}" if subsets else "there is none"
                message = f"{wanted} is neither in these files nor in force: {have}"
                problems.append(item.source.problem((*path, "name"), "GM1031", message))
    return problems


def orphaned_references(bodies: Mapping[str, bytes], skip: Iterable[str]) -> list[str]:
    """Return a sentence for each document that stays in force but refers to one that would not.

    Args:
        bodies: the set to be, name -> body.
        skip: names whose references were checked in their files already.
    """
    sentences = []
    checked = set(skip)
    for name, body in bodies.items():
        if name in checked or not name.startswith("HTTPRoute/"):
            continue
        route = msgspec.json.decode(body, type=HTTPRoute)
        for _, wanted in subset_references(route):
            if wanted not in bodies:
                sentences.append(f"{name} in force still refers to {wanted} [GM1032]")
    return sentences


def subset_references(document: Document) -> Iterator[tuple[Path, str]]:
    """Yield where `document` refers to a Subset, and to which one (`Subset/namespace/name`)."""
    if not isinstance(document, HTTPRoute):
        return
    for number, rule in enumerate(document.spec.rules):
        for index, backend in enumerate(rule.backendRefs):
            if backend.kind == "Subset":
                path: Path = ("spec", "rules", number, "backendRefs", index)
                yield path, f"Subset/{_namespace_of(backend, document)}/{backend.name}"


def shadowed_rules(documents: Iterable[SourceDocument]) -> list[Problem]:
    """Return a warning for each match that an earlier one of the same parent already takes whole."""
    seen: dict[tuple[Any, ...], str] = {}
    problems = []
    for item in documents:
        route = item.document
        if not isinstance(route, HTTPRoute):
            continue
        for number, rule in enumerate(route.spec.rules):
            for index, match in enumerate(rule.matches or (HTTPRouteMatch(),)):
                path: Path = ("spec", "rules", number, "matches", index)
                for parent in route.spec.parentRefs:
                    service = f"{parent.namespace or route.metadata.namespace}/{parent.name}"
                    key = (service, route.spec.hostnames, *_match_key(match))
                    if key not in seen:
                        seen[key] = f"rule {number} of {document_name(route)}"
                    elif item.vouches_for(path):
                        message = f"the same match as {seen[key]}, which may take its requests"
                        problems.append(item.source.problem(path, "GM2002", message))
    return problems


def _match_key(match: HTTPRouteMatch) -> tuple[Any, ...]:
    kind, value = (match.path.type, match.path.value) if match.path else ("PathPrefix", "/")
    headers = tuple(sorted((header.name.lower(), header.value) for header in match.headers))
    return kind, value, match.method, headers


def _namespace_of(backend: BackendRef, route: HTTPRoute) -> str:
    return backend.namespace or route.metadata.namespace


def _duplicates(documents: Iterable[SourceDocument]) -> Iterator[Problem]:
    first: dict[str, SourceDocument] = {}
    for item in documents:
        if not item.vouches_for(("metadata", "name")):
            continue
        name = document_name(item.document)
        earlier = first.setdefault(name, item)
        if earlier is not item:
            line, _ = earlier.source.position(())
            message = f"{name} stands already at {earlier.source.file}:{line}: keep one of the two"
            yield item.source.problem(("metadata", "name"), "GM1030", message)


def _unknown_kind(source: YamlDocument, kind: Any) -> Problem:
    expected = ", ".join(f"{name} ({API_VERSIONS[name]})" for name in SHAPES)
    if not isinstance(source.value, dict):
        return source.problem(
            (), "GM1011", f"a mapping with apiVersion, kind, metadata and spec expected: {expected}"
        )
    if "kind" not in source.value:
        return source.problem((), "GM1012", f"`kind` is missing, one of these expected: {expected}")
    return source.problem(("kind",), "GM1015", f"`{str(kind)[:80]}` is not a kind of policy: {expected}")


def _read(file: FilePath) -> str:
    try:
        if str(file) == STDIN:
            data = sys.stdin.buffer.read(limits.YAML_BYTES_MAX + 1)
        else:
            data = read_named(file, limits.YAML_BYTES_MAX)
    except UnsafeFile as error:
        raise OperatorError(f"{error}; nothing was signed or sent") from None
    except OSError as error:
        raise OperatorError(f"cannot read the policy file {file}: {error.strerror}") from None
    if len(data) > limits.YAML_BYTES_MAX:
        raise OperatorError(f"standard input is over {limits.YAML_BYTES_MAX} bytes: split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OperatorError(f"the policy file {file} is not UTF-8 text: byte {error.start}") from None
