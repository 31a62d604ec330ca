"""Options that several commands of `gossipmesh authority` have, each in one form."""

from pathlib import Path

import click

directory_option = click.option(
    "--dir",
    "directory",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The authority's folder.",
)

root_keys_option = click.option(
    "--root-key",
    "root_keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A document root key; repeat for more. Default: those in DIR/documents.",
)
