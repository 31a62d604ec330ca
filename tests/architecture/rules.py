"""The house's style as rules: sizes, depth, names, docstrings, what a public error must say.

A rule looks at all files it concerns and returns everything that breaks it, as `path:line: what`.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.architecture.glossary import banned_words
from tests.architecture.source import ROOT, Definition, Source

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60
DEPTH_MAX = 3
BANNED_WORDS = banned_words((ROOT / "docs" / "GLOSSARY.md").read_text())
PROTOCOL_WORDS = {"upstream_cluster"}  # Envoy's name for a field of its access log; protocols keep their own
UNIT_FIRST = re.compile(r"\b(max|min)_[a-z_]*(_ns|_ms|_s|_bytes|_count|_ratio)\b")
PAPER_FOLDERS = ("gossip", "trust")
PAPER_MARKS = re.compile(r"\b(Paper|Spec|Deviation):")
UNBOUNDED_QUEUE = re.compile(r"open_memory_channel\S*\((float\(.inf.\)|math\.inf)")

# What shows of a TLS peer's certificate, and who may look: OpenSSL alone lets anyone through.
PEER_WORDS: dict[str, tuple[str, ...]] = {
    "getpeercert": ("gossipmesh/net/tls.py",),
    "get_unverified_chain": (),
    "load_der_x509_certificate": (),
    "get_verified_chain": ("gossipmesh/net/tls.py",),
    "verified_path": ("gossipmesh/net/tls.py",),
    "presented": (
        "gossipmesh/net/tls.py",
        "gossipmesh/trust/peer_identity.py",
        "gossipmesh/agent/identity/authority_client.py",
    ),
    "read_leaf_untrusted": (
        "gossipmesh/trust/x509_leaf.py",
        "gossipmesh/trust/peer_identity.py",
        "gossipmesh/trust/svid.py",  # chains that were issued to us
        "gossipmesh/dataplane/reference/identities.py",  # our own
    ),
}

Finder = Callable[[Source], Iterator[tuple[int, str]]]


@dataclass(frozen=True)
class Rule:
    """`sentence` is what the reader of a failure must do; `is_for_package`: tests and tools are exempt."""

    name: str
    sentence: str
    find: Finder
    is_for_package: bool = True

    def offences(self, files: Iterable[Source]) -> list[str]:
        """Return all that breaks this rule, in order of the files and of their lines."""
        return [
            f"{source.path}:{line}: {what}"
            for source in files
            if source.is_package or not self.is_for_package
            for line, what in sorted(self.find(source))
        ]


def _long_files(source: Source) -> Iterator[tuple[int, str]]:
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX:
        yield FILE_LINES_MAX + 1, f"{lines} lines"


def _long_functions(source: Source) -> Iterator[tuple[int, str]]:
    for function in source.functions():
        assert function.end_lineno is not None
        if function.end_lineno - function.lineno >= FUNCTION_LINES_MAX:
            yield function.lineno, f"{function.name} has {function.end_lineno - function.lineno + 1} lines"


def _deep_folders(source: Source) -> Iterator[tuple[int, str]]:
    depth = len(source.parts) - 1
    if depth > DEPTH_MAX:
        yield 1, f"{depth} folders deep"


def _banned_words(source: Source) -> Iterator[tuple[int, str]]:
    banned = [word for folder, word in BANNED_WORDS if folder in ("", *source.parts[1:-1])]
    for line, word in source.words():
        if word not in PROTOCOL_WORDS and any(never in word.lower() for never in banned):
            yield line, word


def _units_first(source: Source) -> Iterator[tuple[int, str]]:
    for line, word in source.words():
        if UNIT_FIRST.search(word.lower()):
            yield line, word


def _undocumented(source: Source) -> Iterator[tuple[int, str]]:
    if source.tree.body and not ast.get_docstring(source.tree):
        yield 1, "the module"
    for node in source.tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_") and not ast.get_docstring(node):
            yield node.lineno, node.name


def _silent_raises(source: Source) -> Iterator[tuple[int, str]]:
    for function in source.functions():
        _, found, raises = (ast.get_docstring(function) or "").partition("Raises:")
        if found and function.name.endswith("_untrusted") and "State" not in raises:
            yield function.lineno, function.name


def _uncited(source: Source) -> Iterator[tuple[int, str]]:
    if source.parts[1] in PAPER_FOLDERS and source.text and not PAPER_MARKS.search(source.text):
        yield 1, "none of Paper:, Spec:, Deviation:"


def _in_text(pattern: re.Pattern[str]) -> Finder:
    def find(source: Source) -> Iterator[tuple[int, str]]:
        for match in pattern.finditer(source.text):
            yield source.text.count("\n", 0, match.start()) + 1, match.group()

    return find


def _asserts_on_input(source: Source) -> Iterator[tuple[int, str]]:
    for function in source.functions():
        if function.name.endswith("_untrusted"):
            for node in ast.walk(function):
                if isinstance(node, ast.Assert):
                    yield node.lineno, f"{function.name} asserts"


def _judges_of_peers(source: Source) -> Iterator[tuple[int, str]]:
    for line, word in source.words():
        if source.path not in PEER_WORDS.get(word, (source.path,)):
            yield line, word


RULES = (
    Rule("small-files", f"Split files of more than {FILE_LINES_MAX} lines.", _long_files, False),
    Rule(
        "small-functions",
        f"Split functions of more than {FUNCTION_LINES_MAX} lines.",
        _long_functions,
        False,
    ),
    Rule("shallow-folders", f"Folders are at most {DEPTH_MAX} deep.", _deep_folders),
    Rule("glossary", "Say it in the words of docs/GLOSSARY.md.", _banned_words),
    Rule("units-last", "Units and qualifiers go last in a name: timeout_ns_max.", _units_first),
    Rule("documented", "Write a docstring for every module and public name.", _undocumented),
    Rule(
        "raises-say-state",
        "Say under Raises: what became of state, in functions that see untrusted bytes.",
        _silent_raises,
    ),
    Rule(
        "cite-or-confess",
        "Name the paper or specification a module follows, or say where it deviates.",
        _uncited,
    ),
    Rule(
        "one-judge-of-peers",
        "Ask trust.peer_identity who is at the other end; nothing else reads a peer's certificate.",
        _judges_of_peers,
    ),
    Rule("bounded-queues", "Give every queue a bound.", _in_text(UNBOUNDED_QUEUE)),
    Rule("never-optimised", "Python never runs with -O: it drops assertions.", _in_text(re.compile('"-O"'))),
    Rule(
        "checks-raise",
        "Raise where input is wrong: `assert` vanishes under -O, so untrusted bytes may not meet one.",
        _asserts_on_input,
    ),
)
