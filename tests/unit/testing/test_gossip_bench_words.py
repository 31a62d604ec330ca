"""What the gossip benchmark says to words it cannot use: one sentence, and nothing is measured."""

from pathlib import Path

import pytest

from bench.gossip.__main__ import arguments
from bench.gossip.day import main as live_days


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_no_join_at_all_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["--joins", count])
    assert "is no whole number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--keep", "--render"])
@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_figures_of_no_run_are_refused_by_their_files_name(
    option: str, content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit):
        arguments([option, str(path)])
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: {path} " in told


def test_figures_of_a_run_are_read(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text('{"groups": {}}')
    assert arguments(["--keep", str(path)]).keep == {"groups": {}}


@pytest.mark.parametrize(
    ("day", "sentence"),
    [
        ('{"loss', "is no day"),
        (
            '{"loss": 0.01, "seed": 1, "chapters": ["silnt"]}',
            "there is no chapter ['silnt']; there are apart",
        ),
        ('{"loss": 0.01, "seed": 1, "chapters": []}', "there is no chapter []"),
    ],
)
def test_a_day_that_cannot_be_lived_is_refused_before_any(
    day: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        live_days(["--out", str(tmp_path / "days.jsonl"), day])
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "days.jsonl").exists()
