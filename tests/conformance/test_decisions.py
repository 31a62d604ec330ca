"""Questions that are none, and damaged ones: what `--decide` makes of them, asked of the function.

The vectors themselves are asked of the engine by the runner (test_reference.py).
"""

import copy
import json
import random
from typing import Any

import pytest

from gossipmesh.model.errors import MalformedInput
from gossipmesh.testing.conformance.decisions import vectors
from gossipmesh.traffic.decide import decide_untrusted


@pytest.mark.parametrize(
    "question", [None, [], {}, {"kind": "x"}, {"kind": "route"}, {"kind": "route", "input": {}}]
)
def test_what_is_no_question_is_refused(question: object) -> None:
    with pytest.raises(MalformedInput):
        decide_untrusted(question)


STRANGE: tuple[Any, ...] = (
    None,
    -1,
    2**70,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 300,
    [],
    {},
    [[]],
    True,
)


def mutate(value: Any, rng: random.Random) -> Any:
    """Replace or drop something somewhere inside."""
    if rng.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return rng.choice(STRANGE)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if rng.random() < 0.2:
        del value[key]
    else:
        value[key] = mutate(value[key], rng)
    return value


def test_a_damaged_question_is_answered_or_refused() -> None:
    """An engine asked nonsense on --decide must say so and go on with the next line."""
    rng = random.Random(11)
    refused = 0
    asked = [json.loads(line) for _, line, output in vectors() if output is not None]
    for _ in range(3_000):
        question = rng.choice(asked)
        given = mutate(copy.deepcopy(question["input"]), rng)
        try:
            decide_untrusted({"kind": question["kind"], "input": given})
        except MalformedInput:
            refused += 1
    assert refused > 500
