"""The gossip benchmark's parts that read and write: logs, counters, rows, the page, the verdict."""

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.gossip import rows
from bench.gossip.chapters import CHAPTERS
from bench.gossip.day import Tale
from bench.gossip.day import main as live_days
from bench.gossip.elsewhere import read_agent, read_chaos, read_memory, read_tests
from bench.gossip.field import HEADER_BYTES, read_links
from bench.gossip.healing import DIFFERENCES_COUNT
from bench.gossip.kept import by_seed, cores_told, publish, read_lines, recall
from bench.gossip.model import spread
from bench.gossip.observe import (
    ALIVE,
    DEAD,
    STARTED,
    Book,
    Sighting,
    Stamper,
    Tail,
    read_agent_line,
    read_kinship_line,
    read_serf_line,
)
from bench.gossip.report import render, verdict
from bench.gossip.row import VIRTUAL, WALL, Row
from bench.gossip.virtual import PLANS
from gossipmesh.agent.logs import JsonFormatter, fields
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS


def agent_line(message: str, **told: str) -> str:
    """Write a line as the agent does."""
    import logging

    record = logging.LogRecord("gossipmesh.agent", logging.INFO, "", 0, message, (), None)
    record.created = 1_790_000_000.25
    record.__dict__.update(fields(**told))
    return JsonFormatter().format(record)


def test_an_agents_own_lines_are_read() -> None:
    """The agent's formatter writes them, so a change there shows here."""
    line = agent_line("member is dead", member="n5", previous="alive")
    assert read_agent_line("n1", line) == Sighting(1_790_000_000.25, "n1", "n5", DEAD)
    started = read_agent_line("n1", agent_line("started", node="n1"))
    assert started is not None
    assert started.status == STARTED
    for other in ("", "no JSON", "[]", '{"message": 3}', agent_line("ready"), agent_line("member is dead")):
        assert read_agent_line("n1", other) is None


@pytest.mark.parametrize(
    ("line", "subject", "status"),
    [
        ("1790000000.500000     2026/11/23 05:12:51 [INFO] serf: EventMemberJoin: n5 10.71.0.5", "n5", ALIVE),
        (
            "1790000000.500000     2026/11/23 05:12:51 [INFO] serf: EventMemberFailed: n5 10.71.0.5",
            "n5",
            DEAD,
        ),
        (
            "1790000000.500000     2026/11/23 05:12:51 [INFO] serf: EventMemberLeave: n5 10.71.0.5",
            "n5",
            "left",
        ),
        ("1790000000.500000 ==> Serf agent running!", "", STARTED),
    ],
)
def test_serfs_stamped_lines_are_read(line: str, subject: str, status: str) -> None:
    assert read_serf_line("n1", line) == Sighting(1_790_000_000.5, "n1", subject, status)
    assert read_serf_line("n1", line.partition(" ")[2]) is None, "a line without its stamp has no time"


def test_kinship_lines_are_read() -> None:
    line = json.dumps({"at_s": 5.5, "status": "dead", "member": "n2"})
    assert read_kinship_line("n1", line) == Sighting(5.5, "n1", "n2", DEAD)
    assert read_kinship_line("n1", "WARN kinship: something") is None


def test_a_tail_returns_whole_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.lines() == []
    path.write_text("one\ntw")
    assert tail.lines() == ["one"]
    with path.open("a") as file:
        file.write("o\nthree\n")
    assert tail.lines() == ["two", "three"]
    assert tail.lines() == []


def book_of(*sightings: Sighting) -> Book:
    book = Book()
    for sighting in sightings:
        book.add(sighting)
    return book


