"""Break one module on purpose and run one test: the engine behind the table in `tests.mutants.table`.

The source is changed before it is compiled, so the change bites inside functions, tables and defaults alike.
Each mutant has a process of its own, forked from one that has imported what is slow and nothing of ours.
"""

import importlib.machinery
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
_CAUGHT, _SURVIVED, _UNUSABLE = "caught", "survived", "unusable"
_REPORT_BYTES_MAX = 65_536


class Mutant(NamedTuple):
    """`changes` are (text found exactly once in the module, what stands there instead); `test` must fail."""

    name: str
    module: str
    changes: tuple[tuple[str, str], ...]
    test: str
    says: str


def mutant(name: str, module: str, found: str, instead: str, test: str, says: str) -> Mutant:
    """Return a mutant of one replacement in a module of `gossipmesh`."""
    return Mutant(name, f"gossipmesh.{module}", ((found, instead),), test, says)


class Verdict(NamedTuple):
    """What became of a mutant, or of the unmutated tests; `detail` is the first line of the failure."""

    name: str
    outcome: str
    detail: str
    test: str

    @property
    def caught(self) -> bool:
        return self.outcome == _CAUGHT


class CannotMutate(Exception):
    """The text to replace is not there exactly once."""


def source_of(module: str) -> Path:
    """Return the file of one of our modules, without importing it."""
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def mutated_source(mutant: Mutant) -> str:
    """Return the module's text with the mutant's changes made."""
    text = source_of(mutant.module).read_text(encoding="utf-8")
    for found, instead in mutant.changes:
        if text.count(found) != 1:
            raise CannotMutate(f"{text.count(found)} times in {mutant.module}, not once: {found!r}")
        text = text.replace(found, instead)
    return text


class _MutatedLoader(importlib.machinery.SourceFileLoader):
    """Compiles the changed text instead of the file's; no bytecode is read or written."""

    mutant: Mutant
    used = False

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(mutated_source(self.mutant), self.path, "exec")
        return code

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _MutatedLoader.used = True


class _Finder:
    """Finds the one module that is to be broken."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self._mutant.module:
            return None
        loader = _MutatedLoader(fullname, str(source_of(fullname)))
        loader.mutant = self._mutant
        return importlib.util.spec_from_file_location(fullname, loader.path, loader=loader)


class _Recorder:
    """A pytest plugin that keeps the outcome of each test's call, and the first failure's reason."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []
        self.errors: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.passed:
            self.passed += 1
        elif report.failed:
            reason = getattr(getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr))
            line = f"{report.nodeid.rpartition('::')[2]}: {str(reason).splitlines()[0]}"
            (self.failed if report.when == "call" else self.errors).append(line[:300])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.errors.append(str(report.longrepr).strip().splitlines()[-1][:300])


def _run_tests(tests: Sequence[str]) -> _Recorder:
    recorder = _Recorder()
    os.environ["GOSSIPMESH_FROZEN"] = "off"  # what a test checks must notice a mutant, not that bytes differ
    # What is imported before the fork is not rewritten, and need not be.
    ignored = "ignore::pytest.PytestAssertRewriteWarning"
    words = ["-q", "-x", "--no-header", "--tb=line", "-W", ignored, *tests]
    pytest.main(words, plugins=[recorder])
    return recorder


def _judge(mutant: Mutant) -> Verdict:
    try:
        mutated_source(mutant)
    except CannotMutate as error:
        return Verdict(mutant.name, _UNUSABLE, str(error), mutant.test)
    sys.meta_path.insert(0, _Finder(mutant))
    seen = _run_tests([mutant.test])
    if seen.errors or not (seen.failed or seen.passed):
        reason = seen.errors[0] if seen.errors else "no such test"
        return Verdict(mutant.name, _UNUSABLE, reason, mutant.test)
    if not _MutatedLoader.used:
        return Verdict(mutant.name, _UNUSABLE, "the test never imports the module", mutant.test)
    if seen.failed:
        return Verdict(mutant.name, _CAUGHT, seen.failed[0], mutant.test)
    return Verdict(mutant.name, _SURVIVED, "the test passes all the same", mutant.test)


def _judge_unmutated(tests: Sequence[str]) -> Verdict:
    seen = _run_tests(tests)
    wrong = [*seen.failed, *seen.errors]
    if wrong or not seen.passed:
        return Verdict("(unmutated)", _SURVIVED, wrong[0] if wrong else "no such tests", "")
    return Verdict("(unmutated)", _CAUGHT, f"{seen.passed} tests pass", "")


def _in_child(judge: Any, argument: Any) -> Verdict:
    """Return what `judge` says, asked in a forked process; a process that dies has not judged."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.write(writer, json.dumps(judge(argument)).encode()[:_REPORT_BYTES_MAX])
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        report = pipe.read()
    os.waitpid(child, 0)
    if not report:
        return Verdict(getattr(argument, "name", "(unmutated)"), _UNUSABLE, "its process died", "")
    return Verdict(*json.loads(report))


def judge_unmutated(mutants: Sequence[Mutant]) -> Verdict:
    """Run the tests that catch these mutants, all at once, against the code as it is."""
    return _in_child(_judge_unmutated, list(dict.fromkeys(mutant.test for mutant in mutants)))


def judge_mutant(mutant: Mutant) -> Verdict:
    """Break one module in a process of its own and run the named test there."""
    assert not any(name.split(".")[0] == "gossipmesh" for name in sys.modules), "ours must not be loaded yet"
    return _in_child(_judge, mutant)
