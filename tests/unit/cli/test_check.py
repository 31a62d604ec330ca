"""`check`: marks, reasons and exit codes, for people and as data."""

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.cli import main as root
from tests.unit.cli.fake_agent import FakeAgent


def row(mark: str, name: str, detail: str, why: str = "", hint: str = "") -> dict[str, Any]:
    return {"name": name, "mark": mark, "ok": mark != "FAIL", "detail": detail, "why": why, "hint": hint}


OK = row("ok", "clock", "0 s behind the group's median")
WARN = row("warn", "disk", "200 MB are left", "a full disk ends the agent", "make room")
FAIL = row(
    "FAIL",
    "seeds",
    "none of 2 seeds answers: 10.100.200.30:7948, 10.100.200.31:7948",
    "this node is a mesh of its own: no member, service or policy of the others reaches it",
    "see that UDP and TCP 7948 pass both ways between this node and the seeds",
)


class CheckAgent(FakeAgent):
    """Answers `check` with rows that the test sets."""

    def __init__(self) -> None:
        super().__init__({})
        self.rows: list[dict[str, Any]] = []
        self.all: dict[str, Any] = {}

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path == "/v1/check":
            return 200, self.rows
        if path == "/v1/check/all" and self.all:
            return 200, self.all
        return 404, {"error": f"no {path}", "code": "unknown"}


@pytest.fixture
def agent() -> Iterator[tuple[CheckAgent, str]]:
    """An agent and its socket, in a folder whose path is short enough for one."""
    folder = Path(tempfile.mkdtemp(prefix="gm-"))
    checked = CheckAgent()
    with checked.serving(folder / "agent.sock"):
        yield checked, str(folder / "agent.sock")
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("rows", "plain", "strict"),
    [([OK], 0, 0), ([OK, WARN], 0, 1), ([OK, FAIL], 1, 1), ([WARN, FAIL, OK], 1, 1), ([], 0, 0)],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_only_a_failure_is_an_error_unless_strict(
    agent: tuple[CheckAgent, str],
    capsys: pytest.CaptureFixture[str],
    rows: list[dict[str, Any]],
    plain: int,
    strict: int,
    output: str,
) -> None:
    agent[0].rows = rows
    words = ["check", "--socket", agent[1], "-o", output]
    assert (root.run(words), root.run([*words, "--strict"])) == (plain, strict)
    assert capsys.readouterr().err == ""


def test_what_is_not_ok_says_why_it_matters_and_how_to_mend_it(
    agent: tuple[CheckAgent, str], capsys: pytest.CaptureFixture[str]
) -> None:
    agent[0].rows = [OK, WARN]
    root.run(["check", "--socket", agent[1]])
    assert capsys.readouterr().out.splitlines() == [
        "ok    clock: 0 s behind the group's median",
        "warn  disk: 200 MB are left",
        "      why: a full disk ends the agent",
        "      mend: make room",
        "1 ok, 1 warn, 0 FAIL",
    ]


@pytest.mark.parametrize("words", [["-o", "json"], ["--json"], ["-o", "json", "--json"]])
def test_data_is_exactly_what_the_agent_said(
    agent: tuple[CheckAgent, str], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    agent[0].rows = [OK, WARN, FAIL]
    root.run(["check", "--socket", agent[1], *words])
    assert json.loads(capsys.readouterr().out) == agent[0].rows


@pytest.mark.parametrize("words", [["--json", "-o", "yaml"], ["-o", "table", "--json"]])
def test_two_formats_at_once_are_wrong_usage(
    agent: tuple[CheckAgent, str], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert root.run(["check", "--socket", agent[1], *words]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "ask for two formats; give one of them" in told.err


@pytest.mark.parametrize(("rows", "code"), [([OK], 0), ([WARN, OK], 0), ([FAIL, WARN, OK], 1)])
def test_all_tells_the_same_way_of_every_member(
    agent: tuple[CheckAgent, str], capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], code: int
) -> None:
    agent[0].all = {"members": [{"name": "n1"}], "ok": code == 0, "seen_by": "n1", "checks": rows}
    words = ["check", "--all", "--socket", agent[1]]
    assert root.run(words) == code
    assert len(capsys.readouterr().out.splitlines()) == 1 + sum(1 if row is OK else 3 for row in rows)
    assert root.run([*words, "-o", "json"]) == code
    assert json.loads(capsys.readouterr().out) == agent[0].all
    assert root.run([*words, "--strict"]) == int(len(rows) > 1)


def test_an_agent_that_knows_no_all_is_an_error_in_words(
    agent: tuple[CheckAgent, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["check", "--all", "--socket", agent[1]]) == 1
    assert "/v1/check/all" in capsys.readouterr().err


def test_an_agent_without_marks_is_understood(
    agent: tuple[CheckAgent, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """After an upgrade the command is newer than the agent until that has been restarted."""
    old = [{"name": "clock", "ok": True, "detail": "a", "hint": ""}]
    old += [{"name": "engine", "ok": False, "detail": "b", "hint": "c"}]
    agent[0].rows = old
    assert root.run(["check", "--socket", agent[1]]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told == ["ok    clock: a", "FAIL  engine: b", "      mend: c", "1 ok, 0 warn, 1 FAIL"]


def test_a_terminal_of_80_columns_breaks_no_word(agent: tuple[CheckAgent, str]) -> None:
    agent[0].rows = [OK, WARN, FAIL]
    words = [sys.executable, "-P", "-m", "gossipmesh.cli.main", "check", "--socket", agent[1]]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    leading, following = pty.openpty()
    result = subprocess.run(words, stdout=following, stderr=subprocess.PIPE, env=environment, timeout=60)
    os.close(following)
    lines = os.read(leading, 65_536).decode().replace("\r\n", "\n").splitlines()
    os.close(leading)
    assert (result.returncode, result.stderr) == (1, b"")
    assert max(map(len, lines)) <= 80
    told = " ".join(" ".join(lines).split())
    for part in ("detail", "why", "hint"):
        assert FAIL[part] in told