def test_the_book_knows_what_each_observer_holds_now() -> None:
    book = book_of(
        Sighting(1, "a", "", STARTED),
        Sighting(2, "a", "b", ALIVE),
        Sighting(2, "c", "b", ALIVE),
        Sighting(5, "a", "b", DEAD),
        Sighting(6, "c", "b", DEAD),
        Sighting(7, "a", "b", DEAD),
        Sighting(6, "c", "a", DEAD),
        Sighting(6, "b", "a", DEAD),
    )
    assert book.missing(DEAD, ["a", "c"], ["b"], 4) == 0
    assert book.missing(DEAD, ["a", "c"], ["b"], 6.5) == 1
    assert book.times(DEAD, ["a", "c"], "b", 4) == [5, 6], "the first time of each observer counts"
    assert book.deaths(4, but="b", by=["a", "c"]) == ["c held a dead"], "the victim's own view is not counted"
    book.add(Sighting(8, "a", "", STARTED))
    assert book.missing(DEAD, ["a"], ["b"], 0) == 1, "who starts again has forgotten"


def test_the_stamper_puts_the_time_before_each_line(tmp_path: Path) -> None:
    import os

    read, write = os.pipe()
    stamper = Stamper()
    with os.fdopen(read, "rb") as pipe:
        stamper.add(pipe, tmp_path / "stamped")
        os.write(write, b"one\ntwo")
        os.write(write, b"\n")
        os.close(write)
        tail, lines = Tail(tmp_path / "stamped"), []
        for _ in range(100_000):
            lines += tail.lines()
            if len(lines) == 2:
                break
        stamper.close()
    assert [line.partition(" ")[2] for line in lines] == ["one", "two"]
    assert all(float(line.partition(" ")[0]) > 1_700_000_000 for line in lines)


def test_links_are_read_by_node() -> None:
    text = (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n"
        "    lo:   10    1    0    0    0     0          0         0       10       1    0    0\n"
        "   gm7: 4200   100    0    0    0     0          0         0     9999      55    0    0\n"
    )
    assert read_links(text) == {"n7": (4200, 100)}


def a_round(every_s: float, **more: Any) -> dict[str, Any]:
    return {
        "victim": "n2",
        "first_s": every_s - 0.1,
        "median_s": every_s - 0.05,
        "every_s": every_s,
        "others_dead": [],
        **more,
    }


def a_group(every_s: float) -> dict[str, Any]:
    return {
        "version": "gossipmesh 1",
        "nodes": 40,
        "join": [{"join_s": 1.0}],
        "idle": {
            "seconds": 20.0,
            "wire_bytes_per_s": 500.0,
            "packets_per_s": 5.0,
            "cpu_percent": 0.3,
            "cpu_percent_engine": 0.1,
            "rss_mb": 45.0,
            "pss_mb": 30.0,
            "pss_mb_engine": 20.0,
        },
        "kill": [a_round(every_s), a_round(every_s + 0.2)],
        "silent": [a_round(every_s, back_s=0.1)],
        "pause": [
            {"paused_s": 2.0, "held_dead_by": 0, "back_s": None, "others_dead": []},
            {"paused_s": 10.0, "held_dead_by": 39, "back_s": 0.2, "others_dead": []},
        ],
    }


def a_day(**figures: Any) -> dict[str, Any]:
    return {
        "nodes": 100,
        "loss": 0.01,
        "seed": 1,
        "detector": None,
        "chapters": ["idle"],
        "core": "aa",
        "figures": figures,
        "failures": [],
        "others_dead": [],
        "virtual_s": 100.0,
        "events": 1_000,
        "events_per_s": 30_000,
        "cpu_s": 1.0,
    }


def results_of(**changes: Any) -> dict[str, Any]:
    results: dict[str, Any] = {"machine": "2 cores", "nodes": 40, "groups": {}, "problems": {}, "virtual": {}}
    return results | changes


def row_of(results: dict[str, Any], figure: str, clock: str, part: str = "") -> Row:
    return next(
        row
        for row in rows.build_rows(results)
        if (row.figure, row.clock) == (figure, clock) and part in row.name
    )


def test_nothing_measured_is_never_met() -> None:
    results = results_of()
    made = rows.build_rows(results)
    assert {row.met for row in made} == {None}
    assert not verdict(made)["ok"]
    assert "not measured" in render(results, made)


def test_every_figure_asked_for_has_a_row() -> None:
    asked = {*range(1, 10), *range(12, 23), 28, 29}
    assert {int(row.figure[1:]) for row in rows.build_rows(results_of())} == asked


