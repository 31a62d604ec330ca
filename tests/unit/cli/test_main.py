"""The command root: fast help, one sentence for a failure, quiet ends."""

import os
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from gossipmesh.cli import main as root
from gossipmesh.model.errors import OperatorError, UsageError

HEAVY = (
    "trio",
    "cryptography",
    "rich",
    "yaml",
    "prometheus_client",
    "msgspec",
    "msgpack",
    "httptools",
    "ssl",
)


def gossipmesh(*words: str) -> "subprocess.CompletedProcess[str]":
    arguments = [sys.executable, "-m", "gossipmesh.cli.main", *words]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60)


def failing(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def run_failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *options: str) -> int:
    command = click.Command("agent", callback=failing(error))
    monkeypatch.setattr(root.LazyGroup, "get_command", lambda self, ctx, name: command)
    return root.run([*options, "agent"])


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from gossipmesh.cli.main import run; code = run(['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], code)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "[] 0"
    for name in root.COMMANDS:
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("name", list(root.COMMANDS))
def test_every_command_of_the_table_loads_and_has_help(name: str) -> None:
    assert root.run([name, "--help"]) == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OperatorError("no agent at /x: start one"), 1),
        (UsageError("no agent at /x: start one"), 2),
        (
            BaseExceptionGroup("nursery", [ExceptionGroup("", [OperatorError("no agent at /x: start one")])]),
            1,
        ),
    ],
)
def test_a_failure_a_person_can_mend_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    assert run_failing(monkeypatch, error) == code
    captured = capsys.readouterr()
    assert captured.err == "gossipmesh: no agent at /x: start one\n"
    assert captured.out == ""


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OperatorError):
        run_failing(monkeypatch, OperatorError("no agent"), "--debug")


def test_a_bug_is_never_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run_failing(monkeypatch, ZeroDivisionError())
    mixed = BaseExceptionGroup("nursery", [OperatorError("no agent"), ZeroDivisionError()])
    with pytest.raises(BaseExceptionGroup):
        run_failing(monkeypatch, mixed)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])])
def test_ctrl_c_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    assert run_failing(monkeypatch, error) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [["no-such-command"], ["members", "--no-such-option"], ["endpoints"]])
def test_wrong_words_are_exit_2_with_a_hint(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert root.run(words) == 2
    assert "Try 'gossipmesh" in capsys.readouterr().err


def test_a_closed_pipe_ends_it_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "gossipmesh.cli.main", "--help"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert result.stderr == ""


def test_version_is_the_packages() -> None:
    from gossipmesh import __version__

    assert gossipmesh("--version").stdout == f"gossipmesh {__version__}\n"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["memebrs"], "'members'"),
        (["MEMBERS"], "'members'"),
        (["endpoint"], "'endpoints'"),
        (["chekc"], "'check'"),
        (["polcy", "push"], "'policy'"),
        (["policy", "psuh"], "'push'"),
        (["policy", "stauts"], "'status'"),
        (["proxy", "snapshto"], "'snapshot'"),
        (["authority", "inti"], "'init'"),
        (["members", "--outptu", "json"], "'--output'"),
        (["policy", "push", "--timeotu", "x"], "'--timeout'"),
        (["policy", "get", "HTTPRout", "shop/x"], "'HTTPRoute'"),
        (["policy", "get", "acesspolicy", "shop/x"], "'AccessPolicy'"),
        (["policy", "delete", "Subste", "shop/x"], "'Subset'"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_right_one(
    capsys: pytest.CaptureFixture[str], words: list[str], meant: str
) -> None:
    assert root.run(words) == 2
    assert f"Did you mean {meant}" in capsys.readouterr().err


def test_a_word_like_no_other_is_not_guessed_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["zzzz\x9b31m"]) == 2
    told = capsys.readouterr().err
    assert "Did you mean" not in told
    assert told.replace("\n", "").isprintable()
