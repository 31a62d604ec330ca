"""Logs are JSON lines and never hold the loop."""

import json
import logging
import os

from gossipmesh.agent import logs


def _read_lines(descriptor: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in os.read(descriptor, 1_000_000).splitlines()]


def test_a_record_is_one_json_object() -> None:
    reader, writer = os.pipe()
    handler = logs.start_logging("info", writer)
    log = logging.getLogger("gossipmesh.agent")
    log.debug("hidden")
    log.info("ready", extra=logs.fields(node="node1", port=7948))
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    handler.stop()
    ready, failed = _read_lines(reader)
    assert (ready["level"], ready["message"], ready["node"], ready["port"]) == (
        "info",
        "ready",
        "node1",
        7948,
    )
    assert str(ready["time"]).endswith("Z")
    assert "ValueError: broken" in str(failed["traceback"])
    os.close(reader)
    os.close(writer)


def test_a_full_queue_drops_and_counts(monkeypatch: object) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, True)
    handler = logs.start_logging("info", writer)
    log = logging.getLogger("gossipmesh.agent")
    for _ in range(logs._QUEUE_MAX + 2_000):
        log.info("x" * 100)
    assert handler.dropped_count > 0
    seen = b""
    while b"log records dropped" not in seen:
        seen = os.read(reader, 65_536)
    os.close(reader)
    handler.stop()
    os.close(writer)


def test_a_line_holds_no_letter_that_moves_a_cursor() -> None:
    """Members' names, reasons and addresses are others' words: escaped in messages, fields and tracebacks."""
    reader, writer = os.pipe()
    handler = logs.start_logging("info", writer)
    text = "a\x1b[2J\x7f\x9b1m\u202eb\u2028\n{}"
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("gossipmesh.agent").exception(
            "refused: %s", text, extra=logs.fields(**{text: [text]})
        )
    handler.stop()
    (line,) = os.read(reader, 65_536).decode().splitlines()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"refused: {text}"
    os.close(reader)
    os.close(writer)
