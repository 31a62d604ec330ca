"""The words of a chaos command: what a person can mend is one sentence on stderr and an exit code."""

import sys
from typing import Any, Final

import click

from gossipmesh.model.errors import OperatorError, UsageError
from gossipmesh.testing.waiting import WaitedInVain, first_leaf


class Number(click.ParamType[float]):
    """A whole number, or one with a fraction, within bounds."""

    name = "number"

    def __init__(self, low: float, high: float, *, whole: bool = True) -> None:
        self._low = low
        self._high = high
        self._whole = whole

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read one.

        Raises:
            UsageError: it is no number, or beyond the bounds; nothing has begun.
        """
        try:
            number = int(value) if self._whole else float(value)
        except ValueError:
            number = None
        if number is not None and self._low <= number <= self._high:
            return number
        word = "" if param is None else f"{param.opts[0]} "
        kind = "whole number" if self._whole else "number"
        raise UsageError(f"{word}takes a {kind} from {self._low} to {self._high}, not {value!r}")


SEED: Final = Number(0, 999_999_999)


def run_command(command: click.Command) -> None:
    """Run a command to its end; exit 2 for wrong words, 1 for what else a person can mend."""
    try:
        command()
    except* (OperatorError, WaitedInVain) as group:
        error = first_leaf(group)
        click.echo(f"chaos: {error}", err=True)
        sys.exit(error.exit_code if isinstance(error, OperatorError) else 1)
