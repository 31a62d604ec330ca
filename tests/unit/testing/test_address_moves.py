"""What is made of moves: when others had the address, and since when all traffic flowed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from chaos.run import moved_s
from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.address_moves import eventually_who_moved_is_found, move, moves_s
from gossipmesh.testing.evidence import Evidence, FaultFired
from gossipmesh.testing.load import Outcome
from gossipmesh.testing.mesh import Mesh


def moved(at_s: float, gap_s: float = 0.5, found_after_s: float | None = 0.3) -> FaultFired:
    detail = {"gap_s": gap_s, "found_after_s": found_after_s, "began_s": at_s - gap_s}
    return FaultFired(at_s, "move", "n2", count=1, detail=detail)


def outcome(at_s: float, **fields: Any) -> Outcome:
    return Outcome(**{"at_s": at_s, "node": "n1", "authority": "web.shop", "error": "TimeoutError", **fields})


def evidence(
    *failures: Outcome, faults: Sequence[FaultFired] = (moved(10.0), moved(30.0, 5.0)), **more: Any
) -> Evidence:
    requests = {"sent": 100, "answered": 100, "failures": [msgspec.to_builtins(one) for one in failures]}
    return Evidence("moved", 1, nodes=["n1", "n2"], faults=list(faults), requests=requests, **more)


def problems(seen: Evidence) -> list[str]:
    return eventually_who_moved_is_found(seen, within_s=10.0, sent_min=50)


def test_traffic_flows_once_no_request_fails_or_is_slow_that_is_sent_later() -> None:
    slow = outcome(34.0, status=200, latency_ms=700.0, error="")
    seen = evidence(outcome(9.6), outcome(12.5), outcome(26.0), slow=[slow])
    assert [(row["flows_after_s"], row["disturbed"]) for row in moves_s(seen)] == [(2.5, 2), (4.0, 2)]
    assert problems(seen) == []


def test_what_fails_before_a_move_is_no_fault_of_it() -> None:
    assert [row["flows_after_s"] for row in moves_s(evidence(outcome(5.0)))] == [0.0, 0.0]


@pytest.mark.parametrize(
    "seen",
    [
        evidence(outcome(20.5)),
        evidence(faults=(moved(10.0, found_after_s=None),)),
        evidence(faults=(moved(10.0, found_after_s=10.5),)),
        evidence(faults=()),
    ],
)
def test_a_move_that_took_too_long_or_never_was_is_told(seen: Evidence) -> None:
    assert problems(seen)


def test_few_requests_prove_nothing() -> None:
    assert eventually_who_moved_is_found(evidence(), within_s=10.0, sent_min=101)


def test_runs_are_summed_up_gap_by_gap() -> None:
    runs = [{"measures": {"moves_s": moves_s(evidence(outcome(10.0 + late_s)))}} for late_s in (1, 2, 3)]
    told = moved_s([*runs, {"measures": {}}])
    assert told["flows_after_s gap 0.5"] == {"runs": 3, "p50": 2.0, "max": 3.0}
    assert told["found_after_s gap 5"] == {"runs": 3, "p50": 0.3, "max": 0.3}


async def test_a_node_of_a_fixed_address_is_not_moved(tmp_path: Path) -> None:
    with Mesh(directory=tmp_path) as mesh, pytest.raises(OperatorError, match="addresses"):
        await move(cast(Any, mesh), "node2", 0.0, 1.0)
