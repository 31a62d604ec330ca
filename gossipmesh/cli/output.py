"""`-o table|wide|json|yaml` for every command that reads.

On a terminal a table is drawn by rich, which honours NO_COLOR and the width; in a pipe it is plain
aligned text, one row a line, so that awk and grep can take it.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import click

FORMATS: Final = ("table", "wide", "json", "yaml")

F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column: its title, where its text comes from, and whether only `-o wide` shows it."""

    title: str
    source: str | Callable[[Row], Any]
    wide: bool = False
    right: bool = False

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
    """Add `-o/--output` to a command, as the parameter `output`."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to print.",
    )
    return option(command)


def print_value(value: Any, output: str) -> None:
    """Print `value` as JSON or YAML."""
    if output == "yaml":
        click.echo(to_yaml(value), nl=False)
    else:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))


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
        click.echo(empty, err=True)
    elif sys.stdout.isatty():
        _print_rich(shown, cells)
    else:
        click.echo(plain_table(shown, cells), nl=False)


def plain_table(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> str:
    """Return an aligned table of plain text, a header first, two spaces between columns."""
    lines = [[column.title for column in columns], *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    text = []
    for line in lines:
        padded = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        text.append("  ".join(padded).rstrip() + "\n")
    return "".join(text)


def to_yaml(value: Any) -> str:
    """Return `value` as YAML that this program reads back; keys keep their order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what YAML 1.2 readers, ours among them, would take for a number."""

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if _is_number(text) else None)

    Dumper.add_representer(str, represent_text)
    return str(yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True))


def _is_number(text: str) -> bool:
    for read in (float, lambda digits: int(digits, 0)):
        try:
            read(text)
        except ValueError:
            continue
        return True
    return False


def _print_rich(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for line in cells:
        table.add_row(*[Text(cell) for cell in line])  # Text: brackets in a cell are no markup
    Console(soft_wrap=False).print(table)
