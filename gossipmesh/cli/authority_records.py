"""`gossipmesh authority log`: what an authority did, verified."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from gossipmesh.cli.authority_options import directory_option
from gossipmesh.cli.output import Column, output_option, print_rows, tell

_COLUMNS: Final = (
    Column("LINE", "number", right=True, rank=3),
    Column("TIME", lambda row: datetime.fromtimestamp(row["time"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")),
    Column("WHAT", "what"),
    Column("NODE", "node"),
    Column("FROM", "peer", rank=1),
    Column("SERIAL", lambda row: row.get("serial") or None, right=True, rank=2),
    Column("GENERATION", lambda row: row.get("generation") or None, right=True, wide=True),
    Column("DETAIL", "detail", rank=4, prose=True),
)


@click.command("log")
@directory_option
@click.option("--node", metavar="NAME", help="Only what concerns this node.")
@output_option
def show_log(directory: Path, node: str | None, output: str) -> None:
    """Verify the log of what the authority did, and show it."""
    import msgspec

    from gossipmesh.control.ledger import Ledger
    from gossipmesh.control.roots import load_authority

    load_authority(directory)
    ledger = Ledger(directory)
    torn = ledger.check_log()
    if torn is not None:
        tell(torn)
    rows = [msgspec.structs.asdict(deed) for deed in ledger.log.deeds(node)]
    print_rows(rows, _COLUMNS, output, empty="this authority has done nothing yet")
