"""`gossipmesh proxy`: run a data plane by hand, and show what this node's runs."""

import os
from typing import Any, Final

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.main import SuggestingGroup
from gossipmesh.cli.output import Column, output_option, print_rows
from gossipmesh.net.interpreter import module_words, safe_environment

ENGINE_MODULE: Final = "gossipmesh.dataplane.reference"


@click.group(cls=SuggestingGroup)
def proxy() -> None:
    """Run the data plane, or show what it runs."""


@proxy.command()
@click.option("--socket", "socket_path", required=True, metavar="PATH", help="Where the agent connects.")
@click.option("--access-log", required=True, metavar="PATH", help="File for one JSON line per request.")
def run(socket_path: str, access_log: str) -> None:
    """Run the reference engine in this process; it serves once an agent has connected."""
    words = [*module_words(ENGINE_MODULE), "--socket", socket_path, "--access-log", access_log]
    # Replaced, not called: the engine must not carry the command line's imports.
    os.execve(words[0], words, safe_environment(os.environ))  # noqa: S606


SECTION_COLUMNS: Final = (
    Column("SECTION", "name"),
    Column("CONTENT", "content", prose=True),
)


@proxy.command()
@socket_option
@output_option
def snapshot(socket_path: str | None, output: str) -> None:
    """Show the compiled traffic state this node's engine was given."""
    value: dict[str, Any] = AdminClient(socket_path).get_json("/v1/proxy/snapshot")
    rows = [{"name": name, "content": _brief(value["sections"][name])} for name in sorted(value["sections"])]
    if output in ("table", "wide"):
        click.echo(f"version {value['version']}")
    print_rows(rows, SECTION_COLUMNS, output, value=value, empty="The snapshot is empty.")


def _brief(content: Any) -> str:
    if isinstance(content, dict):
        return ", ".join(f"{key}: {_count(item)}" for key, item in content.items())
    return _count(content)


def _count(item: Any) -> str:
    return f"{len(item)} entries" if isinstance(item, list | dict) else str(item)