@pytest.mark.parametrize(("every_s", "met"), [(1.2, True), (1.45, False)])
def test_the_last_member_of_the_median_run_counts(every_s: float, met: bool) -> None:
    results = results_of(groups={"gossipmesh": a_group(every_s), "serf": a_group(8.0)})
    row = row_of(results, "G1", WALL)
    assert row.met is met
    assert f"max {every_s + 0.2:.2f}" in row.ours
    assert row.peer.startswith("serf: median 8.10")


def test_one_run_that_not_everybody_noticed_is_a_miss() -> None:
    group = a_group(1.0)
    group["kill"].append({"victim": "n3", "missed": "2 of 39 do not see n3 dead", "others_dead": []})
    row = row_of(results_of(groups={"gossipmesh": group}), "G1", WALL)
    assert row.met is False
    assert "2 of 39" in row.evidence


def test_a_death_of_somebody_else_is_a_miss_and_is_named() -> None:
    group = a_group(1.0)
    group["kill"][1]["others_dead"] = ["n4 held n9 dead"]
    row = row_of(results_of(groups={"gossipmesh": group}), "G5", WALL)
    assert row.met is False
    assert row.ours == "1 in 5 runs (n4 held n9 dead)"


def test_one_join_that_was_not_whole_in_time_is_a_miss_and_is_told() -> None:
    group = a_group(1.0)
    assert row_of(results_of(groups={"gossipmesh": group}), "G15", WALL).met is True
    late = group | {"join": [{"join_s": 1.0}, {"missed": "3 pairs do not see each other"}]}
    row = row_of(results_of(groups={"gossipmesh": late, "serf": late}), "G15", WALL)
    assert row.met is False
    assert "not whole 1x: 3 pairs" in row.ours
    assert "not whole 1x: 3 pairs" in row.peer


def test_headers_are_taken_off_what_a_link_carried() -> None:
    idle = a_group(1.0)["idle"]
    assert rows.payload_bytes_per_s(idle) == 500 - 5 * HEADER_BYTES


def test_a_miss_is_explained_where_something_is_known() -> None:
    results = results_of(groups={"gossipmesh": a_group(1.0)})
    results["groups"]["gossipmesh"]["idle"]["cpu_percent"] = 1.1
    page = render(results, rows.build_rows(results))
    assert "## Why missed" in page
    assert "the agent wakes some ten times a second" in page
    results["groups"]["gossipmesh"]["idle"]["cpu_percent"] = 0.1
    assert "the agent wakes some ten times a second" not in render(results, rows.build_rows(results))


def test_a_short_pause_may_kill_nobody() -> None:
    group = a_group(1.0)
    assert row_of(results_of(groups={"gossipmesh": group}), "G7", WALL).met is True
    group["pause"][0]["held_dead_by"] = 3
    assert row_of(results_of(groups={"gossipmesh": group}), "G7", WALL).met is False


def test_a_peer_that_could_not_run_says_why() -> None:
    results = results_of(groups={"gossipmesh": a_group(1.0)}, problems={"serf": "serf is not installed"})
    assert "serf is not installed" in row_of(results, "G1", WALL).peer
    assert "serf did not take part" in render(results, rows.build_rows(results))


def test_all_nodes_of_all_seeds_make_one_quantile() -> None:
    quick = a_day(killed=[0.5, 0.7, 0.7, 1.2])
    slow = a_day(killed=[0.5, 0.7, 1.9, 4.0])
    assert row_of(results_of(virtual={"days": [quick]}), "G1", VIRTUAL).met is True
    row = row_of(results_of(virtual={"days": [quick, slow]}), "G1", VIRTUAL)
    assert row.met is False
    assert "p50 0.70, p99 4.00, last 4.00 s (2 seeds; slowest p50 of one 0.70)" in row.ours
    assert "max 3.50" in row_of(results_of(virtual={"days": [quick, slow]}), "G4", VIRTUAL).ours


