"""Rows of a check follow from their mark."""

import pytest

from gossipmesh.agent.admin.check_rows import Mark, clock_mark, make_row, some_of


@pytest.mark.parametrize(("mark", "well"), [(Mark.OK, True), (Mark.WARN, True), (Mark.FAIL, False)])
def test_only_a_failure_is_not_ok(mark: Mark, well: bool) -> None:
    row = make_row("disk", mark, "what", "why", "how", free_bytes=3)
    assert (row["mark"], row["ok"], row["evidence"]) == (str(mark), well, {"free_bytes": 3})
    assert (row["why"], row["hint"]) == (("", "") if mark is Mark.OK else ("why", "how"))


@pytest.mark.parametrize(
    ("skew_s", "mark"),
    [(0, Mark.OK), (9, Mark.OK), (-9, Mark.OK), (10, Mark.WARN), (-59, Mark.WARN), (60, Mark.FAIL),
     (-9_000, Mark.FAIL)],
)  # fmt: skip
def test_a_clock_is_judged_either_way(skew_s: int, mark: Mark) -> None:
    assert clock_mark(skew_s) is mark


def test_many_names_are_counted() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(f"n{number}" for number in range(12)).endswith("n9 and 2 more")
