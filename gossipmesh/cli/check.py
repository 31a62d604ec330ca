"""`gossipmesh check`: is this node well? Each line a mark, and what is not ok says why and how to mend it.

Rules:
1. The exit code is 1 when something is marked FAIL; with `--strict` on a warn, too.
2. `-o json` and `-o yaml` carry exactly what the agent said.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.output import output_option, print_prose, print_rows

_OK: Final = "ok"
_WARN: Final = "warn"
_FAIL: Final = "FAIL"
_MARKS: Final = (_OK, _WARN, _FAIL)
_INDENT: Final = " " * 6

Row = Mapping[str, Any]


@click.command()
@click.option("--all", "everybody", is_flag=True, help="Check every member, by what this node knows of it.")
@click.option("--strict", is_flag=True, help="Exit 1 on a warn, too.")
@socket_option
@output_option
@click.pass_context
def check(ctx: click.Context, everybody: bool, strict: bool, socket_path: str | None, output: str) -> None:
    """Check this node, or with --all every member; exit 1 when something FAILs, and say how to mend it.

    With --all only what is wrong is told, kind by kind, and one line counts the rest; `-o json` adds what
    each member was judged by.
    """
    told = AdminClient(socket_path).get_json("/v1/check/all" if everybody else "/v1/check")
    rows = told["checks"] if everybody else told
    if output in ("json", "yaml"):
        print_rows((), (), output, value=told)
    else:
        print_checks(rows)
    ctx.exit(exit_code(rows, strict=strict))


def print_checks(rows: Sequence[Row]) -> None:
    """Print each row for people, and last how many there are of each mark."""
    for row in rows:
        print_prose(f"{mark_of(row):4}  {row['name']}: {row['detail']}", _INDENT)
        for title, key in (("why", "why"), ("mend", "hint")):
            if row.get(key):
                print_prose(f"{_INDENT}{title}: {row[key]}", _INDENT)
    counts = Counter(map(mark_of, rows))
    click.echo(", ".join(f"{counts[mark]} {mark}" for mark in _MARKS))


def exit_code(rows: Sequence[Row], *, strict: bool) -> int:
    """Return 1 when a row FAILs; when it is `strict`, for a warn as well."""
    marks = set(map(mark_of, rows))
    return int(_FAIL in marks or (strict and _WARN in marks))


def mark_of(row: Row) -> str:
    """Return a row's mark; an agent of an older build says only whether it is ok."""
    return str(row.get("mark") or (_OK if row["ok"] else _FAIL))