def test_a_chapter_that_failed_is_a_miss() -> None:
    day = a_day() | {"failures": ["partition: not everyone is alive on everyone after 60 s"]}
    row = row_of(results_of(virtual={"days": [day]}), "G17", VIRTUAL, "60 s")
    assert row.met is False
    assert "not everyone is alive" in row.ours


def a_cell(**changes: Any) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "nodes": 50,
        "loss": 5.0,
        "starved": 10.0,
        "stamped": True,
        "detector": "monitors",
        "runs": 20,
        "bad_runs": 0,
        "false_doubts": 2.5,
        "bytes_per_s": 1_900,
        "first_s": [3.4, 3.6, 3.9],
        "every_s": [3.5, 6.0, 8.0],
    }
    return cell | changes


def test_the_grid_fills_three_rows_and_stamps_decide_the_gate() -> None:
    swim = a_cell(detector="swim", bad_runs=7, false_doubts=150.0)
    results = results_of(grid=[a_cell(), swim])
    false_deaths = row_of(results, "G5", VIRTUAL)
    assert (false_deaths.met, false_deaths.ours) == (None, "0 of 20 runs"), "one cell is not the grid"
    assert false_deaths.word() == "too little measured"
    whole = [
        a_cell(nodes=nodes, loss=float(loss), starved=float(starved))
        for nodes in (50, 200)
        for loss in (1, 3, 5)
        for starved in (0, 1, 5, 10)
    ]
    assert row_of(results_of(grid=whole), "G5", VIRTUAL).met is True
    assert row_of(results_of(grid=whole[:12]), "G5", VIRTUAL).met is None, "half of the grid is not the grid"
    whole[3]["runs"] = 19
    assert row_of(results_of(grid=whole), "G5", VIRTUAL).met is None
    assert false_deaths.peer.endswith("7 of 20 runs")
    assert row_of(results, "G6", VIRTUAL).met is True
    assert row_of(results, "G13", VIRTUAL).met is False
    assert row_of(results_of(grid=[a_cell(stamped=False)]), "G13", VIRTUAL).met is True
    assert row_of(results_of(grid=[a_cell(bad_runs=1)]), "G5", VIRTUAL).met is False


def test_the_grid_stands_cell_by_cell_beside_swim_and_a_row_tells_the_worst_of_them() -> None:
    swim = a_cell(detector="swim", runs=2, bad_runs=1, false_doubts=150.0, every_s=[9.5, 12.0, 13.0])
    alone = a_cell(starved=0.0, loss=1.0, false_doubts=0.05, bytes_per_s=345, every_s=[3.4, 3.7, 3.8])
    results = results_of(grid=[a_cell(), swim, alone])
    page = render(results, rows.build_rows(results))
    cells = [line for line in page.splitlines() if line.startswith("| 50 |")]
    assert cells == [
        "| 50 | 0 % | 1 % | 20 / 0 | 3.40 / 3.60 / 3.90 | 3.40 / 3.70 / 3.80 | - | 0 / - "
        "| 0.05 / - | 345 / - |",
        "| 50 | 10 % | 5 % | 20 / 2 | 3.40 / 3.60 / 3.90 | 3.50 / 6.00 / 8.00 | 9.50 / 12.00 / 13.00 | 0 / 1 "
        "| 2.5 / 150 | 1,900 / 1,900 |",
    ]
    known = row_of(results, "G2", VIRTUAL, "grid")
    assert known.ours == "50 nodes: p50 3.40 to 3.50, p99 3.70 to 6.00, last 3.80 to 8.00 s (40 runs)"
    assert "## Kinship's grid" not in render(results_of(), rows.build_rows(results_of()))


def test_what_other_commands_show_is_taken_only_when_given() -> None:
    given = {"ours": "0 of 480", "met": True, "evidence": "the grid"}
    row = row_of(results_of(elsewhere={"attacks": given}), "G22", VIRTUAL)
    assert (row.ours, row.met) == ("0 of 480", True)


