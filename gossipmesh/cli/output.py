"""`-o table|wide|json|yaml` for every command that reads.

On a terminal a table fits the width: columns are left out by rank, and which ones is said. In a pipe, and for
`-o wide`, it is whole, one row a line, so that awk and grep can take it. Words of others are made visible.
"""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from gossipmesh.cli.fitting import fit, plain_lines
from gossipmesh.model.errors import UsageError
from gossipmesh.model.text import visible

FORMATS: Final = ("table", "wide", "json", "yaml")
_AS_JSON: Final = (
    "gossipmesh.as_json"  # in a context's `meta`: the flag is read before the option it stands for
)

F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column: its title, where its text comes from, and whether only `-o wide` shows it.

    Where a terminal is too narrow the highest `rank` is left out first; 0 stays. `prose` may be broken
    between its words.
    """

    title: str
    source: str | Callable[[Row], Any]
    wide: bool = False
    right: bool = False
    rank: int = 0
    prose: bool = False

    def text(self, row: Row) -> str:
        """Return this column's cell of `row`, one line, `-` for nothing."""
        value = row.get(self.source) if isinstance(self.source, str) else self.source(row)
        if value is None or value == "":
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, list | tuple):
            return printable(",".join(str(item) for item in value)) or "-"
        if isinstance(value, Mapping):
            return printable(",".join(f"{key}={item}" for key, item in sorted(value.items()))) or "-"
        return printable(str(value))


def printable(text: str) -> str:
    """Return a peer's words as one line that moves no cursor: what is unprintable becomes `?`."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def output_option(command: F) -> F:
    """Add `-o/--output` and its short form `--json` to a command, as the parameter `output`."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        callback=_chosen,
        help="How to print.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, expose_value=False, is_eager=True,
                           callback=_note_json, help="The same as -o json.")  # fmt: skip
    return option(as_json(command))


def _note_json(context: click.Context, _option: click.Parameter, given: bool) -> None:
    context.meta[_AS_JSON] = given


def _chosen(context: click.Context, option: click.Parameter, output: str) -> str:
    if not context.meta[_AS_JSON]:
        return output
    if context.get_parameter_source("output") is ParameterSource.COMMANDLINE and output != "json":
        raise UsageError(f"--json and -o {output} ask for two formats; give one of them")
    return "json"


def print_value(value: Any, output: str) -> None:
    """Print `value` as JSON or YAML."""
    if output == "yaml":
        click.echo(to_yaml(value), nl=False)
    else:
        # What is not printable stands inside of text only, where its escape says the same.
        click.echo(visible(json.dumps(value, indent=2, ensure_ascii=False)))


def tell(text: str) -> None:
    """Print a sentence for people on stderr, whoever's words it quotes; a closed stderr takes it quietly."""
    with suppress(OSError):
        click.echo(visible(text), err=True)


def print_prose(text: str, indent: str = "") -> None:
    """Print a sentence of whoever's words; on a terminal it is broken between words, and goes on indented."""
    shown = visible(text)
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        shown = textwrap.fill(
            shown, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    click.echo(shown)


def print_rows(
    rows: Sequence[Row], columns: Iterable[Column], output: str, *, value: Any = None, empty: str = ""
) -> None:
    """Print `rows` as the operator asked.

    Args:
        rows: what a table shows; printed whole for json and yaml unless `value` is given.
        value: what json and yaml print instead of `rows`.
        empty: a sentence for stderr when a table would have no row.
    """
    if output in ("json", "yaml"):
        print_value(list(rows) if value is None else value, output)
        return
    shown = [column for column in columns if output == "wide" or not column.wide]
    cells = [[column.text(row) for column in shown] for row in rows]
    if not cells and empty:
        tell(empty)
    elif output == "table" and sys.stdout.isatty():
        lines, left_out = fit(shown, cells, shutil.get_terminal_size().columns)
        click.echo("\n".join([_bold(lines[0]), *lines[1:]]))
        if left_out:
            tell(f"left out for want of width: {', '.join(left_out)}; `-o wide` has everything")
    else:
        click.echo(plain_table(shown, cells), nl=False)


def plain_table(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> str:
    """Return an aligned table of plain text, a header first, two spaces between columns."""
    return "".join(line + "\n" for line in plain_lines(columns, cells))


def _bold(header: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return header if plain else click.style(header, bold=True)


def to_yaml(value: Any) -> str:
    """Return `value` as YAML that this program reads back; keys keep their order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what YAML 1.2 readers, ours among them, would take for a number."""

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = "'" if _is_number(text) else None
        # Only double quotes know escapes.
        style = style if visible(text) == text else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    dumped = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    return "".join(_yaml_letter(letter) for letter in dumped)


def _yaml_letter(letter: str) -> str:
    number = ord(letter)
    if letter.isprintable() or letter == "\n":
        return letter
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _is_number(text: str) -> bool:
    for read in (float, lambda digits: int(digits, 0)):
        try:
            read(text)
        except ValueError:
            continue
        return True
    return False
