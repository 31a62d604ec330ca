"""Every kept mutant still applies; a slice of them is judged in each run, all of them by `make mutants`.

GOSSIPMESH_MUTANTS=all judges all here.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.mutate import ROOT, Mutant, Verdict, mutated_source
from tests.mutants.table import CI_NAMES, MUTANTS

PARTS = 2
DEADLINE_S = 300
JUDGED = [m for m in MUTANTS if m.name in CI_NAMES or os.environ.get("GOSSIPMESH_MUTANTS") == "all"]


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """Judge the slice in two processes that import nothing of ours before they break it."""
    command = [sys.executable, "-m", "tests.mutants", "--json", *(mutant.name for mutant in JUDGED)]
    parts = [
        subprocess.Popen([*command, "--part", f"{n + 1}/{PARTS}"], cwd=ROOT, stdout=subprocess.PIPE)
        for n in range(PARTS)
    ]
    lines = [line for part in parts for line in part.communicate(timeout=DEADLINE_S)[0].splitlines()]
    found = [Verdict(**json.loads(line)) for line in lines]
    unmutated = [verdict for verdict in found if verdict.name == "(unmutated)"]
    by_name = {f"(unmutated) {number}": verdict for number, verdict in enumerate(unmutated)}
    return by_name | {verdict.name: verdict for verdict in found if verdict not in unmutated}


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_still_applies_and_compiles(mutant: Mutant) -> None:
    """A text that moved away would let its mutant pass unseen."""
    text = mutated_source(mutant)
    ast.parse(text)
    path, _, name = mutant.test.partition("::")
    assert f"def {name.rpartition('::')[2].partition('[')[0]}(" in Path(ROOT, path).read_text()


def test_names_are_distinct_and_there_are_thirty() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= 30
    assert set(CI_NAMES) <= set(names)


def test_the_tests_that_catch_pass_without_a_mutant(verdicts: dict[str, Verdict]) -> None:
    unmutated = [verdict for name, verdict in verdicts.items() if name.startswith("(unmutated)")]
    assert len(unmutated) == PARTS
    assert all(verdict.caught for verdict in unmutated), unmutated


@pytest.mark.parametrize("mutant", JUDGED, ids=[mutant.name for mutant in JUDGED])
def test_a_broken_core_is_caught_by_its_named_test(mutant: Mutant, verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[mutant.name]
    assert verdict.caught, f"{mutant.says}: {verdict.outcome}: {verdict.detail}"


def test_a_mutant_that_changes_nothing_is_not_caught() -> None:
    """The control: what the table calls caught is due to the change and not to the machinery."""
    script = (
        "from tests.mutants.mutate import Mutant, judge_mutant\n"
        "harmless = Mutant('harmless', 'gossipmesh.trust.seal', (('One direction', 'A direction'),),\n"
        "    'tests/unit/trust/test_seal.py::test_a_counter_is_taken_once_and_old_ones_never', '')\n"
        "gone = harmless._replace(changes=(('no such text', ''),))\n"
        "print(judge_mutant(harmless).outcome, judge_mutant(gone).outcome)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=60, check=True
    )
    assert ran.stdout.split() == [b"survived", b"unusable"]
