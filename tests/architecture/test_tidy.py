"""The style holds: one test for each rule, which names every line that breaks it.

That a rule sees what it forbids is shown on files made up for it, so that a rule that went blind fails.
"""

import pytest

from tests.architecture.glossary import banned_words
from tests.architecture.rules import (
    BANNED_WORDS,
    DEPTH_MAX,
    FILE_LINES_MAX,
    FUNCTION_LINES_MAX,
    RULES,
    Rule,
)
from tests.architecture.source import Source, sources

_HEADER = '"""A module.\n\nPaper: none.\n"""\n\n'  # five lines that break nothing
_RULES = {rule.name: rule for rule in RULES}


def _function(name: str, docstring: str, body: str) -> str:
    return f'{_HEADER}def {name}(given: bytes) -> None:\n    """{docstring}"""\n    {body}\n'


# By rule: where the breach stands, the file, and the lines that must be named.
_BREACHES: dict[str, list[tuple[str, str, list[int]]]] = {
    "small-files": [
        ("tests/unit/test_made_up.py", "\n" * (FILE_LINES_MAX + 1), [FILE_LINES_MAX + 1]),
        ("gossipmesh/net/made_up.py", "\n" * (FILE_LINES_MAX + 1), [FILE_LINES_MAX + 1]),
        ("gossipmesh/net/made_up.py", "\n" * FILE_LINES_MAX, []),
    ],
    "small-functions": [
        ("bench/made_up.py", "def long():\n" + "    x = 1\n" * FUNCTION_LINES_MAX, [1]),
        ("chaos/made_up.py", "class A:\n    async def f(self):\n" + "        x = 1\n" * 60, [2]),
        ("bench/made_up.py", "def short():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1), []),
    ],
    "shallow-folders": [
        (f"gossipmesh/{'deep/' * DEPTH_MAX}made_up.py", "", [1]),
        (f"gossipmesh/{'deep/' * (DEPTH_MAX - 1)}made_up.py", "", []),
    ],
    "glossary": [
        ("gossipmesh/net/made_up.py", "cluster_of_nodes = 1\n", [1]),
        ("gossipmesh/net/made_up.py", "\nclass Awareness: ...\n", [2]),
        ("gossipmesh/net/made_up.py", "def f(half_open): ...\n\nasync def is_faulty(): ...\n", [1, 3]),
        ("gossipmesh/net/made_up.py", "x.cluster = f(cluster=1)\n", [1, 1]),
        ("gossipmesh/net/cluster.py", "", [1]),
        ("gossipmesh/net/made_up.py", "upstream_cluster = 1\n", []),
    ],
    "units-last": [
        ("gossipmesh/net/made_up.py", "max_delay_ns = 1\nMIN_SIZE_BYTES = 2\n", [1, 2]),
        ("gossipmesh/net/made_up.py", "delay_ns_max = 1\n", []),
    ],
    "documented": [
        ("gossipmesh/net/made_up.py", "import os\n", [1]),
        ("gossipmesh/net/made_up.py", f"{_HEADER}def f(): ...\n\n\nclass A: ...\n", [6, 9]),
        ("gossipmesh/net/made_up.py", f"{_HEADER}def _f(): ...\n", []),
        ("gossipmesh/net/__init__.py", "", []),
    ],
    "raises-say-state": [
        ("gossipmesh/wire/made_up.py", _function("read_untrusted", "R.\n\n    Raises:\n    X.", ""), [6]),
        (
            "gossipmesh/wire/made_up.py",
            _function("read_untrusted", "R.\n\n    Raises:\n    State as is.", ""),
            [],
        ),
    ],
    "cite-or-confess": [
        ("gossipmesh/gossip/made_up.py", '"""A module."""\n', [1]),
        ("gossipmesh/gossip/room/made_up.py", '"""A module."""\n', [1]),
        ("gossipmesh/trust/made_up.py", '"""A module."""\n', [1]),
        ("gossipmesh/trust/made_up.py", _HEADER, []),
        ("gossipmesh/net/made_up.py", '"""A module."""\n', []),
    ],
    "one-judge-of-peers": [
        ("gossipmesh/net/made_up.py", "x = 1\ntls.getpeercert()\n", [2]),
        ("gossipmesh/agent/made_up.py", "x = x509_leaf.read_leaf_untrusted(data)\n", [1]),
        ("gossipmesh/net/tls.py", "tls.get_verified_chain()\n", []),
        (
            "gossipmesh/agent/identity/authority_client.py",
            "identify_untrusted(context.presented(), facts, dialled)\n",
            [],
        ),
    ],
    "bounded-queues": [
        ("gossipmesh/net/made_up.py", "\ntrio.open_memory_channel(math.inf)\n", [2]),
        ("gossipmesh/net/made_up.py", "trio.open_memory_channel[int](float('inf'))\n", [1]),
        ("gossipmesh/net/made_up.py", "trio.open_memory_channel(3)\n", []),
    ],
    "never-optimised": [("gossipmesh/net/made_up.py", 'x = 1\nrun(["python", "-O"])\n', [2])],
    "checks-raise": [
        ("gossipmesh/wire/made_up.py", _function("read_untrusted", "R.", "assert given"), [8]),
        ("gossipmesh/wire/made_up.py", _function("read", "R.", "assert given"), []),
    ],
}


def test_there_is_something_to_check() -> None:
    """A wrong root would make every rule hold on nothing."""
    assert sum(source.is_package for source in sources()) > 50
    assert {source.parts[0] for source in sources()} == {"gossipmesh", "tests", "bench", "chaos", "tools"}


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
def test_style(rule: Rule) -> None:
    offences = rule.offences(sources())
    assert not offences, "\n".join([rule.sentence, *offences])


@pytest.mark.parametrize("name", _RULES)
def test_a_rule_names_every_line_that_breaks_it(name: str) -> None:
    """All made-up files at once: the second offender is named as well as the first."""
    files = [Source.of(path, text) for path, text, _ in _BREACHES[name]]
    expected = [f"{path}:{line}:" for path, _, lines in _BREACHES[name] for line in lines]
    assert [offence.split(" ", 1)[0] for offence in _RULES[name].offences(files)] == expected


def test_the_glossary_keeps_words_out_of_the_code() -> None:
    """The page is read, not copied: a table in another shape would ban nothing."""
    page = "| word | meaning | never in code |\n|---|---|---|\n| mesh | all | `swarm`, `gossip: root` |\n"
    assert banned_words(page) == (("", "swarm"), ("gossip", "root"))
    assert {("", "cluster"), ("", "awareness"), ("", "half_open"), ("", "faulty")} <= set(BANNED_WORDS)
    with pytest.raises(ValueError, match=r"GLOSSARY\.md:1"):
        banned_words("| word | meaning |\n")


def test_tests_and_tools_are_exempt_from_the_rules_of_the_package() -> None:
    """What holds only for shipped code is not asked of a test; sizes are asked of everything."""
    for rule in RULES:
        moved = [Source.of(f"tests/{path}", text) for path, text, _ in _BREACHES[rule.name]]
        assert bool(rule.offences(moved)) is not rule.is_for_package
