"""What every test run keeps to: namespace tests only for root, and nothing skipped where it counts.

Not being root deselects the tests marked `namespace`, and the closing line says how many. With
`CI=true` and root, a skipped test fails the run.
"""

import os
from collections.abc import Generator

import pytest

_DESELECTED = pytest.StashKey[int]()
_SKIPPED = pytest.StashKey[list[str]]()


def _is_strict() -> bool:
    return os.environ.get("CI") == "true" and os.geteuid() == 0


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_DESELECTED] = 0
    config.stash[_SKIPPED] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    rootless = [item for item in items if item.get_closest_marker("namespace") is None]
    deselected = [item for item in items if item.get_closest_marker("namespace") is not None]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        config.stash[_DESELECTED] = len(deselected)
        items[:] = rootless


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and _is_strict():
        item.config.stash[_SKIPPED].append(report.nodeid)
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if session.config.stash[_SKIPPED] and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
