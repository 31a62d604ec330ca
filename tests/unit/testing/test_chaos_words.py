"""A word of a chaos command that is wrong is one sentence, and nothing has begun."""

import click
import pytest

import chaos.run
import chaos.soak
from chaos.words import run_command


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        (chaos.soak.main, "--minutes x", "--minutes takes a number from 1 to 1440, not 'x'"),
        (chaos.soak.main, "--minutes 0.5", "--minutes takes a number from 1 to 1440, not '0.5'"),
        (chaos.soak.main, "--minutes nan", "--minutes takes a number from 1 to 1440, not 'nan'"),
        (chaos.soak.main, "--seed x", "--seed takes a whole number from 0 to 999999999, not 'x'"),
        (chaos.run.main, "pause --seed -1", "--seed takes a whole number from 0 to 999999999, not '-1'"),
        (chaos.run.main, "pause --runs 1.5", "--runs takes a whole number from 1 to 100, not '1.5'"),
    ],
)
def test_a_number_that_is_none_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: click.Command,
    words: str,
    told: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["chaos", *words.split()])
    with pytest.raises(SystemExit) as ended:
        run_command(command)
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"chaos: {told}\n")


def test_a_number_with_a_fraction_is_taken_where_it_means_something() -> None:
    parsed = chaos.soak.main.make_context("soak", ["--minutes", "2.5", "--seed", "7"]).params
    assert (parsed["minutes"], parsed["seed"]) == (2.5, 7)
    assert chaos.soak.main.make_context("soak", []).params["minutes"] == 20
