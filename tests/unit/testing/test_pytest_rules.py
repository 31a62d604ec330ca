"""The test run's own rules, tried on a run of its own: deselected without root, no skips in CI as root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[2] / "conftest.py"

TESTS = """
import pytest

def test_plain(): pass

@pytest.mark.namespace
def test_needs_root(): pass

@pytest.mark.skipif({skip}, reason="not here")
def test_maybe_skipped(): pass
"""


def run_pytest(folder: Path, *, uid: int, ci: bool, skip: bool = False) -> "subprocess.CompletedProcess[str]":
    """Run pytest in `folder` with our conftest, as if by the user `uid`."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "as_user.py").write_text(f"import os\nos.geteuid = lambda: {uid}\n")
    (folder / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n    namespace: needs root\n    programs(*names): needs them\n"
    )
    (folder / "test_it.py").write_text(TESTS.format(skip=skip))
    environment = {**os.environ, "PYTHONPATH": str(folder), "CI": "true" if ci else ""}
    arguments = [sys.executable, "-m", "pytest", "-q", "-p", "as_user", "-p", "no:cacheprovider"]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_without_root_namespace_tests_are_deselected_and_counted_last(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, uid=1000, ci=True)
    assert result.returncode == 0
    assert "2 passed, 1 deselected" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 namespace tests deselected: they need root"


def test_as_root_nothing_is_deselected(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, uid=0, ci=True)
    assert (result.returncode, "3 passed" in result.stdout) == (0, True)
    assert "deselected" not in result.stdout


@pytest.mark.parametrize(("uid", "ci", "code"), [(0, True, 1), (0, False, 0), (1000, True, 0)])
def test_a_skip_fails_the_run_only_in_ci_as_root(tmp_path: Path, uid: int, ci: bool, code: int) -> None:
    result = run_pytest(tmp_path, uid=uid, ci=ci, skip=True)
    assert result.returncode == code
    told = "skipped, which fails a run with CI=true as root: test_it.py::test_maybe_skipped"
    assert (told in result.stdout) == (code == 1)


LACKING = """
import pytest

def test_plain(): pass

@pytest.mark.programs("sh", "no-such-program")
@pytest.mark.programs("another-one")
def test_lacks_two(): pass

@pytest.mark.programs("sh")
def test_has_all(): pass
"""


def run_lacking(folder: Path, *, ci: bool) -> "subprocess.CompletedProcess[str]":
    """Run tests of which one needs programs nobody has."""
    (folder / "more").mkdir()
    (folder / "more" / "test_programs.py").write_text(LACKING)
    return run_pytest(folder, uid=0, ci=ci)


def test_what_needs_a_program_that_is_not_installed_is_deselected_and_counted(tmp_path: Path) -> None:
    result = run_lacking(tmp_path, ci=False)
    assert (result.returncode, "5 passed, 1 deselected" in result.stdout) == (0, True)
    last = result.stdout.splitlines()[-1]
    assert last == "1 tests deselected: they need another-one (python3 tools/setup.py programs)"


def test_in_ci_a_program_that_is_not_installed_fails_its_tests(tmp_path: Path) -> None:
    result = run_lacking(tmp_path, ci=True)
    assert result.returncode == 1
    assert "another-one, no-such-program not installed" in result.stdout
    assert "1 error" in result.stdout or "1 failed" in result.stdout
