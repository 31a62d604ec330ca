"""SIGHUP: what of a changed configuration is taken up, and what is told to need a restart."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from gossipmesh.agent.config import AgentConfig, read_config
from gossipmesh.agent.reload import Reloader, changes, key_of, taken_up

HEAD = "apiVersion: gossipmesh.dev/v1\nkind: AgentConfig\nspec:\n"


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    log = logging.getLogger("gossipmesh")
    before, propagates = log.level, log.propagate
    log.propagate = True  # to caplog
    yield
    log.setLevel(before)
    log.propagate = propagates


class Rig:
    """A reloader of a file, and what it asked others for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scans_count = self.reopened_count = 0
        self.write("")
        self.reloader = Reloader(read_config(path), scan=self._scan, reopen=self._reopen)

    def write(self, spec: str) -> None:
        self.path.write_text(f"{HEAD}  stateDir: state\n{spec}")

    async def reload(self) -> None:
        """Ask, and wait until everything that follows has happened."""
        before = self.scans_count
        self.reloader.ask()
        while self.scans_count == before:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()

    async def _scan(self) -> None:
        self.scans_count += 1

    def _reopen(self) -> None:
        self.reopened_count += 1


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    return [(r.levelname, r.getMessage(), getattr(r, "fields", {})) for r in caplog.records]


async def test_the_level_is_taken_up_and_the_rest_is_told_key_by_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path / "agent.yaml")
    caplog.set_level("INFO", "gossipmesh")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.reloader.run)
        rig.write("  logLevel: warning\n  mesh: {bind: 10.0.0.7:15008}\n  profile: steady\n")
        await rig.reload()
        assert logging.getLogger("gossipmesh").level == logging.WARNING
        warnings = {message: fields for level, message, fields in told(caplog) if level == "WARNING"}
        assert set(warnings) == {
            "spec.logLevel is changed and in force",
            "spec.mesh.bind is changed and not in force: run `gossipmesh restart`",
            "spec.mesh.advertise is changed and not in force: run `gossipmesh restart`",
            "spec.profile is changed and not in force: run `gossipmesh restart`",
        }
        mesh = warnings["spec.mesh.bind is changed and not in force: run `gossipmesh restart`"]
        assert (mesh["before"], mesh["after"]) == ("0.0.0.0:15008", "10.0.0.7:15008")
        # What is not in force is told again, for it still is not; what is in force is not.
        caplog.clear()
        await rig.reload()
        assert sorted(fields["key"] for _, _, fields in told(caplog) if "key" in fields) == [
            "spec.mesh.advertise", "spec.mesh.bind", "spec.profile",
        ]  # fmt: skip
        assert (rig.scans_count, rig.reopened_count) == (2, 2)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "spec", ["  logLevel: loud\n", "  seeds: 1\n", "\tx", "  mesh: {bind: nowhere}\n", None]
)
async def test_a_file_with_a_mistake_changes_nothing_and_the_services_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spec: str | None
) -> None:
    rig = Rig(tmp_path / "agent.yaml")
    logging.getLogger("gossipmesh").setLevel(logging.ERROR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.reloader.run)
        if spec is None:
            rig.path.unlink()
        else:
            rig.write(spec)
        await rig.reload()
        (error,) = [message for level, message, _ in told(caplog) if level == "ERROR"]
        assert error.startswith("the configuration is not taken up, everything goes on as it was: ")
        assert logging.getLogger("gossipmesh").level == logging.ERROR
        assert (rig.scans_count, rig.reopened_count) == (1, 1)
        nursery.cancel_scope.cancel()


async def test_many_signals_are_one_reload_after_the_one_that_runs(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "agent.yaml")
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            rig.reloader.ask()
        nursery.start_soon(rig.reloader.run)
        await rig.reload()
        assert rig.scans_count == 1
        nursery.cancel_scope.cancel()


def test_every_key_of_the_configuration_is_told_by_its_own_name(tmp_path: Path) -> None:
    """What `key_of` says stands in the example, so that a person finds it there."""
    example = (Path(__file__).parents[3] / "configs" / "agent.example.yaml").read_text()
    for field in AgentConfig.__struct_fields__:
        name = key_of(field).split(".")[1]
        assert field in ("file", "more_seeds") or f"{name}:" in example, field


def test_a_token_and_an_unchanged_file_are_no_change(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(HEAD + "  tokenFile: token\n  seeds: ['10.0.0.1:7948']\n")
    config = read_config(path)
    path.write_text(HEAD + "  seeds: ['10.0.0.1:7948', '10.0.0.2:7948']\n  flightRecorder: false\n")
    found = changes(config, read_config(path))
    assert [(change.key, change.before, change.after) for change in found] == [
        ("spec.seeds", "10.0.0.1:7948", "10.0.0.1:7948, 10.0.0.2:7948"),
        ("spec.flightRecorder", "true", "false"),
    ]
    assert changes(config, config) == []
    assert taken_up(config, read_config(path)) == config


def test_the_engines_own_keys_need_another_engine(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(HEAD + "  accessLog: a.log\n")
    config = read_config(path)
    path.write_text(HEAD + "  accessLog: b.log\n")
    (change,) = changes(config, read_config(path))
    assert change.key == "spec.accessLog"
    assert "an engine takes it when it starts" in str(change.advice)