def test_what_other_commands_print_is_read() -> None:
    printed = {
        "members": 10_000,
        "rss_mb": 61.0,
        "rss_peak_mb": 64.0,
        "bytes_per_member": 2_900,
        "records_bytes": 621,
        "cpu_s": 2.5,
        "step_ms_max": 21.0,
        "steps": 600,
        "steps_over_5_ms": 3,
    }
    told = read_memory(f"noise\n{json.dumps(printed, indent=1)}")
    assert (told["memory"]["met"], told["joining"]["met"]) == (True, False)
    assert read_tests("...\n12 passed in 3.1s", "tests/x.py")["met"] is True
    assert read_tests("1 failed, 12 passed in 3.1s", "tests/x.py")["met"] is False
    assert read_tests("no tests ran", "tests/x.py")["met"] is False


def test_what_the_whole_agent_costs_is_read() -> None:
    printed = {
        "members": 10_000,
        "rss_mb": 68.0,
        "rss_alone_mb": 44.0,
        "peak_mb": 74.5,
        "bytes_per_member": 2_400,
        "record_bytes": 640,
        "join_s": 9.0,
        "join_cpu_s": 6.5,
        "busy_stalls": 1,
        "longest_busy_ms": 23.0,
        "longest_busy_task": "gossip",
        "longest_ms": 120.0,
        "load": 7.5,
    }
    told = read_agent(f"noise\n{json.dumps(printed)}\n")
    assert (told["agent-memory"]["met"], told["agent-joining"]["met"]) == (True, False)
    row = row_of(results_of(elsewhere=told), "G19", WALL, "an agent")
    assert "peak 74 (44 alone); 2,400 B a member" in row.ours


def test_what_a_chaos_scenario_found_is_told() -> None:
    checks: list[dict[str, Any]] = [
        {"check": "finally_all_alive", "ok": True, "problems": []},
        {"check": "anytime_victim_never", "ok": False, "problems": ["n2 held n5 dead", "n3 held n5 dead"]},
    ]
    printed = {
        "ok": False,
        "seed": 3,
        "checks": checks,
        "evidence": {"requests": {"failed": 2, "sent": 2_000}},
    }
    told = read_chaos(json.dumps(printed), "upgrade-all")
    assert told["met"] is False
    assert told["ours"] == "1 of 2 checks hold, 2 of 2,000 requests failed; n2 held n5 dead"


def test_the_verdict_has_the_shape_that_was_promised() -> None:
    made = rows.build_rows(results_of(groups={"gossipmesh": a_group(1.0)}, virtual={"days": [a_day()]}))
    told = json.loads(json.dumps(verdict(made)))
    assert set(told) == {"ok", "rows"}
    assert all(set(row) == {"name", "ours", "peer", "gate", "met", "evidence"} for row in told["rows"])
    assert told["ok"] is False, "a gate that was not measured was not met"
    measured = [row for row in made if row.met]
    assert verdict(measured)["ok"] is True
    assert verdict([])["ok"] is False


def test_the_page_is_a_table_whatever_a_cell_says() -> None:
    group = a_group(1.0)
    group["kill"].append({"victim": "n3", "missed": "a | b\nc", "others_dead": []})
    results = results_of(groups={"gossipmesh": group})
    page = render(results, rows.build_rows(results))
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert "gossipmesh, kill, last member, s: 1.00, 1.20, -" in page


def test_a_story_counts_only_with_its_whole_row() -> None:
    heal = {
        "scenario": "heal-no-eviction",
        "nodes": 12,
        "seed": 1,
        "ok": True,
        "failures": [],
        "measured": {},
    }
    name = "a heal removes"
    assert row_of(results_of(stories=[heal]), "G17", VIRTUAL, name).met is None
    minority = heal | {"scenario": "minority"}
    assert row_of(results_of(stories=[heal, minority]), "G17", VIRTUAL, name).met is True
    minority |= {"ok": False, "failures": ["n4 is dead"]}
    row = row_of(results_of(stories=[heal, minority]), "G17", VIRTUAL, name)
    assert row.met is False
    assert row.ours.endswith("minority, 12 nodes: seed 1: n4 is dead (1 seeds)")


