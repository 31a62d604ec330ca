"""`gossipmesh why NODE`: one screen that says who spoke against a member, when, and what undid it."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from gossipmesh.cli.admin_client import AdminClient, socket_option
from gossipmesh.cli.output import Column, output_option, print_prose, print_rows
from gossipmesh.cli.readers import duration_text

# What each kind of journal entry says to a person; unknown kinds are shown as they are.
WORDS: Final[dict[str, str]] = {
    "case-opened": "opened a case",
    "case-closed": "closed the case",
    "vote-sent": "voted against it",
    "vote-received": "voted against it",
    "unvote": "withdrew the vote",
    "verdict": "had a quorum",
    "applied": "took the verdict",
    "refuted": "it refuted",
    "beaten-by-life": "verdict not taken: it lives",
    "unreachable": "unreachable from here",
    "reachable": "heard again",
    "tcp-only": "reached by TCP only",
    "datagrams-again": "datagrams pass again",
    "quarantine": "kept out for a while",
    "held-mass-death": "endpoints kept: many died",
}

COLUMNS: Final = (
    Column("AGO", lambda row: _ago(row.get("age_s")), right=True, rank=1),
    Column("TIME (UTC)", lambda row: _clock(row.get("wall"))),
    Column("BY", "by", prose=True),
    Column("WHAT", lambda row: _what(row), prose=True),
    Column("CLASS", "class", rank=3),
    Column("LOCAL HEALTH", "local_health", right=True, rank=4),
    Column("DETAIL", "detail", rank=2, prose=True),
    Column("KIND", "kind", wide=True),
)


@click.command()
@click.argument("node")
@socket_option
@output_option
def why(node: str, socket_path: str | None, output: str) -> None:
    """Say why NODE (a name, or an id in hex) is held as it is, as this node saw it.

    Oldest first: cases, votes with their class, withdrawals, verdicts, refutations. LOCAL HEALTH is how much
    this node distrusted itself at that moment; 0 is healthy.
    """
    answer = AdminClient(socket_path).get_json("/v1/why", node=node)
    if output in ("json", "yaml"):
        print_rows((), (), output, value=answer)
        return
    for line in headlines(answer):
        print_prose(line)
    rows = folded(answer["entries"])
    if rows:
        click.echo()
        print_rows(rows, COLUMNS, output)


def headlines(answer: Mapping[str, Any]) -> list[str]:
    """Return what stands above the table."""
    member = answer.get("member") or {}
    lines = [f"{answer['node']}, as {answer['seen_by']} sees it: {answer['summary']}."]
    if member:
        heard = member.get("heard_s")
        incarnation = ".".join(str(part) for part in member["order"][:2])
        word = "never heard by this node" if heard is None else f"last heard {duration_text(heard)} ago"
        if member.get("self"):
            word = "this node itself"
        line = f"Status {member['status']} for {duration_text(member['since_s'])}"
        lines.append(f"{line}, incarnation {incarnation}, {word}, its lag {member['lag_ms']} ms.")
    lines.append(
        f"This node now: local health {answer['local_health']} (0 is healthy), lag {answer['lag_ms']} ms."
    )
    return lines


def folded(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries with repetitions folded into one row that counts them."""
    rows: list[dict[str, Any]] = []
    for entry in entries:
        last = rows[-1] if rows else None
        names = ("kind", "by", "class", "local_health")
        if last is not None and all(last[name] == entry[name] for name in names):
            last["count"] += 1
        else:
            rows.append({**entry, "count": 1})
    return rows


def _what(row: Mapping[str, Any]) -> str:
    text = WORDS.get(str(row["kind"]), str(row["kind"]))
    return text if row["count"] == 1 else f"{text} (x{row['count']})"


def _ago(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return "-"
    return f"{seconds:.1f}s" if seconds < 60 else duration_text(seconds)


def _clock(wall: Any) -> str:
    if not isinstance(wall, int | float):
        return "-"
    return time.strftime("%m-%d %H:%M:%S", time.gmtime(wall)) + f".{int(wall * 10) % 10}"
