"""`why`: one screen at three in the morning, and the same as data; `debug record`: a private file."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.cli import main as root
from tests.unit.cli.fake_agent import FakeAgent


def entry(kind: str, by: str, age_s: float, cause: str = "", detail: str = "") -> dict[str, Any]:
    return {
        "age_s": age_s,
        "wall": 1_790_000_000.5 - age_s,
        "kind": kind,
        "by": by,
        "class": cause,
        "detail": detail,
        "local_health": 0,
    }


WHY = {
    "node": "node5",
    "seen_by": "node1",
    "member": {
        "name": "node5",
        "status": "dead",
        "since_s": 12,
        "heard_s": 14.4,
        "order": [1, 4, 9],
        "lag_ms": 0,
        "self": False,
    },
    "summary": "it is dead; node1, node2 spoke against it",
    "local_health": 1,
    "lag_ms": 3,
    "entries": [
        entry("case-opened", "node1", 14.2, detail="heartbeats missed"),
        entry("vote-received", "node2", 12.3, "silent"),
        entry("vote-received", "node2", 12.2, "silent"),
        entry("vote-sent", "node1", 12.1, "silent"),
        entry("applied", "node1", 12.0, "dead", "node1 node2"),
        entry("something-new", "node1", 1.0),
    ],
    "journal": {"kept_max": 256, "noted": 6},
}


class WhyAgent(FakeAgent):
    """Answers for one member; everything else is unknown."""

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path == "/v1/why" and query == {"node": "node5"}:
            return 200, WHY
        if path == "/v1/debug/record" and "off" not in self.others:
            return 200, b"a recording"
        if path == "/v1/status":
            return 200, {"recorder": {"replayable": "endless" not in self.others}}
        return 404, {"error": "this node knows no member 'nobody'", "code": "no-member"}


@pytest.fixture
def socket_path(request: pytest.FixtureRequest) -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="gm-"))
    with WhyAgent(getattr(request, "param", {})).serving(folder / "agent.sock"):
        yield str(folder / "agent.sock")
    shutil.rmtree(folder)


def test_why_is_one_screen(socket_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["why", "node5", "--socket", socket_path]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "node5, as node1 sees it: it is dead; node1, node2 spoke against it."
    assert "Status dead for 12s, incarnation 1.4, last heard 14s ago" in lines[1]
    assert "local health 1 (0 is healthy)" in lines[2]
    rows = lines[5:]
    assert rows[0].split()[:2] == ["14.2s", "09-21"]
    assert "opened a case" in rows[0]
    assert "heartbeats missed" in rows[0]
    assert "node2  voted against it (x2)" in " ".join(rows[1].split(" ")).replace("   ", "  ")
    assert "silent" in rows[1]
    assert "took the verdict" in rows[3]
    assert "something-new" in rows[4]
    assert max(len(line) for line in lines) <= 132


def test_why_as_data_is_what_the_agent_said(socket_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["why", "node5", "--socket", socket_path, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == WHY


def test_why_of_nobody_is_one_sentence(socket_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["why", "nobody", "--socket", socket_path]) == 1
    assert "knows no member" in capsys.readouterr().err


def test_a_recording_is_private_and_never_overwrites(
    socket_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "flight.gmr"
    assert root.run(["debug", "record", "--out", str(out), "--socket", socket_path]) == 0
    assert out.read_bytes() == b"a recording"
    assert out.stat().st_mode & 0o777 == 0o600
    assert "no keys" in capsys.readouterr().out
    assert root.run(["debug", "record", "--out", str(out), "--socket", socket_path]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("socket_path", [{}, {"endless": ("", False)}], indirect=True)
def test_a_recording_says_whether_it_can_be_replayed(
    socket_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "flight.gmr"
    assert root.run(["debug", "record", "--out", str(out), "--socket", socket_path]) == 0
    said = capsys.readouterr()
    is_whole = "endless" not in request.node.callspec.params["socket_path"]
    assert ("simulator replay" in said.out) is is_whole
    assert ("It cannot be replayed" in said.err) is not is_whole


@pytest.mark.parametrize("socket_path", [{"off": ("", False)}], indirect=True)
def test_a_recorder_that_is_off_is_said(
    socket_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["debug", "record", "--out", str(tmp_path / "x"), "--socket", socket_path]) == 1
    assert "set spec.flightRecorder to true" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
