"""What a pipe, a program and an editor get from the readers."""

import json

import pytest

from gossipmesh.cli.output import Column, print_rows, to_yaml
from gossipmesh.wire.yaml_source import parse_yaml_untrusted

ROWS = [
    {"name": "web", "count": 3, "nodes": ["a", "b"], "labels": {"v": "1"}, "self": True},
    {"name": "cart", "count": 12, "nodes": [], "labels": {}, "self": False},
]
COLUMNS = [
    Column("NAME", "name"),
    Column("COUNT", "count", right=True),
    Column("NODES", "nodes"),
    Column("LABELS", "labels", wide=True),
    Column("SELF", lambda row: row["self"]),
]


def test_a_pipe_gets_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, COLUMNS, "table")
    assert capsys.readouterr().out == (
        "NAME  COUNT  NODES  SELF\n"
        "web       3  a,b    yes\n"
        "cart     12  -      no\n"
    )  # fmt: skip


def test_wide_adds_columns_and_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, COLUMNS, "wide")
    assert "v=1" in capsys.readouterr().out
    print_rows(ROWS, COLUMNS, "json")
    assert json.loads(capsys.readouterr().out) == ROWS


def test_control_characters_never_reach_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("x\x1b[2J\ny", ["x\x1b[2J\ny"]):
        print_rows([{"name": value}], [Column("NAME", "name")], "table")
        assert capsys.readouterr().out == "NAME\nx?[2J y\n"


def test_yaml_that_is_printed_reads_back_the_same() -> None:
    value = {"a": ["012", "yes", "1:20", "0o17", "1e3", "~", "0x1f", "", "null", 3, 1.5, True, None, "a: b"]}
    (document,) = parse_yaml_untrusted(to_yaml(value), "out.yaml")
    assert document.value == value
