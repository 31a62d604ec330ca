"""Decisions: each file's questions, one line each, to one `ENGINE --decide`; answers must be equal."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from gossipmesh.testing.conformance import files
from gossipmesh.testing.conformance.engine import decided
from gossipmesh.testing.conformance.outcome import Outcome

KIND = "decisions"


def vectors() -> Iterator[tuple[str, str, Any]]:
    """Yield each question's name, its line, and the answer; None where there must be an `error`."""
    for path in sorted((files.SPEC / "decisions").glob("*.json")):
        document = json.loads(path.read_text())
        for vector in document["vectors"]:
            given = {**document["common"], **vector["input"]}
            line = json.dumps({"kind": document["kind"], "input": given})
            yield f"{path.stem}/{vector['name']}", line, vector["output"]
    for question in files.read("encodings/no-questions.json"):
        yield f"no question/{question['name']}", question["line"], None


async def play(command: Sequence[str]) -> list[Outcome]:
    """Ask all of them."""
    asked = list(vectors())
    answers = await decided(command, "".join(f"{line}\n" for _, line, _ in asked).encode())
    found = [*answers, *[b""] * (len(asked) - len(answers))]
    return [
        Outcome(KIND, name, _fault(expected, answer))
        for (name, _, expected), answer in zip(asked, found, strict=False)
    ]


def _fault(expected: Any, line: bytes) -> str:
    try:
        answer = json.loads(line)
    except ValueError:
        return f"answered {line[:100]!r}, which is no JSON"
    if expected is None:
        return "" if isinstance(answer, dict) and list(answer) == ["error"] else f"answered {answer}"
    return "" if answer == expected else f"answered {answer}, not {expected}"
