"""What is made of an agent's own word that it is cut off."""

import json

import pytest

from gossipmesh.testing.agent_log import ISOLATED, StatusDeclared, read_agent_log
from gossipmesh.testing.isolations import (
    eventually_isolation_is_known,
    isolation_known_s,
    isolations_known_s,
)
from tests.unit.testing.test_request_checkers import cut, evidence


def said(at_s: float, node: str = "n1") -> StatusDeclared:
    return StatusDeclared(at_s, node, node, ISOLATED)


def test_an_agent_says_of_itself_that_it_is_isolated() -> None:
    line = {"time": "2026-01-01T00:00:12.5+00:00", "message": "isolated: this node hears nobody"}
    start_wall_s = 1_767_225_600.0
    declared, _ = read_agent_log(json.dumps(line).encode(), "n1", start_wall_s)
    assert declared == [said(12.5)]


@pytest.mark.parametrize(
    ("times", "known", "holds"),
    [
        ((11.5, 31.9), [1.5, 1.9], True),
        ((11.5, 34.0), [1.5, 4.0], False),
        ((11.5,), [1.5, None], False),
        ((11.5, 31.9, 99.0), [1.5, 1.9], False),
    ],
)
def test_each_cut_is_known_soon_and_nothing_else_is(
    times: tuple[float, ...], known: list[float | None], holds: bool
) -> None:
    node = cut(10.0).node
    seen = evidence(faults=(cut(10.0), cut(30.0)))
    seen.declared.extend(said(at_s, node) for at_s in times)
    assert isolations_known_s(seen) == known
    assert (eventually_isolation_is_known(seen, within_s=2.0) == []) is holds
    results = [{"measures": {"isolations_known_s": known}}, {"measures": {}}]
    assert isolation_known_s(results) == sorted(seconds for seconds in known if seconds is not None)


def test_a_run_in_which_nobody_was_cut_off_shows_nothing() -> None:
    assert eventually_isolation_is_known(evidence(), within_s=2.0)