def test_a_scenario_that_holds_and_takes_long_is_a_miss() -> None:
    parted = {"scenario": "partition-10-min", "nodes": 12, "seed": 1, "ok": True, "failures": []}
    stories = [
        parted | {"measured": {"equal_roots_s": 1.1}},
        parted | {"scenario": "partition-day", "measured": {"equal_roots_s": 5.5}},
    ]
    assert row_of(results_of(stories=stories[:1]), "G17", VIRTUAL, "live on").met is None
    row = row_of(results_of(stories=stories), "G17", VIRTUAL, "live on")
    assert row.met is False
    assert "at most 5.50 s" in row.ours


def test_all_changes_of_all_seeds_make_one_quantile() -> None:
    """Two slow ones of a hundred are above the 99th percentile's place, one is not."""
    quick = [a_day(record={"most_s": [0.1] * 50, "last_s": 0.4})] * 2
    assert row_of(results_of(virtual={"days": quick}), "G9", VIRTUAL, "record").met is True
    one = a_day(record={"most_s": [0.1] * 49 + [0.9], "last_s": 0.9})
    assert row_of(results_of(virtual={"days": [quick[0], one]}), "G9", VIRTUAL, "record").met is True
    row = row_of(results_of(virtual={"days": [one, one]}), "G9", VIRTUAL, "record")
    assert row.met is False
    assert "p99 0.90 s, all nodes 0.90 s at most (100 changes, 2 seeds)" in row.ours


def test_the_model_of_ten_thousand_stands_beside_what_the_cores_did() -> None:
    model = {"nodes": 10_000, "loss": 0.05, "most_s": [0.1, 0.2, 0.21]}
    day = a_day(record={"most_s": [0.1, 0.3], "last_s": 0.4}) | {"nodes": 1_000, "loss": 0.05}
    row = row_of(results_of(virtual={"days": [day], "models": [model]}), "G9", VIRTUAL, "a model")
    assert (row.met, row.ours) == (True, "10,000 nodes, 5% loss: p50 0.20, p99 0.21 s (3 changes)")
    assert row.evidence.endswith("1,000 nodes, 5% loss: p50 0.10, p99 0.30 s")


@pytest.mark.parametrize(("nodes", "loss"), [(2, 0.0), (60, 0.0), (300, 0.25)])
def test_a_modelled_record_reaches_most(nodes: int, loss: float) -> None:
    """Without loss the first forwarding needs a few hops of 1 to 3 ms; with much, a few ticks."""
    times = [spread(nodes, loss, random.Random(seed)) for seed in range(5)]
    assert all(MILLISECOND_NS <= time < SECOND_NS for time in times)


def test_many_crashes_are_judged_where_the_gate_was_set() -> None:
    crashes = {"count": 10, "p50_bytes": 9_000, "p99_bytes": 40_000, "max_bytes": 50_000, "every_s": 4.0}
    small = a_day(crashes=crashes)
    large = a_day(crashes=crashes | {"p99_bytes": 15_000}) | {"nodes": 1_000}
    assert row_of(results_of(virtual={"days": [small]}), "G14", VIRTUAL).met is False
    row = row_of(results_of(virtual={"days": [small, large]}), "G14", VIRTUAL)
    assert row.met is True
    assert "p99 40.0 KB/s" in row.ours


def test_the_simulators_speed_is_said_of_one_kind_of_day() -> None:
    calm = a_day() | {"chapters": ["calm"], "events_per_s": 24_000}
    busy = a_day() | {"chapters": ["join"], "events_per_s": 4_000}
    row = row_of(results_of(virtual={"days": [calm, busy]}), "G29", VIRTUAL)
    assert (row.met, row.ours) == (True, "median 24,000, min 24,000 (1 seeds)")
    assert row_of(results_of(virtual={"days": [busy]}), "G29", VIRTUAL).met is None


def test_the_spread_of_news_is_judged_where_the_gate_was_set() -> None:
    small = a_day(silent=[3.0, 3.3])
    large = a_day(silent=[3.0, 3.1]) | {"nodes": 1_000}
    assert row_of(results_of(virtual={"days": [small]}), "G4", VIRTUAL).met is False
    assert row_of(results_of(virtual={"days": [small, large]}), "G4", VIRTUAL).met is True


