"""The verdict of `bench.under_attack` follows from the raw figures of its own row."""

from typing import Any

import pytest

from bench.under_attack import figures_of, judged, problems_of

WINDOWS: list[dict[str, Any]] = [
    {
        "quiet": [10.0 * n, 10.0 * n + 2],
        "growing": [10.0 * n + 2.5, 10.0 * n + 3.9],
        "attack": [10.0 * n + 4, 10.0 * n + 6],
        "floods": [{"opened": 5}],
    }
    for n in range(5)
]


def outcomes(quiet_ms: float, attack_ms: list[float], growing_ms: float = 2.0) -> list[dict[str, Any]]:
    """Return ten requests in each stretch, all of one latency."""
    return [
        {"at_s": window[kind][0] + 0.1 * step, "latency_ms": latency_ms, "error": ""}
        for window, slow_ms in zip(WINDOWS, attack_ms, strict=True)
        for kind, latency_ms in (("quiet", quiet_ms), ("growing", growing_ms), ("attack", slow_ms))
        for step in range(10)
    ]


def row(**fields: Any) -> dict[str, Any]:
    client = judged(outcomes(2.0, [4.0] * 5), WINDOWS)
    pids = {"engine of caller": {"pid": 7, "rss_mb": 28.0}}
    good = {
        "clients": {"requests": client},
        "rounds": WINDOWS,
        "processes": {"before": pids, "after": pids},
        "metrics_bytes": {"before": 1_000, "after": 1_100},
    }
    return good | fields


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    seen = judged(outcomes(2.0, [4.0, 40.0, 2.0, 6.0, 400.0]), WINDOWS)
    assert seen["ratios"]["attack"] == [2.0, 20.0, 1.0, 3.0, 200.0]
    assert seen["medians"] == {"growing": 1.0, "attack": 3.0}
    assert seen["ratio"] == 3.0
    assert (seen["quiet_p99_ms"], seen["attack_p99_ms"], seen["sent"]) == (2.0, 6.0, 150)


def test_a_round_without_requests_is_no_good_round() -> None:
    empty = [outcome for outcome in outcomes(2.0, [2.0] * 5) if outcome["at_s"] < 40.0]
    assert judged(empty, WINDOWS)["ratio"] == float("inf")
    assert figures_of([], 0.0, 1.0)["count"] == 0


def test_a_good_row_has_no_problems() -> None:
    assert problems_of(row()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"clients": {"requests": judged(outcomes(2.0, [7.0] * 5), WINDOWS)}},
        {"clients": {"requests": judged(outcomes(2.0, [2.0] * 5, growing_ms=7.0), WINDOWS)}},
        {"clients": {"requests": judged(outcomes(2.0, [2.0] * 5), WINDOWS) | {"failures": [{"error": "x"}]}}},
        {
            "processes": {
                "before": {"engine of caller": {"pid": 7, "rss_mb": 28.0}},
                "after": {"engine of caller": {"pid": 8, "rss_mb": 28.0}},
            }
        },
        {"processes": {"before": {"engine of caller": {"pid": 7, "rss_mb": 28.0}}, "after": {}}},
        {
            "processes": {
                "before": {"engine of caller": {"pid": 7, "rss_mb": 28.0}},
                "after": {"engine of caller": {"pid": 7, "rss_mb": 39.0}},
            }
        },
        {"metrics_bytes": {"before": 1_000, "after": 2_100}},
        {"rounds": [{"floods": [{"opened": 0, "answers": {}}]}]},
        {"rounds": [{"floods": [{}]}]},
    ],
)
def test_whatever_is_wrong_is_one_problem(change: dict[str, Any]) -> None:
    assert len(problems_of(row(**change))) == 1
