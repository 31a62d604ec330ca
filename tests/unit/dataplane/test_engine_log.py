"""The engine's stderr as a file: bounded in size and by the disk, and whatever it is written to is borne."""

import json
import logging
import os
import sys
from pathlib import Path

import pytest

from gossipmesh.dataplane.reference.engine_log import EngineLog


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("gossipmesh.engine", logging.ERROR, "", 0, text, None, None)


def ignore() -> None:
    """Count nothing."""


def test_a_storm_of_errors_keeps_the_latest_and_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    handler = EngineLog(ignore, bytes_max=10_000)
    with path.open("a") as stream:
        handler.setStream(stream)
        for number in range(1_000):
            handler.emit(record(f"failed {number}"))
    assert path.stat().st_size < 11_000
    text = path.read_text()
    assert text.startswith('{"level":"warning","message":"the log was full')
    assert "failed 999" in text


def test_a_disk_with_its_last_tenth_left_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "engine.log"
    shed: list[None] = []
    handler = EngineLog(lambda: shed.append(None))
    real = os.fstatvfs(0)
    values = list(real)
    values[2], values[4] = 1_000, 99  # f_blocks, f_bavail
    with path.open("a") as stream:
        handler.setStream(stream)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fstatvfs", lambda _: os.statvfs_result(values))
            handler.emit(record("left out"))
        handler.emit(record("written"))
    assert len(shed) == 1
    assert [line for line in path.read_text().splitlines() if "left out" in line] == []
    assert "written" in path.read_text()


def test_a_pipe_has_no_bound() -> None:
    reader, writer = os.pipe()
    handler = EngineLog(ignore, bytes_max=1)
    with os.fdopen(writer, "w") as stream:
        handler.setStream(stream)
        for _ in range(3):
            handler.emit(record("told"))
    with os.fdopen(reader) as stream:
        assert stream.read().count("told") == 3


def test_a_record_is_one_line_of_json_whatever_it_quotes(tmp_path: Path) -> None:
    hostile = 'said "no"\n\x1b[2J\x9b31m\u202e\u2028\x7f'
    handler = EngineLog(ignore)
    path = tmp_path / "engine.log"
    with path.open("a") as stream:
        handler.setStream(stream)
        try:
            raise ValueError(hostile)
        except ValueError:
            told = record(hostile)
            told.exc_info = sys.exc_info()
            handler.emit(told)
    (text,) = path.read_text().splitlines()
    assert text.isprintable()
    line = json.loads(text)
    assert (line["level"], line["message"]) == ("error", hostile)
    assert line["time"].endswith("Z"), "told like the agent's"
    assert line["traceback"].startswith("Traceback (most recent call last)")
