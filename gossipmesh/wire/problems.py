"""What is wrong in a file a person wrote: where, which value, which rule.

A code never changes its meaning and is never used again for another one; docs/POLICY.md has a
paragraph for each. GM1xxx refuse the file, GM2xxx only warn.
"""

import json
import re
from typing import Final

import msgspec

from gossipmesh.model.errors import MalformedInput

Path = tuple[str | int, ...]
"""Keys and indexes from the document's top to a value; () is the document itself."""

CODES: Final[dict[str, str]] = {
    "GM1001": "not readable as YAML",
    "GM1002": "too large, too deep or too many values",
    "GM1003": "a key given twice",
    "GM1004": "an anchor or an alias",
    "GM1005": "an explicit tag",
    "GM1006": "a merge key",
    "GM1007": "a number that readers disagree about",
    "GM1008": "a key that is not text",
    "GM1010": "unknown field",
    "GM1011": "wrong type",
    "GM1012": "missing field",
    "GM1013": "not one of the allowed values",
    "GM1014": "value out of bounds",
    "GM1015": "unknown kind or apiVersion",
    "GM1020": "the kind's own rules do not allow this",
    "GM1021": "a method nobody sends",
    "GM1022": "an identity that never calls here",
    "GM1023": "a path no request has",
    "GM1024": "an empty list that would mean anything",
    "GM1025": "a header value no request has",
    "GM1030": "the same document twice",
    "GM1031": "a reference to a document that does not exist",
    "GM1032": "still referred to by another document",
    "GM2001": "nobody serves this now",
    "GM2002": "shadowed by another rule",
    "GM2003": "requests that no rule takes",
}

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def format_path(path: Path) -> str:
    """Return `path` as people write it: `$.spec.rules[0].name`."""
    parts = ["$"]
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _PLAIN_KEY.fullmatch(step):
            parts.append(f".{step}")
        else:
            parts.append(f"[{json.dumps(step)}]")
    return "".join(parts)


class Problem(msgspec.Struct, frozen=True):
    """One mistake; `line` and `column` count from 1, `path` is written `$.spec.x`."""

    file: str
    line: int
    column: int
    path: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.path}: {self.message} [{self.code}]"


class YamlErrors(MalformedInput):
    """A file that says nothing that can be used; `problems` has every mistake found, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
