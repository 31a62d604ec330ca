"""Every decision vector, answered by this engine's decisions.

Another engine is held to the same files: `ENGINE --decide` reads one question per line.
"""

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.model.errors import MalformedInput
from gossipmesh.traffic.decide import decide_untrusted

VECTORS = Path(__file__).parent / "vectors" / "decision"


def questions() -> list[Any]:
    """Return one parameter per vector: kind, input (with the file's common part) and output."""
    found = []
    for path in sorted(VECTORS.glob("*.json")):
        document = json.loads(path.read_text())
        for vector in document["vectors"]:
            given = {**document["common"], **vector["input"]}
            found.append(
                pytest.param(
                    document["kind"], given, vector["output"], id=f"{document['kind']}: {vector['name']}"
                )
            )
    return found


@pytest.mark.parametrize(("kind", "given", "expected"), questions())
def test_decision(kind: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert decide_untrusted({"kind": kind, "input": given}) == expected


def test_all_kinds_have_vectors() -> None:
    kinds = {json.loads(path.read_text())["kind"] for path in VECTORS.glob("*.json")}
    assert kinds == {"route", "balance", "eject", "retry", "authorize"}


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
    vectors = [parameter.values for parameter in questions()]
    for _ in range(3_000):
        kind, given, _ = rng.choice(vectors)
        try:
            decide_untrusted({"kind": kind, "input": mutate(copy.deepcopy(given), rng)})
        except MalformedInput:
            refused += 1
    assert refused > 500
