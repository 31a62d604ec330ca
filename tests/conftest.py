"""What every test run keeps to: namespace tests only for root, nothing skipped where it counts, meshes last.

Not being root deselects the tests marked `namespace`; a program that is not installed deselects those
marked `programs("its name")`; a clone without the release before, as a shallow one is, deselects those
marked `history`. The closing lines say how many. With `CI=true` a program that is missing
fails its tests instead, and with `CI=true` and root a skipped test fails the run. All of this holds for one
process and for several (`-n 2`), where the workers count and the first process tells.
"""

import os
import shutil
from typing import Any

import pytest

from gossipmesh.testing.older import holds_release
from tests.side_by_side import AloneLast, rank

_DESELECTED = pytest.StashKey[int]()
_LACKING = pytest.StashKey[dict[str, int]]()
_OLDER = pytest.StashKey[int]()
_SKIPPED = pytest.StashKey[list[str]]()


def _is_ci() -> bool:
    return os.environ.get("CI") == "true"


def _is_strict() -> bool:
    return _is_ci() and os.geteuid() == 0


def _missing_programs(item: pytest.Item) -> list[str]:
    """Return which of the programs a test is marked to need are not installed, in the order of its marks."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    wanted = [name for mark in item.iter_markers("programs") for name in mark.args]
    return [name for name in wanted if shutil.which(name, path=path) is None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_DESELECTED] = 0
    config.stash[_LACKING] = {}
    config.stash[_OLDER] = 0
    config.stash[_SKIPPED] = []
    config.pluginmanager.register(_Skips(config.stash[_SKIPPED]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> AloneLast:
    return AloneLast(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.nodeid))
    _deselect_namespaces(config, items)
    _deselect_history(config, items)
    if not _is_ci():
        _deselect_lacking(config, items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = _missing_programs(item)
    if missing:
        pytest.fail(f"{', '.join(missing)} not installed; run: python3 tools/setup.py programs")


def _deselect_lacking(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs programs that are not here; each is counted under the first one it lacks."""
    lacking = {item: missing for item in items if (missing := _missing_programs(item))}
    for missing in lacking.values():
        config.stash[_LACKING][missing[0]] = config.stash[_LACKING].get(missing[0], 0) + 1
    if lacking:
        config.hook.pytest_deselected(items=list(lacking))
        items[:] = [item for item in items if item not in lacking]


def _deselect_namespaces(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    rootless = [item for item in items if item.get_closest_marker("namespace") is None]
    deselected = [item for item in items if item.get_closest_marker("namespace") is not None]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        config.stash[_DESELECTED] = len(deselected)
        items[:] = rootless


def _deselect_history(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what runs the release before, where the clone's history does not reach back to it."""
    older = [item for item in items if item.get_closest_marker("history") is not None]
    if older and not holds_release():
        config.hook.pytest_deselected(items=older)
        config.stash[_OLDER] = len(older)
        items[:] = [item for item in items if item not in older]


class _Skips:
    """Counts what was skipped, whichever process skipped it."""

    def __init__(self, nodeids: list[str]) -> None:
        self._nodeids = nodeids

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and _is_strict():
            self._nodeids.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    stash = session.config.stash
    if stash[_SKIPPED] and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["deselected"] = (stash[_DESELECTED], stash[_LACKING], stash[_OLDER])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over what a worker counted; each of them counts all tests."""
    counted = getattr(node, "workeroutput", {}).get("deselected")
    if counted is not None:
        stash = node.config.stash
        stash[_DESELECTED], stash[_LACKING], stash[_OLDER] = counted


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Write the closing line after pytest's own, so that it is the last one."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    for nodeid in config.stash[_SKIPPED]:
        reporter.write_line(f"skipped, which fails a run with CI=true as root: {nodeid}", red=True)
    count = config.stash[_DESELECTED]
    if count:
        reporter.write_line(f"{count} namespace tests deselected: they need root", yellow=True)
    count = config.stash[_OLDER]
    if count:
        text = (
            f"{count} tests deselected: this clone does not hold the release before (git fetch --unshallow)"
        )
        reporter.write_line(text, yellow=True)
    for program, count in sorted(config.stash[_LACKING].items()):
        text = f"{count} tests deselected: they need {program} (python3 tools/setup.py programs)"
        reporter.write_line(text, yellow=True)
