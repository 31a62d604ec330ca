"""Tables on narrow terminals: columns go by rank, words stay whole."""

import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

from gossipmesh.cli.fitting import cells_of, fit
from gossipmesh.cli.output import Column
from gossipmesh.cli.policy import STATUS_COLUMNS, status_rows
from gossipmesh.cli.proxy import SECTION_COLUMNS
from gossipmesh.cli.readers import ENDPOINT_COLUMNS, IDENTITY_COLUMNS, MEMBER_COLUMNS, SERVICE_COLUMNS
from gossipmesh.cli.why import COLUMNS as WHY_COLUMNS
from tests.unit.cli.test_readers import socket_path

__all__ = ["socket_path"]

MEMBERS = [
    {
        "name": f"database-{number}.fra1".replace(".", "-"),
        "status": "unattended",
        "phase": "restarting",
        "since_s": 90_000,
        "heard_s": 3,
        "reachability": "unreachable",
        "lag_ms": 120,
        "order": [3, 1_795_000_000, 4],
        "policies": [
            {
                "scope": "mesh",
                "version": 41,
                "hash": "ab" * 32,
                "refused_version": 42,
                "refused_hash": "cd" * 32,
                "refused_reason": "its signer may not sign for the scope 'mesh'",
            }
        ],
        "gossip_address": "10.100.200.30:7948",
        "self": number == 1,
    }
    for number in range(3)
]
SERVICES = [
    {"service": "shop/cart", "protocol": "http", "passing": 9, "endpoints": 12,
     "nodes": [f"database-{number}-fra1" for number in range(12)]},
]  # fmt: skip
ENDPOINTS = [
    {"node": "database-1-fra1", "registration": "cart-canary", "address": "10.100.200.30:15008",
     "health": "passing", "draining": True, "member_status": "unattended",
     "labels": {"version": "v2", "zone": "fra1-a", "team": "checkout"}},
]  # fmt: skip
WHY = [
    {"age_s": 12.5, "wall": 1_795_000_000.2, "by": "database-2-fra1", "kind": "vote-received", "count": 12,
     "class": "reset", "local_health": 0, "detail": "the port refused the connection twice in a second"},
]  # fmt: skip
SECTIONS = [{"name": "routes/cart.shop", "content": "rules: 12 entries, hostnames: 3 entries, retries: 4"}]
IDENTITIES = [
    {"spiffe_id": "spiffe://mesh.test/ns/shop/svc/cart", "not_before": 0, "not_after": 4_000_000_000}
]
TABLES: dict[str, tuple[Any, Any]] = {
    "members": (MEMBER_COLUMNS, MEMBERS),
    "services": (SERVICE_COLUMNS, SERVICES),
    "endpoints": (ENDPOINT_COLUMNS, ENDPOINTS),
    "why": (WHY_COLUMNS, WHY),
    "policy status": (STATUS_COLUMNS, status_rows(MEMBERS)),
    "proxy snapshot": (SECTION_COLUMNS, SECTIONS),
    "identity show": (IDENTITY_COLUMNS, IDENTITIES),
}


def table(name: str, width: int) -> tuple[list[str], list[str], set[str]]:
    """Return the lines, the titles left out, and every word of every cell."""
    columns, rows = TABLES[name]
    shown = [column for column in columns if not column.wide]
    cells = [[column.text(row) for column in shown] for row in rows]
    lines, left_out = fit(shown, cells, width)
    return lines, left_out, {word for row in cells for cell in row for word in re.split(r"(?<=,)|\s+", cell)}


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("name", list(TABLES))
def test_every_table_fits_and_no_word_is_broken(name: str, width: int) -> None:
    lines, _, words = table(name, width)
    assert max(cells_of(line) for line in lines) <= width
    for line in lines[1:]:
        for word in (part for part in re.split(r"(?<=,)|\s+", line) if part not in ("", "…")):
            assert word in words, line


@pytest.mark.parametrize("name", list(TABLES))
def test_a_wide_terminal_shows_everything_on_one_line_a_row(name: str) -> None:
    lines, left_out, _ = table(name, 400)
    assert left_out == []
    assert len(lines) == 1 + len(TABLES[name][1])


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("members", ["NAME", "STATUS"]),
        ("endpoints", ["NODE", "HEALTH"]),
        ("policy status", ["MEMBER", "VERSION"]),
    ],
)
def test_what_matters_most_stays_longest(name: str, first: list[str]) -> None:
    lines, left_out, _ = table(name, 34)
    assert all(title in lines[0] for title in first)
    assert not set(first) & set(left_out)


@pytest.mark.parametrize("width", [1, 5, 20, 33])
@pytest.mark.parametrize("name", list(TABLES))
def test_no_width_is_too_small_to_answer(name: str, width: int) -> None:
    lines, _, _ = table(name, width)
    assert lines


def test_columns_go_one_by_one_as_the_terminal_narrows() -> None:
    before: list[str] = []
    for width in range(200, 20, -1):
        _, left_out, _ = table("members", width)
        assert set(before) <= set(left_out)
        before = left_out


def test_a_word_wider_than_all_is_cut_and_says_so() -> None:
    lines, _ = fit([Column("NAME", "name")], [["x" * 63]], 20)
    assert lines[1] == "x" * 19 + "…"


def test_prose_is_bounded_in_height() -> None:
    cells = [[",".join(f"node-{number}" for number in range(500))]]
    lines, _ = fit([Column("NODES", "nodes", prose=True)], cells, 40)
    assert len(lines) == 9
    assert lines[-1].endswith("…")


def test_wide_letters_take_two_cells() -> None:
    assert (cells_of("節点"), cells_of("e\u0301"), cells_of("abc")) == (4, 1, 3)
    lines, _ = fit([Column("A", "a"), Column("B", "b")], [["節点", "x"], ["ab", "y"]], 80)
    assert lines == ["A     B", "節点  x", "ab    y"]


def test_no_rows_are_a_header() -> None:
    assert fit([Column("A", "a"), Column("B", "b")], [], 80) == (["A  B"], [])


@pytest.mark.parametrize("columns", [80, 60])
def test_a_real_terminal_gets_a_table_that_fits(socket_path: str, columns: int) -> None:
    """A pipe, and `-o wide`, get all of it; what a terminal does not get is said on stderr."""
    words = [sys.executable, "-P", "-m", "gossipmesh.cli.main", "members", "--socket", socket_path]
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "dumb"}
    leading, following = pty.openpty()
    result = subprocess.run(words, stdout=following, stderr=subprocess.PIPE, env=environment, timeout=60)
    os.close(following)
    printed = os.read(leading, 65_536).decode().replace("\r\n", "\n")
    os.close(leading)
    assert all(len(line) <= columns for line in printed.splitlines())
    assert b"left out for want of width" in result.stderr
    piped = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)
    assert "INCARNATION" in piped.stdout
    assert "left out" not in piped.stderr
