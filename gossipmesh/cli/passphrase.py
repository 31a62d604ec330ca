"""Passphrases of keys that lie offline: by a file, a file descriptor, or a question; never by an argument.

An argument or a variable of the environment stands in /proc for every process of its user to read.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from gossipmesh.model.errors import OperatorError, UsageError

BYTES_MIN: Final = 8
_BYTES_MAX: Final = 1_024

F = TypeVar("F", bound=Callable[..., Any])


class Passphrase:
    """Where a command's passphrase comes from; asked for once, when it is needed."""

    def __init__(self, file: Path | None, descriptor: int | None) -> None:
        """Take at most one of a file and a descriptor; neither: whoever sits at the terminal is asked.

        Raises:
            UsageError: both.
        """
        if file is not None and descriptor is not None:
            raise UsageError("--passphrase-file and --passphrase-fd give two passphrases; give one of them")
        self._file = file
        self._descriptor = descriptor
        self._known: bytes | None = None

    def ask(self, what: str) -> bytes:
        """Return the passphrase for reading `what`.

        Raises:
            OperatorError: there is none to be had. State unchanged.
        """
        return self._get(f"passphrase of {what}", confirm=False)

    def choose(self) -> bytes:
        """Return the passphrase to write keys with; at a terminal it is asked for twice.

        Raises:
            OperatorError: there is none to be had, or it is short. State unchanged.
        """
        chosen = self._get("passphrase for the keys that are kept offline", confirm=True)
        if len(chosen) < BYTES_MIN:
            raise OperatorError(f"a passphrase of {len(chosen)} bytes; use {BYTES_MIN} at least")
        return chosen

    def _get(self, prompt: str, *, confirm: bool) -> bytes:
        if self._known is None:
            self._known = self._read(prompt, confirm)
        return self._known

    def _read(self, prompt: str, confirm: bool) -> bytes:
        from gossipmesh.net.secret_files import read_secret

        if self._file is not None:
            return read_secret(self._file).split(b"\n", 1)[0]
        if self._descriptor is not None:
            try:
                with os.fdopen(self._descriptor, "rb") as told:
                    return told.read(_BYTES_MAX).split(b"\n", 1)[0]
            except OSError as error:
                raise OperatorError(f"--passphrase-fd {self._descriptor}: {error.strerror}") from None
        if not sys.stdin.isatty():
            raise OperatorError(
                f"the {prompt} is needed and nobody can be asked: give --passphrase-file or --passphrase-fd"
            )
        asked: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
        return asked.encode()


def passphrase_options(command: F) -> F:
    """Add `--passphrase-file` and `--passphrase-fd` to a command."""
    file = click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A 0600 file whose first line is the passphrase of keys that have one.",
    )
    descriptor = click.option(
        "--passphrase-fd", type=click.IntRange(0), metavar="N", help="An open descriptor to read it from."
    )
    return file(descriptor(command))