def test_differences_have_one_quantile_and_larger_meshes_their_own_gate() -> None:
    days = [a_day(divergence_s=[1.0] * 99), a_day(divergence_s=[3.4])]
    assert row_of(results_of(virtual={"days": days}), "G18", VIRTUAL).met is True
    assert row_of(results_of(virtual={"days": [*days, days[1]]}), "G18", VIRTUAL).met is False
    heal = a_day(heal_600_s={"equal_s": 9.0, "alive_s": 9.0, "declared": 0, "endpoints": [4, 4]})
    assert row_of(results_of(virtual={"days": [heal]}), "G17", VIRTUAL, "apart for 10 min").met is False
    assert (
        row_of(
            results_of(virtual={"days": [heal | {"nodes": 1_000}]}), "G17", VIRTUAL, "apart for 10 min"
        ).met
        is True
    )


def test_the_page_says_when_parts_are_of_different_behaviours() -> None:
    results = results_of(cores={"wall clock": "aa", "grid": "bb"})
    assert "wall clock: aa, grid: bb" in render(results, rows.build_rows(results))
    results["cores"]["grid"] = "aa"
    assert "All of one behaviour" in render(results, rows.build_rows(results))


def test_days_of_this_core_are_shown_before_those_of_another() -> None:
    lines = [{"seed": 1, "core": "new"}, {"seed": 1, "core": "old"}, {"seed": 2, "core": "old"}]
    found = by_seed([*lines, {"seed": 9, "core": "new"}], "new", 3)
    assert [told["core"] for told in found.values()] == ["new", "old"]
    assert cores_told(found.values()) == "new (1 of 2) and old (1 of 2)"


def test_plans_name_chapters_that_exist_and_begin_with_a_mesh() -> None:
    assert all(name in CHAPTERS for plan in PLANS for name in plan.chapters)
    assert all("join" not in plan.chapters[1:] for plan in PLANS)


def test_what_is_published_is_taken_over_by_a_fresh_clone_and_published_again(tmp_path: Path) -> None:
    evidence, out = tmp_path / "evidence", tmp_path / "out"
    older = {"nodes": 50, "loss": 1.0, "detector": "swim", "seed": 1, "core": "old", "seen_s": [3.5]}
    newer = older | {"core": "new", "seen_s": [3.4]}
    alone = older | {"seed": 2}
    out.mkdir()
    (out / "grid.jsonl").write_text("".join(json.dumps(told) + "\n" for told in (older, newer, older, alone)))
    publish("new", evidence, out)
    assert read_lines(evidence / "grid.jsonl") == [newer, alone]

    fresh = tmp_path / "fresh"
    for _ in range(2):  # the second time there is nothing to take over
        recall(evidence, fresh)
        assert read_lines(fresh / "grid.jsonl") == [newer, alone]
        assert read_lines(fresh / "gossip-days.jsonl") == []


def test_a_day_of_six_nodes_is_lived_and_kept(tmp_path: Path) -> None:
    """Every chapter that a small mesh can go through, each day a fork of one primed mesh."""
    out = tmp_path / "days.jsonl"
    tales = [Tale(0.01, 1, ("idle", "record", "killed")), Tale(0.0, 2, ("divergence", "partition"))]
    words = [json.dumps(msgspec.to_builtins(tale)) for tale in [*tales, Tale(0.0, 1, ("join",))]]
    assert live_days(["--nodes", "6", "--out", str(out), *words]) == 0
    days = read_lines(out)
    assert [day["failures"] for day in days] == [[], [], []]
    assert set(days[0]["figures"]) == {"quiet_after_s", "idle_bytes_per_s", "record", "killed"}
    assert len(days[1]["figures"]["divergence_s"]) == DIFFERENCES_COUNT
    assert days[1]["figures"]["heal_60_s"]["endpoints"] == [36, 36]
    assert 0 < days[2]["figures"]["join_s"] < 10
