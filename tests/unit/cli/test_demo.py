"""How the demo tells what it saw; the demo itself runs end to end in tests/e2e."""

import pytest

from gossipmesh.cli.demo import PlainReporter, SilentReporter, figures
from gossipmesh.testing.demo import Step

STEP = Step(
    "a signed canary, 90/10, arrives",
    True,
    4.256,
    {"v2_share": 0.1, "answers": {"cart:v1": 90, "cart:v2": 10}, "requests_failed": 0},
)


def test_evidence_becomes_short_lines_without_empty_failures() -> None:
    assert figures(STEP.evidence) == ["v2 share: 0.1", "answers: cart:v1 90, cart:v2 10"]
    assert figures({"requests_failed": 2}) == ["requests failed: 2"]
    assert figures({"killed": {"agent": [12], "engine": [13, 14]}}) == ["killed: agent 12, engine 13 14"]


def test_a_step_is_a_line_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainReporter() as reporter:
        reporter.begin(STEP.name)
        reporter.end(STEP)
        reporter.end(Step("kill -9", False, 30.0, {"error": "node2 sees node3 suspect"}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok     4.26 s  a signed canary, 90/10, arrives"
    assert lines[3:] == ["FAIL  30.00 s  kill -9", "               error: node2 sees node3 suspect"]


def test_with_json_nothing_is_said_before_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    with SilentReporter() as reporter:
        reporter.begin(STEP.name)
        reporter.end(STEP)
        reporter.load(100, 0)
    assert capsys.readouterr().out == ""
