"""The verdict of a soak follows from its evidence alone, and each thing that is wrong is named."""

from typing import Any

import pytest

from chaos.soak_checks import is_ok, judge

PID = 7


def series(per_sample: float = 0.0, pid: int = PID, recorded: float = 0.0) -> list[list[float]]:
    """Return a process's samples: seconds, pid, MB, descriptors, MB of the flight recorder."""
    return [[5.0 * n, pid, 40.0 + (per_sample + recorded) * n, 20.0, recorded * n] for n in range(240)]


def load(*failures: dict[str, Any], sent: int = 1_000) -> dict[str, Any]:
    return {"sent": sent, "answered": sent, "failures": list(failures)}


def failure(**fields: Any) -> dict[str, Any]:
    return {"node": "node1", "authority": "web.shop", "at_s": 1.0, **fields}


def evidence(**fields: Any) -> dict[str, Any]:
    good = {
        "length_s": 1_200.0,
        "poor": "node5",
        "requests": load(),
        "mixed": load(),
        "sheds": {"node1": {"local_told_full": 3.0}},
        "sessions": [{"how": "asked"}, {"how": "told"}],
        "processes": {"engine of node1": series(), "agent of node1": series()},
        "tracebacks": [],
        "floods": [{"name": "idle-proxy", "opened": 5}],
        "pushes": [{"node": "node1", "ok": True, "excused": False, "said": ""}],
        "disk": [{}],
        "hangups": [{}],
        "access_logs": {"node1": {"rotated": True, "bytes": 10, "bytes_max": 20}},
        "unfinished": [],
    }
    return good | fields


def wrong(seen: dict[str, Any]) -> list[str]:
    return [check["check"] for check in judge(seen) if not check["ok"]]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"requests": load(failure(flag="UO", status=503))},
        {"requests": load(failure(node="node5", error="closed before an answer"))},  # it made way
        {"mixed": load(failure(kind="post", status=503))},  # it cannot be made twice
        {"pushes": [{"node": "node1", "ok": False, "excused": True, "said": "no room"}]},
        {"length_s": 120.0, "processes": {"engine of node1": series(0.05)}},
        {"processes": {"agent of node1": series(recorded=0.02)}},  # bounded by itself
    ],
)
def test_a_good_soak_is_good(fields: dict[str, Any]) -> None:
    assert is_ok(judge(evidence(**fields))), wrong(evidence(**fields))


@pytest.mark.parametrize(
    ("fields", "check"),
    [
        ({"requests": load(failure(flag="UH", status=503))}, "requests_succeed"),
        ({"requests": load(failure(error="closed before an answer"))}, "requests_succeed"),
        ({"mixed": load(failure(kind="stream", status=0))}, "requests_succeed"),
        ({"requests": load(*[failure(flag="UO")] * 4)}, "requests_succeed"),  # more than is counted
        ({"requests": load(failure(flag="UO"), sent=10), "mixed": load(sent=10)}, "requests_succeed"),
        ({"requests": load() | {"answered": 999}}, "requests_succeed"),
        ({"sessions": [{"how": "asked"}, {"how": "silent"}]}, "sessions_are_told"),
        ({"sessions": [{"how": "told"}]}, "sessions_are_told"),
        ({"processes": {"engine of node1": series(0.05)}}, "memory_and_descriptors_are_flat"),
        (
            {"processes": {"agent of node1": [[n, PID, 40.0, n, 0.0] for n in range(120)]}},
            "memory_and_descriptors_are_flat",
        ),
        ({"processes": {"engine of node1": [*series()[:9], *series(pid=8)]}}, "engines_stay"),
        ({"tracebacks": [{"log": "x", "lines": []}]}, "nothing_raised"),
        ({"floods": [{"name": "idle-proxy", "opened": 0}]}, "everything_happened"),
        ({"hangups": []}, "everything_happened"),
        ({"pushes": [{"node": "node1", "ok": False, "excused": False, "said": "x"}]}, "everything_happened"),
        (
            {"access_logs": {"node1": {"rotated": False, "bytes": 1, "bytes_max": 20}}},
            "everything_happened",
        ),
        (
            {"access_logs": {"node1": {"rotated": True, "bytes": 21, "bytes_max": 20}}},
            "everything_happened",
        ),
        ({"unfinished": ["members are not alive"]}, "members_agree"),
    ],
)
def test_what_is_wrong_is_found_by_its_check(fields: dict[str, Any], check: str) -> None:
    assert wrong(evidence(**fields)) == [check]


def test_of_an_agent_that_was_started_again_the_longest_life_counts() -> None:
    samples = [[5.0 * n, 3, 100.0 + n, 20.0, 0.0] for n in range(20)]
    samples += [[sample[0] + 100, *sample[1:]] for sample in series(pid=9)]
    samples += [[5.0 * n + 1_300, 11, 40.0 + n, 20.0, 0.0] for n in range(3)]
    assert wrong(evidence(processes={"agent of node4": samples})) == []
