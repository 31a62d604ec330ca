"""Every rule of the pages has an id, the table says what holds it, and broken engines are caught by it."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from gossipmesh.testing import sentences
from gossipmesh.testing.conformance import files
from gossipmesh.testing.conformance.__main__ import KINDS, played
from gossipmesh.testing.conformance.keys import keys

HOLDS: Final[dict[str, list[str]]] = files.read("holds.json")
EXPLANATIONS: Final[list[str]] = files.read("explanations.json")
BROKEN: Final = sentences.broken_engines()
EMPTY_MAX: Final = 52  # sentences that no vector holds yet; it may only go down
ANEW: Final = "write it anew with `python -m gossipmesh.testing.sentences` (--number for new sentences)"


def test_each_sentence_of_the_pages_has_an_id_or_only_explains() -> None:
    without = [
        f"{one.page}: {one.text}"
        for one in sentences.every()
        if not one.id and not sentences.is_explanation(one, EXPLANATIONS)
    ]
    assert without == [], ANEW


def test_ids_are_given_once_and_all_of_them_are_listed() -> None:
    ids = [one.id for one in sentences.every() if one.id]
    assert len(set(ids)) == len(ids)
    assert set(HOLDS) >= set(ids)


def test_each_pattern_names_a_vector() -> None:
    """A vector that got another name would leave its sentence held by nothing."""
    known = keys()
    assert [
        (name, pattern)
        for name, patterns in HOLDS.items()
        for pattern in patterns
        if not sentences.matching([pattern], known)
    ] == []


def test_fewer_and_fewer_sentences_are_held_by_nothing() -> None:
    assert sum(not HOLDS[one.id] for one in sentences.every() if one.id) <= EMPTY_MAX


def test_each_explanation_is_still_a_sentence() -> None:
    found = sentences.every()
    assert [
        one for one in EXPLANATIONS if not any(sentences.is_explanation(other, [one]) for other in found)
    ] == []


def test_the_table_is_what_the_pages_say() -> None:
    assert sentences.TABLE.read_text() == sentences.table(sentences.every(), HOLDS, BROKEN), ANEW


def test_new_sentences_get_the_next_ids_and_old_ones_keep_theirs() -> None:
    page = "docs/ENGINE.md"
    text = (
        "## 2. Attaching\n\nOne thing holds. [E-2.3] Another `a. B` does, too. It says why.\n\n- A third.\n"
    )
    found = sentences.numbered(page, text, ["It says why"], ["E-2.8"])
    assert "One thing holds. [E-2.3] Another `a. B` does, too. [E-2.9] It says why.\n" in found
    assert "- A third. [E-2.10]\n" in found
    assert sentences.numbered(page, found, ["It says why"], ["E-2.8"]) == found


def test_a_dozen_engines_are_broken_each_at_a_rule_that_is_held() -> None:
    assert len(BROKEN) >= 12
    assert [name for name, rule in BROKEN.items() if not HOLDS.get(rule)] == []
    assert {path.stem for path in (Path(__file__).parent / "broken").glob("*.py")} == set(BROKEN)


_CHECK: Final = """
import os, runpy, sys
import gossipmesh.dataplane.reference.__main__
for path in sys.argv[1:]:
    child = os.fork()
    if not child:
        runpy.run_path(path, run_name="looked at")
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{path} breaks nothing that is there")
"""


def test_what_each_broken_engine_breaks_is_still_there() -> None:
    paths = [str(path) for path in sorted((Path(__file__).parent / "broken").glob("*.py"))]
    done = subprocess.run([sys.executable, "-c", _CHECK, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_engine_fails_at_its_rule_and_nowhere_else(name: str) -> None:
    path = Path(__file__).parent / "broken" / f"{name}.py"
    outcomes = await played([sys.executable, str(path)], list(KINDS))
    failed = {one.key: one.fault for one in outcomes if one.fault}
    tagged = set(sentences.matching(HOLDS[BROKEN[name]], list(failed)))
    assert failed
    assert {key: fault for key, fault in failed.items() if key not in tagged} == {}
