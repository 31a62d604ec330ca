"""Interpreters are started so that a folder somebody chose holds nothing they import."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gossipmesh.agent.config import EngineChoice, EngineKind
from gossipmesh.agent.engine.engine_process import EngineDriver, EngineProcess
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.errors import OperatorError
from gossipmesh.net.interpreter import module_words, safe_environment


def driver(folder: Path, access_log: Path | None = None, log_path: Path | None = None) -> EngineDriver:
    settings = AccessLogSettings(access_log or folder / "access.log")
    return EngineDriver(EngineChoice(), folder, settings, log_path or folder / "engine.log")


PLANTED = "import os, pathlib\npathlib.Path(os.environ['PLANTED']).write_text(__name__)\n"


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder full of modules that tell when they are imported; return where they tell it."""
    for name in ("gossipmesh", "trio", "msgspec", "json"):
        folder = tmp_path / "here" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(PLANTED)
    (tmp_path / "here" / "sitecustomize.py").write_text(PLANTED)
    told = tmp_path / "told"
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PLANTED", str(told))
    return told


@pytest.mark.parametrize("paths", [None, "", ".", ":", f"{os.pathsep}/nonexistent", "here/..:."])
def test_the_engine_imports_nothing_from_where_the_agent_was_started(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: str | None
) -> None:
    """The engine ends by itself: where it shall listen there is no folder."""
    if paths is not None:
        monkeypatch.setenv("PYTHONPATH", paths)
    process = driver(tmp_path).start(tmp_path / "no" / "engine.sock")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not planted.exists()
    assert "The engine cannot listen" in (tmp_path / "engine.log").read_text()
    assert not process.is_running()


@pytest.mark.parametrize(
    "module", ["gossipmesh.cli.main", "gossipmesh.dataplane.reference", "gossipmesh.testing.load"]
)
def test_a_module_of_ours_is_the_installed_one(planted: Path, module: str) -> None:
    result = subprocess.run([*module_words(module), "--help"], capture_output=True, text=True, timeout=60)
    assert (result.returncode, planted.exists()) == (0, False)
    assert "sage" in result.stdout


def test_the_agent_becomes_an_interpreter_that_imports_nothing_from_here(planted: Path) -> None:
    command = [str(Path(sys.executable).parent / "gossipmesh"), "agent", "--config", "none.yaml"]
    environment = {**os.environ, "PYTHONPATH": "."}
    # The command itself is of whoever set PYTHONPATH; -I leaves the variable to the one it becomes.
    result = subprocess.run(
        [sys.executable, "-I", *command], capture_output=True, text=True, timeout=60, env=environment
    )
    assert "cannot read the configuration" in result.stderr
    assert not planted.exists()


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        (None, None),
        ("", None),
        (":", None),
        (".:lib:../x", None),
        ("/opt/a", "/opt/a"),
        (":/opt/a:", "/opt/a"),
        ("/opt/a:.:/opt/b", "/opt/a:/opt/b"),
    ],
)
def test_only_absolute_import_paths_are_handed_on(paths: str | None, kept: str | None) -> None:
    given = {"HOME": "/root"} if paths is None else {"HOME": "/root", "PYTHONPATH": paths}
    safe = safe_environment(given)
    assert (safe.get("PYTHONPATH"), safe["PYTHONSAFEPATH"], safe["HOME"]) == (kept, "1", "/root")


@pytest.mark.parametrize("kind", ["link", "pipe", "open to all"])
def test_the_engines_log_is_a_file_of_ours(tmp_path: Path, kind: str) -> None:
    precious, path = tmp_path / "precious", tmp_path / "engine.log"
    precious.write_bytes(b"another's\n")
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.touch()
        path.chmod(0o666)
    with pytest.raises(OperatorError, match=r"engine\.log"):
        driver(tmp_path, log_path=path).start(tmp_path / "engine.sock")
    assert driver(tmp_path, log_path=path).last_words() == ""
    assert precious.read_bytes() == b"another's\n"


def test_the_end_of_a_long_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_text("x" * 100_000 + "\nthe last words\n")
    (tmp_path / "engine.log").chmod(0o600)
    assert driver(tmp_path).last_words() == "the last words"
    assert driver(tmp_path, log_path=tmp_path / "none.log").last_words() == ""


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
@pytest.mark.parametrize("name", ["access.log", "made later/access.log"])
def test_the_access_log_is_written_where_others_cannot_put_something_else(
    tmp_path: Path, mode: int, name: str
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs").chmod(mode)
    with pytest.raises(OperatorError, match=r"chmod go-w .*logs"):
        driver(tmp_path, access_log=tmp_path / "logs" / name).start(tmp_path / "engine.sock")
    assert os.listdir(tmp_path) == ["logs"]


def sleeper(tmp_path: Path) -> EngineProcess:
    """Start a program that is no engine, and waits for a signal."""
    script = tmp_path / "engine.sh"
    script.write_text("#!/bin/sh\necho started $*\nexec sleep 600\n")
    script.chmod(0o755)
    choice = EngineChoice(EngineKind.COMMAND, (str(script),), 2)
    settings = AccessLogSettings(tmp_path / "access.log")
    return EngineDriver(choice, tmp_path, settings, tmp_path / "engine.log").start(tmp_path / "e.sock")


def test_whatever_was_chosen_is_started_and_followed_by_its_descriptor(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    assert process.is_running()
    while not (tmp_path / "engine.log").read_text().endswith("\n"):
        os.sched_yield()
    process.end(signal.SIGTERM)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not process.is_running()
    assert not process.is_running(), "its descriptor is closed, and that is no error"
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    process.end(signal.SIGKILL)
    wanted = f"started --workers 2 --socket {tmp_path}/e.sock --access-log {tmp_path}/access.log"
    assert (tmp_path / "engine.log").read_text().startswith(wanted)


def test_an_engine_that_an_earlier_agent_started_is_followed_too(tmp_path: Path) -> None:
    """It is no child of ours: `setsid -f` has it adopted by somebody else."""
    words = ["setsid", "-f", "sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 600"]
    subprocess.run(words, check=True)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith("\n"):
        os.sched_yield()
    pid = int((tmp_path / "pid").read_text())
    process = driver(tmp_path).found(pid, tmp_path / "engine.sock")
    assert process.is_running()
    process.end(signal.SIGKILL)
    while process.is_running():
        os.sched_yield()
