"""`--wait` and `--timeout`, as every command has them that spreads something by the mesh."""

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from gossipmesh.cli.push_plan import WAIT_ALIVE, WAIT_ALL
from gossipmesh.model.durations import parse_duration_untrusted
from gossipmesh.model.errors import MalformedInput, UsageError

F = TypeVar("F", bound=Callable[..., Any])
_NS: Final = 1e9


class WaitingCommand(click.Command):
    """A command whose `--wait` may stand without a value, wherever it stands."""

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        """Give a bare `--wait` its usual value; click alone would take the next word for it."""
        end = words.index("--") if "--" in words else len(words)
        told = [f"--wait={WAIT_ALIVE}" if word == "--wait" else word for word in words[:end]]
        return super().parse_args(context, told + words[end:])


def wait_options(does: str) -> Callable[[F], F]:
    """Return what adds both options; `does` is what a member is waited for to do."""
    wait = click.option(
        "--wait",
        type=click.Choice((WAIT_ALIVE, WAIT_ALL)),
        metavar="[=all]",
        help=f"Wait until every member that is alive {does}, or every one, and say who does not.",
    )
    timeout = click.option("--timeout", default="10s", show_default=True, help="How long to wait.")
    return lambda command: wait(timeout(command))


def seconds_of(timeout: str) -> float:
    """Return the seconds that `--timeout` means.

    Raises:
        UsageError: no duration. State unchanged.
    """
    try:
        return parse_duration_untrusted(timeout) / _NS
    except MalformedInput as error:
        raise UsageError(f"--timeout: {error}") from error


def pause(seconds: float) -> None:
    """Wait; a command has no loop of its own, and Ctrl-C ends it."""
    threading.Event().wait(seconds)
