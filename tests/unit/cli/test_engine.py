"""`gossipmesh engine`: what it says of one engine and of two, and how long it waits."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.cli import main as root
from tests.unit.cli.fake_agent import FakeAgent

DRAINING = {"pid": 6, "name": "older/1", "left_s": 30, "open_count": 2, "cut_count": 1}
ENGINE: dict[str, Any] = {"pid": 7, "name": "reference/1", "lacks": [], "draining": None, "ended": None}


class EngineAgent(FakeAgent):
    """Says of its engine what is next in `told`; the last is said for ever."""

    told: list[dict[str, Any]]

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if (method, path) == ("POST", "/v1/engine/replace"):
            return 200, {"before_pid": 6, "pid": 7, "drain_timeout_s": 45.0}
        if (method, path) == ("GET", "/v1/status"):
            return 200, {"engine": {**ENGINE, **(self.told.pop(0) if len(self.told) > 1 else self.told[0])}}
        return 404, {"error": f"no {path}", "code": "unknown"}


@pytest.fixture
def agent() -> Iterator[tuple[EngineAgent, str]]:
    """An agent and its socket; the folder is short, for a socket's path may have 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="gm-"))
    agent = EngineAgent({})
    agent.told = [{}]
    with agent.serving(folder / "agent.sock"):
        yield agent, str(folder / "agent.sock")
    shutil.rmtree(folder)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert root.run(["engine", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_the_engine_is_shown_with_what_it_lacks_and_the_one_before(
    agent: tuple[EngineAgent, str], capsys: pytest.CaptureFixture[str]
) -> None:
    fake, path = agent
    assert run(capsys, "show", "--socket", path) == "Process 7, reference/1.\n"
    fake.told = [{"lacks": ["pins"], "draining": DRAINING}]
    said = run(capsys, "show", "--socket", path)
    assert "of another build and cannot do: pins." in said
    assert "Process 6 was replaced and finishes what it has: 2 connections, 30 s more at most; 1 were" in said
    assert json.loads(run(capsys, "show", "--socket", path, "-o", "json"))["draining"] == DRAINING


def test_replacing_waits_until_the_one_before_has_ended_and_tells_what_it_cut(
    agent: tuple[EngineAgent, str], capsys: pytest.CaptureFixture[str]
) -> None:
    fake, path = agent
    fake.told = [{"draining": DRAINING}, {"draining": DRAINING}, {"ended": {**DRAINING, "cut_count": 3}}]
    said = run(capsys, "replace", "--socket", path).splitlines()
    assert said == [
        "Process 7 serves; process 6 finishes what it has.",
        "Process 6 has ended; connections cut: 3.",
    ]
    assert len(fake.told) == 1, "it asked until then"


def test_replacing_may_go_on_without_waiting(
    agent: tuple[EngineAgent, str], capsys: pytest.CaptureFixture[str]
) -> None:
    fake, path = agent
    fake.told = [{"draining": DRAINING}]
    said = json.loads(run(capsys, "replace", "--no-wait", "--socket", path, "-o", "json"))
    assert said == {"before_pid": 6, "pid": 7, "drain_timeout_s": 45.0}
