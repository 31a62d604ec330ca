"""YAML as people write it, read strictly, with the position of every value.

Spec: YAML 1.2.2, core schema (section 10.3.2), over PyYAML's libyaml events. It ends where shapes begin:
`check_shape` (`gossipmesh.wire.shape_check`) is re-exported here because every reader needs both.

Rules:
1. Only plain scalars are resolved, and by us: null, true, false, integers, floats, else text. `yes`,
   `on`, `1:20` and dates stay text; a number that YAML 1.1 and 1.2 read differently is refused.
2. Keys are text and occur once. Anchors, aliases, tags and merge keys are refused.
3. Size, depth and the count of values are bounded while reading, before anything is built.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import yaml

from gossipmesh.model import limits
from gossipmesh.wire.problems import Path, Problem, YamlErrors, format_path
from gossipmesh.wire.shape_check import check_shape

__all__ = ["Problem", "YamlDocument", "YamlErrors", "check_shape", "format_path", "parse_yaml_untrusted"]

_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE: Final = frozenset(("true", "True", "TRUE"))
_FALSE: Final = frozenset(("false", "False", "FALSE"))
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]+")
_INTEGER_DIGITS_MAX: Final = 20
_INTEGER_MAX: Final = 2**63 - 1


class Mark(NamedTuple):
    """Where a value and its key begin, counted from 1; `text` is a plain scalar's source."""

    line: int
    column: int
    key_line: int
    key_column: int
    text: str | None


class YamlDocument:
    """One document of a file: its value in plain Python types, and where each part of it stands."""

    __slots__ = ("_marks", "file", "value")

    def __init__(self, value: Any, file: str, marks: dict[Path, Mark]) -> None:
        self.value = value
        self.file = file
        self._marks = marks

    def position(self, path: Path) -> tuple[int, int]:
        """Return (line, column) of the value at `path`, or of its nearest existing ancestor."""
        mark = self._nearest(path)
        return mark.line, mark.column

    def key_position(self, path: Path) -> tuple[int, int]:
        """Return (line, column) of the key that leads to `path`; for list items and the top, of the value."""
        mark = self._nearest(path)
        return mark.key_line, mark.key_column

    def source_text(self, path: Path) -> str | None:
        """Return the plain scalar at `path` as it was written; None for anything else."""
        mark = self._marks.get(path)
        return None if mark is None else mark.text

    def problem(self, path: Path, code: str, message: str, *, at_key: bool = False) -> Problem:
        """Return a mistake at `path`, placed at its value or at its key."""
        line, column = self.key_position(path) if at_key else self.position(path)
        return Problem(self.file, line, column, format_path(path), code, message)

    def _nearest(self, path: Path) -> Mark:
        for length in range(len(path), 0, -1):
            mark = self._marks.get(path[:length])
            if mark is not None:
                return mark
        return self._marks.get((), Mark(1, 1, 1, 1, None))


