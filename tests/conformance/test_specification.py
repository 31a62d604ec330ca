"""The files of `spec/engine/v1-draft`: what they say can be read, and is what the types say."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.testing import engine_schemas
from gossipmesh.testing.conformance import files
from gossipmesh.testing.conformance.shapes import Shapes

RUNNER = Path(files.__file__).parent
FRAMING_KEYS = {
    "name", "send", "statuses", "incomplete", "answer", "reached", "seen", "unseen", "contains", "lacks",
}  # fmt: skip


def test_schemas_are_what_the_types_say() -> None:
    """Write them anew with `python -m gossipmesh.testing.engine_schemas`."""
    assert engine_schemas.differing() == []


def test_framing_cases_have_names_of_their_own_and_say_nothing_unread() -> None:
    cases = files.read("framing.json")
    assert len({case["name"] for case in cases}) == len(cases)
    assert {key for case in cases for key in case} <= FRAMING_KEYS


def test_no_server_runs_what_passes_a_deny() -> None:
    """Of all targets that a real server took for one below `/admin`, none is answered 200."""
    assert not [case for case in files.read("paths.json") if case["reached"] and case["status"] == 200]


def test_all_kinds_of_decisions_have_vectors() -> None:
    kinds = {json.loads(path.read_text())["kind"] for path in (files.SPEC / "decisions").glob("*.json")}
    assert {"route", "balance", "eject", "retry", "authorize", "exchange"} <= kinds


def test_the_runner_imports_nothing_of_an_engine() -> None:
    """An engine is held to pages and files, and never to another engine's code."""
    imported = {
        name
        for path in RUNNER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
        )
    }
    ours = {name for name in imported if name.startswith("gossipmesh")}
    assert {name for name in ours if not name.startswith("gossipmesh.testing.conformance")} == set()


SHAPES = Shapes(files.read("schemas/frames.json"))
FRAMES: list[dict[str, Any]] = files.read("encodings/frames.json")


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector["name"])
def test_frames_have_the_shape_of_their_schema(vector: dict[str, Any]) -> None:
    name = f"{vector['from']}.{vector['frame']['type']}"
    assert SHAPES.fault(name, files.plain(vector["frame"])) == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request", "1"),
        ("request", True),
        ("request", None),
        ("version", b"v"),
        ("version", 7),
        ("type", "nack"),
    ],
)
def test_a_frame_of_another_shape_is_none(field: str, value: object) -> None:
    frame = {"type": "ack", "request": 1, "version": None}
    assert SHAPES.fault("engine.ack", frame) == ""
    assert SHAPES.fault("engine.ack", {**frame, field: value})
    assert SHAPES.fault("engine.ack", {key: item for key, item in frame.items() if key != field})
