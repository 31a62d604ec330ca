"""The test run's own rules, tried on a run of its own: deselected without root, no skips in CI as root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.side_by_side import BESIDE, PAIRED, is_alone, rank

ROOT = Path(__file__).resolve().parents[3]
CONFTEST = ROOT / "tests" / "conftest.py"
WORKERS = pytest.mark.parametrize("workers", [0, 2], ids=["alone", "two workers"])

TESTS = """
import pytest

def test_plain(): pass

@pytest.mark.namespace
def test_needs_root(): pass

@pytest.mark.skipif({skip}, reason="not here")
def test_maybe_skipped(): pass
"""


def run_pytest(
    folder: Path, *, uid: int, ci: bool, skip: bool = False, workers: int = 0
) -> "subprocess.CompletedProcess[str]":
    """Run pytest in `folder` with our conftest, as if by the user `uid`."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "as_user.py").write_text(f"import os\nos.geteuid = lambda: {uid}\n")
    (folder / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n    namespace: needs root\n    programs(*names): needs them\n"
    )
    (folder / "test_it.py").write_text(TESTS.format(skip=skip))
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "CI": "true" if ci else ""}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half of what a run takes
    arguments = [sys.executable, "-m", "pytest", "-q", "-p", "as_user", "-p", "no:cacheprovider"]
    arguments += ["--import-mode=importlib", *(["-p", "xdist.plugin", "-n", str(workers)] if workers else [])]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@WORKERS
def test_without_root_namespace_tests_are_deselected_and_counted_last(tmp_path: Path, workers: int) -> None:
    result = run_pytest(tmp_path, uid=1000, ci=True, workers=workers)
    assert result.returncode == 0
    assert "2 passed" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 namespace tests deselected: they need root"


def test_as_root_nothing_is_deselected(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, uid=0, ci=True)
    assert (result.returncode, "3 passed" in result.stdout) == (0, True)
    assert "deselected" not in result.stdout


@pytest.mark.parametrize(
    ("uid", "ci", "workers", "code"), [(0, True, 0, 1), (0, True, 2, 1), (0, False, 0, 0), (1000, True, 0, 0)]
)
def test_a_skip_fails_the_run_only_in_ci_as_root(
    tmp_path: Path, uid: int, ci: bool, workers: int, code: int
) -> None:
    result = run_pytest(tmp_path, uid=uid, ci=ci, skip=True, workers=workers)
    assert result.returncode == code
    told = "skipped, which fails a run with CI=true as root: test_it.py::test_maybe_skipped"
    assert result.stdout.count(told) == (code == 1)


LACKING = """
import pytest

def test_plain(): pass

@pytest.mark.programs("sh", "no-such-program")
@pytest.mark.programs("another-one")
def test_lacks_two(): pass

@pytest.mark.programs("sh")
def test_has_all(): pass
"""


def run_lacking(folder: Path, *, ci: bool, workers: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run tests of which one needs programs nobody has."""
    (folder / "more").mkdir()
    (folder / "more" / "test_programs.py").write_text(LACKING)
    return run_pytest(folder, uid=0, ci=ci, workers=workers)


@WORKERS
def test_what_needs_a_program_that_is_not_installed_is_deselected_and_counted(
    tmp_path: Path, workers: int
) -> None:
    result = run_lacking(tmp_path, ci=False, workers=workers)
    assert (result.returncode, "5 passed" in result.stdout) == (0, True)
    last = result.stdout.splitlines()[-1]
    assert last == "1 tests deselected: they need another-one (python3 tools/setup.py programs)"


def test_in_ci_a_program_that_is_not_installed_fails_its_tests(tmp_path: Path) -> None:
    result = run_lacking(tmp_path, ci=True)
    assert result.returncode == 1
    assert "another-one, no-such-program not installed" in result.stdout
    assert "1 error" in result.stdout or "1 failed" in result.stdout


NOTING = """
import os, pathlib, threading, time, pytest

@pytest.mark.parametrize("number", range({count}))
def test_it(number):
    began = time.monotonic()
    threading.Event().wait(0.02)
    with open({notes!r}, "a") as file:
        print({name!r}, os.environ["PYTEST_XDIST_WORKER"], began, time.monotonic(), file=file)
"""


def test_what_may_run_beside_others_is_there() -> None:
    assert all((ROOT / path).is_file() for path in BESIDE + PAIRED)
    assert not any(is_alone(f"{path}::test_it") for path in BESIDE + PAIRED)


def test_meshes_that_run_two_at_a_time_come_after_what_computes_and_before_those_alone() -> None:
    computing = rank("tests/unit/testing/test_load.py::test_it")
    alone = rank("tests/e2e/test_chaos.py::test_it")
    assert {computing < rank(f"{path}::test_it") < alone for path in PAIRED} == {True}


def test_real_meshes_come_last_in_one_process_and_nothing_runs_beside_them(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    for folder, count in (("e2e", 3), ("fuzz", 4), ("unit", 5)):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        for module in "abc":
            text = NOTING.format(name=f"{folder}/{module}", notes=str(notes), count=count)
            (tmp_path / "tests" / folder / f"test_{module}.py").write_text(text)
    result = run_pytest(tmp_path, uid=0, ci=True, workers=2)
    assert (result.returncode, "39 passed" in result.stdout) == (0, True), result.stdout
    ran = [
        (name, worker, float(a), float(b))
        for name, worker, a, b in map(str.split, notes.read_text().splitlines())
    ]
    meshes = [run for run in ran if run[0].startswith("e2e/")]
    others = [run for run in ran if run not in meshes]
    assert (len(meshes), len(others)) == (9, 27)
    assert len({worker for _, worker, *_ in meshes}) == 1
    assert max(end for *_, end in others) <= min(began for _, _, began, _ in meshes)
    assert {worker for _, worker, *_ in others} == {"gw0", "gw1"}
    first = sorted(others, key=lambda run: run[2])
    assert {name for name, *_ in first[:2]} <= {"fuzz/a", "fuzz/b", "fuzz/c"}, "long ones first"
    for name in {name for name, *_ in ran}:
        assert len({worker for other, worker, *_ in ran if other == name}) == 1, "a module stays together"
