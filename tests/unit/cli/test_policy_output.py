"""What a pipe, a program and an editor get from the readers."""

import json
from pathlib import Path

import click
import pytest

from gossipmesh.cli import main as root
from gossipmesh.cli.main import run
from gossipmesh.cli.output import Column, print_rows, print_value, to_yaml
from gossipmesh.model.errors import OperatorError
from gossipmesh.wire.yaml_source import parse_yaml_untrusted
from tests.unit.cli.fake_agent import FakeAgent

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


HOSTILE = {
    "C1 control (CSI)": "a\x9b31mb",
    "ESC": "a\x1b[2Jb",
    "DEL": "a\x7fb",
    "NEL": "a\x85b",
    "right-to-left override": "user\u202egnp.exe",
    "isolate": "a\u2067b\u2069",
    "zero width space": "admin\u200b",
    "byte order mark": "\ufeffadmin",
    "line separator": "a\u2028b",
    "no-break space": "a\xa0b",
    "soft hyphen": "ad\xadmin",
    "language tag": "a\U000e0041b",
    "private use": "a\ue000\U0010fffdb",
    "tab and carriage return": "a\tb\rc",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("output", ["json", "yaml"])
def test_what_others_wrote_is_escaped_and_reads_back_the_same(
    capsys: pytest.CaptureFixture[str], output: str, text: str
) -> None:
    value = [{"labels": {text: text, "plain": f"{text}: {text}"}}, text, [f" {text} # {text}" * 20]]
    print_value(value, output)
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    read = json.loads(printed) if output == "json" else parse_yaml_untrusted(printed, "out")[0].value
    assert read == value


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("output", ["table", "wide"])
def test_a_table_shows_no_letter_that_cannot_be_seen(
    capsys: pytest.CaptureFixture[str], output: str, text: str
) -> None:
    print_rows([{"a": text, "b": {text: text}}], [Column("A", "a"), Column("B", "b")], output)
    assert capsys.readouterr().out.replace("\n", "").isprintable()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_sentence_that_quotes_others_is_visible(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def fail() -> None:
        raise OperatorError(f"the agent refused it: {text}\nsecond line")

    command = click.Command("agent", callback=fail)
    monkeypatch.setattr(root.LazyGroup, "get_command", lambda self, ctx, name: command)
    assert root.run(["agent"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 2
    assert told.replace("\n", "").isprintable()


def test_letters_of_any_script_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    for output in ("json", "yaml"):
        print_value(["Zürich", "東京", "ни", "🚀"], output)
        assert "🚀" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_half_a_surrogate_pair_breaks_no_output(capsys: pytest.CaptureFixture[str], output: str) -> None:
    print_value(["a\ud800b"], output)
    assert "a\\ud800b" in capsys.readouterr().out.lower()


def test_status_says_what_signers_gave_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = FakeAgent({"node-2": ("alive", True)})
    with agent.serving(tmp_path / "agent.sock"):
        words = ["policy", "status", "--socket", str(tmp_path / "agent.sock")]
        assert run(words) == 0
        quiet = capsys.readouterr()
        agent.alarms = [{"kind": "jump", "text": "version 9000 of 'mesh' jumped\x1b[2J"}]
        assert run(words) == 0
        told = capsys.readouterr()
    assert (told.out, quiet.err) == (quiet.out, "")
    assert told.err.startswith("warning: version 9000 of 'mesh' jumped")
    assert "\x1b" not in told.err
