"""What cannot be written: exit 1 and a sentence, a closed pipe in silence, a traceback never."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.test_readers import READERS, socket_path

__all__ = ["socket_path"]

COMMAND = [sys.executable, "-P", "-m", "gossipmesh.cli.main"]
WORDS = [*READERS.values(), ["members", "-o", "json"], ["members", "-o", "yaml"], ["members", "-o", "wide"]]
BARE = [["--help"], ["--version"], ["policy", "push", "--help"]]


def shell(
    redirection: str, words: list[str], socket: str = "/nonexistent"
) -> "subprocess.CompletedProcess[str]":
    """Run a command as a shell does that was given `redirection`."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "GOSSIPMESH_SOCKET": socket},
    )


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_full_disk_is_a_sentence_from_every_reader(socket_path: str, words: list[str]) -> None:
    result = shell(">/dev/full", words, socket_path)
    assert (result.returncode, result.stderr) == (
        1,
        "gossipmesh: cannot write the output: No space left on device; what was printed is not whole\n",
    )


@pytest.mark.parametrize("words", BARE, ids=" ".join)
def test_help_and_version_meet_a_full_disk_as_well(words: list[str]) -> None:
    result = shell(">/dev/full", words)
    assert result.returncode == 1
    assert result.stderr.startswith("gossipmesh: cannot write the output: No space left on device")


@pytest.mark.parametrize("words", [*WORDS, *BARE], ids=" ".join)
def test_a_closed_standard_output_is_found_before_anything_is_done(words: list[str]) -> None:
    """There is no agent: had the command asked one, it would have said so."""
    result = shell(">&-", words)
    assert result.returncode == 1
    assert result.stderr.startswith("gossipmesh: the standard output is closed, so nothing was done")
    assert result.stderr.count("\n") == 1


def test_what_runs_in_the_background_needs_no_standard_output(tmp_path: Path) -> None:
    result = shell(">&-", ["agent", "--config", str(tmp_path / "no.yaml")])
    assert result.returncode == 1
    assert "cannot read the configuration" in result.stderr
    result = shell(">&-", ["proxy", "snapshot"])
    assert "standard output is closed" in result.stderr


def test_a_closed_standard_error_gets_no_line_into_another_file(tmp_path: Path) -> None:
    """With 2 closed the first file that is opened becomes 2."""
    result = shell("2>&-", ["agent", "--config", str(tmp_path / "no.yaml")])
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", ">/dev/full 2>/dev/full", ">/dev/full 2>&-"])
def test_a_failure_keeps_its_code_when_it_cannot_be_told(redirection: str) -> None:
    for words, code in ((["members"], 1), (["no-such-command"], 2)):
        result = shell(redirection, words)
        assert (result.returncode, result.stdout, result.stderr) == (code, "", "")


@pytest.mark.parametrize("words", [*WORDS, *BARE], ids=" ".join)
def test_a_reader_that_went_away_is_no_failure_to_speak_of(socket_path: str, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [*COMMAND, *words],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env={**os.environ, "GOSSIPMESH_SOCKET": socket_path},
        )
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")
