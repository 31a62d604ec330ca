"""The build that is upgraded from comes out of the history, or a sentence says what to do."""

import subprocess
from pathlib import Path

import pytest

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.older import RELEASE, holds_release, older_program


@pytest.mark.history
def test_the_older_build_says_its_own_version(tmp_path: Path) -> None:
    program = older_program(tmp_path)
    told = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True).stdout
    assert RELEASE in told
    where = [*program[:-2], "-c", "import gossipmesh; print(gossipmesh.__file__)"]
    told = subprocess.run(where, capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(tmp_path / "gossipmesh" / "__init__.py")


def test_a_clone_without_it_says_what_to_fetch(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(OperatorError, match=r"git fetch --unshallow"):
        older_program(tmp_path / "older", tmp_path)
    assert not holds_release(tmp_path)
