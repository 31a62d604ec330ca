"""The reference engine does what the specification says: the runner, kind by kind, as anyone would run it."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest
import trio

from gossipmesh.net.interpreter import module_words
from gossipmesh.testing.conformance.__main__ import KINDS, SLOW
from gossipmesh.testing.conformance.waiting import until

ENGINE: Final = module_words("gossipmesh.dataplane.reference")
RUNNER: Final = module_words("gossipmesh.testing.conformance")
LEAST: Final = {"decisions": 300, "frames": 30, "framing": 400, "paths": 80, "peers": 70, "transcripts": 120}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_reference_engine(kind: str) -> None:
    outcomes = await KINDS[kind](ENGINE)
    wrong = [f"{one.key}: {one.fault}" for one in outcomes if one.fault]
    assert not wrong, "\n".join(wrong)
    assert len(outcomes) >= LEAST[kind]
    assert len({one.key for one in outcomes}) == len(outcomes)


@pytest.mark.long
@pytest.mark.parametrize("kind", SLOW)
async def test_the_reference_engine_in_minutes(kind: str) -> None:
    outcomes = await SLOW[kind](ENGINE)
    assert [one for one in outcomes if one.fault] == []
    assert len(outcomes) >= 10


def test_the_command_line_ends_with_a_verdict() -> None:
    done = subprocess.run(
        [*RUNNER, "--json", "--only", "decisions", "--", *ENGINE], capture_output=True, text=True, check=False
    )
    *counts, closing = done.stdout.splitlines()
    verdict = json.loads(closing)
    assert (done.returncode, verdict["ok"], verdict["failed"]) == (0, True, [])
    assert counts == [f"decisions: {verdict['passed']} passed, 0 failed"]
    assert list(verdict["kinds"]) == ["decisions"]


def test_an_engine_that_is_none_fails_with_sentences() -> None:
    """Nothing hangs on an executable that ends at once, and nothing of it passes."""
    words = [*RUNNER, "--json", "--only", "decisions", "--only", "frames", "--", "/bin/false"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, verdict["ok"], verdict["passed"]) == (1, False, 0)
    assert "the engine ended with 1" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "frames", "--", "/nonexistent/engine"], "/nonexistent/engine is no program"),
        (["--only", "frames", "--match", "frame", "--", *ENGINE], "no vector of frames fits frame"),
    ],
)
def test_what_cannot_be_played_is_said(words: list[str], said: str) -> None:
    done = subprocess.run([*RUNNER, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_an_interrupt_is_a_sentence() -> None:
    with subprocess.Popen([*RUNNER, "--", *ENGINE], stderr=subprocess.PIPE, text=True) as playing:
        tasks = Path(f"/proc/{playing.pid}/task")
        trio.run(until, lambda: any(path.read_text() for path in tasks.glob("*/children")))  # an engine runs
        playing.send_signal(signal.SIGINT)
        _, said = playing.communicate(timeout=60)
    assert (playing.returncode, said.startswith("interrupted: "), said.count("\n")) == (130, True, 1)
