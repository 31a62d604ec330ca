"""Interpreters are started so that a folder somebody chose holds nothing they import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gossipmesh.agent.engine.engine_process import is_running, log_tail, spawn_engine
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.errors import OperatorError
from gossipmesh.net.interpreter import module_words, safe_environment

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
    pid = spawn_engine(
        tmp_path / "no" / "engine.sock", AccessLogSettings(tmp_path / "access.log"), tmp_path / "engine.log"
    )
    os.waitpid(pid, 0)
    assert not planted.exists()
    assert "The engine cannot listen" in (tmp_path / "engine.log").read_text()
    assert not is_running(pid)


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
        spawn_engine(tmp_path / "engine.sock", AccessLogSettings(tmp_path / "access.log"), path)
    assert log_tail(path) == ""
    assert precious.read_bytes() == b"another's\n"


def test_the_end_of_a_long_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_text("x" * 100_000 + "\nthe last words\n")
    (tmp_path / "engine.log").chmod(0o600)
    assert log_tail(tmp_path / "engine.log") == "the last words"
    assert log_tail(tmp_path / "none.log") == ""


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
@pytest.mark.parametrize("name", ["access.log", "made later/access.log"])
def test_the_access_log_is_written_where_others_cannot_put_something_else(
    tmp_path: Path, mode: int, name: str
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs").chmod(mode)
    with pytest.raises(OperatorError, match=r"chmod go-w .*logs"):
        spawn_engine(
            tmp_path / "engine.sock", AccessLogSettings(tmp_path / "logs" / name), tmp_path / "engine.log"
        )
    assert os.listdir(tmp_path) == ["logs"]
