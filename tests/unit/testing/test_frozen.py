"""The command over the frozen list: what it says and writes when a digest differs, and where traces part."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from gossipmesh.testing import frozen
from gossipmesh.testing.simulator.frozen_list import Entry, key_of, read_list, write_list

EQUAL = Entry("leave", 5, 0.0, 1, digest="aa", lines=7, quick=True)
OTHER = Entry("crash", 5, 0.0, 1, digest="bb", lines=9)


@pytest.fixture(name="path")
def a_list_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of two entries; the second one's run shows another digest than it holds."""
    path = tmp_path / "frozen.jsonl"
    write_list([EQUAL, OTHER], path)

    def play_all(entries: Sequence[Entry], jobs: int) -> Iterator[tuple[Entry, frozen.Played]]:
        for entry in entries:
            digest = "aa" if entry.story == "leave" else "cc"
            yield entry, frozen.Played(entry.name, entry.digest, digest, 8, [])

    monkeypatch.setattr(frozen, "play_all", play_all)
    monkeypatch.setattr(frozen, "read_list", lambda: read_list(path))
    monkeypatch.setattr(frozen, "write_list", lambda entries: write_list(entries, path))
    return path


def test_equal_runs_are_silence_and_zero(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert frozen.main(["--quick"]) == 0
    assert capsys.readouterr().out == f"1 of 2 runs played, 0 differ; list {key_of([EQUAL, OTHER])}\n"


def test_a_run_that_differs_is_named_with_both_digests_and_how_to_look(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frozen.main([]) == 1
    first, closing = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{OTHER.name}: differs: expected bb, got cc (8 lines)")
    assert f"--only '{OTHER.name}' --against main" in first
    assert closing.startswith("2 of 2 runs played, 1 differ")
    assert read_list(path) == [OTHER, EQUAL]


def test_ok_follows_from_the_evidence(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert frozen.main(["--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [(run["name"], run["expected"], run["digest"]) for run in told["runs"]] == [
        (OTHER.name, "bb", "cc"),
        (EQUAL.name, "aa", "aa"),
    ]
    assert frozen.main(["--json", "--only", "leave/*"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_an_update_writes_what_was_played_and_nothing_else(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frozen.main(["--update", "--only", "leave/*"]) == 0
    assert read_list(path) == [OTHER, msgspec.structs.replace(EQUAL, lines=8)]
    before = key_of(read_list(path))
    assert frozen.main(["--update"]) == 0
    assert [entry.digest for entry in read_list(path)] == ["cc", "aa"]
    assert key_of(read_list(path)) != before
    assert f"list {key_of(read_list(path))}" in capsys.readouterr().out.splitlines()[-1]


def test_a_failed_run_is_never_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def play_all(entries: Sequence[Entry], jobs: int) -> Iterator[tuple[Entry, frozen.Played]]:
        for entry in entries:
            yield entry, frozen.Played(entry.name, entry.digest, "dd", 8, ["it is not to be"])

    monkeypatch.setattr(frozen, "play_all", play_all)
    assert frozen.main(["--update"]) == 1
    assert [entry.digest for entry in read_list(path)] == ["bb", "aa"]
    assert f"{EQUAL.name}: FAILED: it is not to be" in capsys.readouterr().out


def test_a_name_that_is_not_there_says_how_to_see_them(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frozen.main(["--only", "nothing"]) == 2
    assert "--list" in capsys.readouterr().out
    assert frozen.main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [OTHER.name, EQUAL.name]
    assert frozen.main(["--against", "main"]) == 2
    assert "give one by --only" in capsys.readouterr().out


def test_the_key_is_of_names_and_digests_in_any_order() -> None:
    assert key_of([EQUAL, OTHER]) == key_of([OTHER, msgspec.structs.replace(EQUAL, quick=False, lines=1)])
    assert key_of([EQUAL]) != key_of([EQUAL, OTHER])
    assert key_of([EQUAL]) != key_of([msgspec.structs.replace(EQUAL, digest="ab")])


@pytest.mark.parametrize(
    ("older", "newer", "told"),
    [
        ("a\nb\n", "a\nb\n", []),
        ("a\nb\nc\n", "a\nx\nc\n", ["line 2 is the first that differs:", "  a", "- b", "+ x"]),
        ("a\n", "a\nb\n", ["line 2 is the first that differs:", "  a", "- (no more lines)", "+ b"]),
    ],
)
def test_where_two_traces_part(tmp_path: Path, older: str, newer: str, told: list[str]) -> None:
    (tmp_path / "old").write_text(older)
    (tmp_path / "new").write_text(newer)
    assert frozen.first_difference(tmp_path / "old", tmp_path / "new") == told


def test_only_the_last_lines_before_a_difference_are_shown(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("".join(f"{number}\n" for number in range(50)) + "a\n")
    (tmp_path / "new").write_text("".join(f"{number}\n" for number in range(50)) + "b\n")
    told = frozen.first_difference(tmp_path / "old", tmp_path / "new")
    assert told == [
        "line 51 is the first that differs:",
        *(f"  {number}" for number in range(45, 50)),
        "- a",
        "+ b",
    ]