def parse_yaml_untrusted(text: str, file: str) -> list[YamlDocument]:
    """Read every document of a YAML text; empty documents are left out.

    Args:
        text: at most limits.YAML_BYTES_MAX bytes of UTF-8, from anybody.
        file: the name problems carry.

    Raises:
        YamlErrors: every mistake found; a syntax error ends the search. Remote's fault. State unchanged.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise YamlErrors([Problem(file, 1, 1, "$", "GM1001", "the file is not UTF-8 text")]) from None
    if size > limits.YAML_BYTES_MAX:
        message = f"the file has {size} bytes, {limits.YAML_BYTES_MAX} are allowed: split it"
        raise YamlErrors([Problem(file, 1, 1, "$", "GM1002", message)])
    reader = _Reader(file)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.handle(event)
    except yaml.YAMLError as error:
        reader.problems.append(_syntax_problem(error, file))
    except _TooMuch:
        pass
    if reader.problems:
        raise YamlErrors(sorted(reader.problems, key=lambda problem: (problem.line, problem.column)))
    return reader.documents


class _TooMuch(Exception):
    """A limit was reached; the problem is already noted and reading stops."""


class _Frame:
    """A mapping or a list being read; `key` is the mapping key whose value comes next."""

    __slots__ = ("container", "key", "key_mark", "path")

    def __init__(self, container: dict[str, Any] | list[Any], path: Path) -> None:
        self.container = container
        self.path = path
        self.key: str | None = None
        self.key_mark: tuple[int, int] = (0, 0)

    def awaits_key(self) -> bool:
        return isinstance(self.container, dict) and self.key is None


class _Reader:
    """Builds values from parser events with a stack of its own: depth costs no recursion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.documents: list[YamlDocument] = []
        self.problems: list[Problem] = []
        self._frames: list[_Frame] = []
        self._marks: dict[Path, Mark] = {}
        self._values_count = 0
        self._unnamed_count = 0

    def handle(self, event: Any) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._marks = {}
        elif isinstance(event, yaml.CollectionEndEvent):
            self._frames.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._count(event)
            self._refuse_node_properties(event)
            if self._frames and self._frames[-1].awaits_key():
                self._take_key(event)
            else:
                self._take_value(event)

    def _count(self, event: Any) -> None:
        self._values_count += 1
        if self._values_count > limits.YAML_NODES_MAX:
            self._note(event, "GM1002", f"more than {limits.YAML_NODES_MAX} values in one file: split it")
            raise _TooMuch
        if len(self._frames) > limits.YAML_DEPTH_MAX:
            self._note(event, "GM1002", f"nested deeper than {limits.YAML_DEPTH_MAX}")
            raise _TooMuch
        if len(self.problems) >= limits.YAML_PROBLEMS_MAX:
            raise _TooMuch

    def _refuse_node_properties(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._note(event, "GM1004", f"`*{event.anchor}` is an alias: write the value out")
            return
        if event.anchor is not None:
            self._note(
                event, "GM1004", f"`&{event.anchor}` is an anchor: write the value out where it is used"
            )
        if event.tag is not None:
            self._note(
                event, "GM1005", f"`{event.tag[:80]}` is a tag: remove it, types follow from the field"
            )

    def _take_key(self, event: Any) -> None:
        frame = self._frames[-1]
        line, column = _position(event)
        key = event.value if isinstance(event, yaml.ScalarEvent) else None
        if key is None or (event.style in (None, "") and key in _NULL):
            self._note(event, "GM1008", "a key must be text")
            self._unnamed_count += 1
            key = f"?{self._unnamed_count}"
        elif key == "<<" and event.style in (None, ""):
            self._note(event, "GM1006", "`<<` is a merge key: write the fields out")
        elif key in frame.container:
            first = self._marks[(*frame.path, key)]
            message = f"the key was already given at line {first.key_line}: keep one of the two"
            self.problems.append(
                Problem(self.file, line, column, format_path((*frame.path, key)), "GM1003", message)
            )
        frame.key, frame.key_mark = key, (line, column)
        if not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            # A collection as a key: read on below a frame of its own, so that ends still pair up.
            self._frames.append(_Frame(_empty(event), (*frame.path, key)))

    def _take_value(self, event: Any) -> None:
        path, key_mark = self._place(event)
        text = event.value if isinstance(event, yaml.ScalarEvent) and event.style in (None, "") else None
        self._marks.setdefault(path, Mark(*_position(event), *key_mark, text))
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = event.value if text is None else self._resolve(event, text)
        elif isinstance(event, yaml.AliasEvent):
            value = None
        else:
            value = _empty(event)
        self._store(value)
        if isinstance(event, yaml.CollectionStartEvent):
            self._frames.append(_Frame(value, path))

    def _place(self, event: Any) -> tuple[Path, tuple[int, int]]:
        if not self._frames:
            return (), _position(event)
        frame = self._frames[-1]
        if isinstance(frame.container, list):
            return (*frame.path, len(frame.container)), _position(event)
        assert frame.key is not None
        return (*frame.path, frame.key), frame.key_mark

    def _store(self, value: Any) -> None:
        if not self._frames:
            if value is not None:
                self.documents.append(YamlDocument(value, self.file, self._marks))
            return
        frame = self._frames[-1]
        if isinstance(frame.container, list):
            frame.container.append(value)
        else:
            assert frame.key is not None
            frame.container.setdefault(frame.key, value)
            frame.key = None

    def _resolve(self, event: Any, text: str) -> Any:
        """Give a plain scalar its value by the core schema; null, true, false, numbers, else text."""
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _LEADING_ZERO.fullmatch(text):
            message = (
                f"`{text[:40]}` is octal to some readers and decimal to others: quote it, or drop the zero"
            )
            self._note(event, "GM1007", message)
            return text
        if _INTEGER.fullmatch(text) or _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
            number = int(text, 0) if len(text) <= _INTEGER_DIGITS_MAX else _INTEGER_MAX + 1
            if abs(number) > _INTEGER_MAX:
                self._note(event, "GM1007", f"`{text[:40]}` does not fit 64 bits: quote it if it is text")
            return number
        if _NOT_FINITE.fullmatch(text):
            self._note(event, "GM1007", f"`{text}` is no number a document can carry: quote it if it is text")
            return text
        if _FLOAT.fullmatch(text):
            real = float(text)
            if not math.isfinite(real):
                self._note(event, "GM1007", f"`{text[:40]}` overflows: quote it if it is text")
            return real
        return text

    def _note(self, event: Any, code: str, message: str) -> None:
        line, column = _position(event)
        path = self._frames[-1].path if self._frames else ()
        if self._frames:
            frame = self._frames[-1]
            if isinstance(frame.container, list):
                path = (*path, len(frame.container))
            elif frame.key is not None:
                path = (*path, frame.key)
        self.problems.append(Problem(self.file, line, column, format_path(path), code, message))


def _empty(event: Any) -> dict[str, Any] | list[Any]:
    return {} if isinstance(event, yaml.MappingStartEvent) else []


def _position(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _syntax_problem(error: yaml.YAMLError, file: str) -> Problem:
    line, column = 1, 1
    parts: Iterator[str | None] = iter((str(error).splitlines()[0],))
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        if mark is not None:
            line, column = mark.line + 1, mark.column + 1
        parts = iter((error.context, error.problem))
    message = ": ".join(part for part in parts if part)
    return Problem(file, line, column, "$", "GM1001", f"not readable as YAML: {message[:200]}")
