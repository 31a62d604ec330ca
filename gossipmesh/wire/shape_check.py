"""Every way in which a document misses its shape, at once; msgspec alone stops at the first.

The shape is a msgspec Struct and stays the only description: this walks `msgspec.inspect` of it. A
field the shape does not know is always a mistake here, because a person wrote it for a reason.
"""

import difflib
import operator
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import inspect

from gossipmesh.model import limits
from gossipmesh.wire.problems import Path, Problem

T = TypeVar("T")

_YAML_1_1_BOOLEANS = frozenset(("yes", "no", "on", "off", "y", "n"))
_SHOWN_CHARACTERS_MAX = 60


class Located(Protocol):
    """A value and the position of every part of it; `YamlDocument` is one."""

    value: Any

    def source_text(self, path: Path) -> str | None:
        """Return a plain scalar as it was written."""

    def problem(self, path: Path, code: str, message: str, *, at_key: bool = False) -> Problem:
        """Return a mistake with its position."""


def check_shape(document: Located, shape: type[T]) -> tuple[T | None, list[Problem]]:
    """Compare a document with `shape`; return the typed value, or None and every problem in file order.

    Problems: unknown fields (with the name that was probably meant), wrong types, missing fields, words
    outside an enumeration, bounds. At most limits.YAML_PROBLEMS_MAX of them.
    """
    value, problems, _ = salvage_shape(document, shape)
    return (None if problems else value), problems


def salvage_shape(document: Located, shape: type[T]) -> tuple[T | None, list[Problem], list[Path]]:
    """Do as `check_shape`, and return also what can be read of a document that misses its shape.

    What cannot be read is filled in with anything that fits, and its path is in the third value, so that
    rules about the rest can be checked in the same go. None where nothing can be saved.
    """
    described: Any = shape
    walk = _Walk(document)
    cleaned = walk.check(document.value, _type_of(described), ())
    value: T | None = None
    try:
        value = msgspec.convert(cleaned, shape, strict=True)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        # A rule of the shape that the walk does not know, such as a pattern or `__post_init__`.
        if not walk.problems:
            walk.problems.append(document.problem((), "GM1014", str(error)[:300]))
    walk.problems.sort(key=lambda problem: (problem.line, problem.column, problem.path))
    return value, walk.problems[: limits.YAML_PROBLEMS_MAX], walk.broken


@lru_cache(maxsize=64)
def _type_of(shape: Hashable) -> inspect.Type:
    return inspect.type_info(shape)


class _Walk:
    """One comparison; every check returns its value with the unreadable replaced by something that fits.

    Recursion is bounded by limits.YAML_DEPTH_MAX, which the reader enforced, and by the shape.
    """

    def __init__(self, document: Located) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.broken: list[Path] = []

    def check(self, value: Any, expected: inspect.Type, path: Path) -> Any:
        """Add the problems of `value` and of everything below it."""
        if isinstance(expected, inspect.Metadata):
            expected = expected.type
        if isinstance(expected, inspect.UnionType):
            return self._check_union(value, expected, path)
        if isinstance(expected, inspect.StructType):
            return self._check_struct(value, expected, path)
        if isinstance(expected, inspect.DictType):
            return self._check_mapping(value, expected, path)
        if isinstance(expected, _LISTS):
            return self._check_list(value, expected, path)
        if isinstance(expected, inspect.EnumType):
            return self._check_word(value, [member.value for member in expected.cls], path)
        if isinstance(expected, inspect.LiteralType):
            return self._check_word(value, list(expected.values), path)
        if not _scalar_fits(value, expected):
            return self._mismatch(value, expected, path)
        self._check_bounds(value, expected, path)
        return value

    def _check_union(self, value: Any, expected: inspect.UnionType, path: Path) -> Any:
        if value is None and any(isinstance(option, inspect.NoneType) for option in expected.types):
            return None
        options = [option for option in expected.types if not isinstance(option, inspect.NoneType)]
        structs = [option for option in options if isinstance(option, inspect.StructType)]
        if len(options) == 1:
            return self.check(value, options[0], path)
        if isinstance(value, dict) and len(structs) > 1:
            return self._check_tagged(value, structs, path)
        fitting = [option for option in options if _could_be(value, option)]
        if fitting:
            return self.check(value, fitting[0], path)
        return self._mismatch(value, expected, path)

    def _check_tagged(self, value: dict[str, Any], structs: list[inspect.StructType], path: Path) -> Any:
        by_tag = {struct.tag: struct for struct in structs}
        field = structs[0].tag_field or "kind"
        tag = value.get(field)
        struct = by_tag.get(tag) if isinstance(tag, str | int) else None
        if struct is not None:
            return self._check_struct(value, struct, path)
        if field not in value:
            self._note(path, "GM1012", f"`{field}` is missing, {_words(list(by_tag))} expected")
        else:
            self._check_word(tag, list(by_tag), (*path, field))
        return self._give_up(structs[0], path)

    def _check_struct(self, value: Any, expected: inspect.StructType, path: Path) -> Any:
        if not isinstance(value, dict):
            return self._mismatch(value, expected, path)
        cleaned: dict[str, Any] = {}
        fields = {field.encode_name: field for field in expected.fields}
        names = list(fields)
        if expected.tag_field is not None and expected.tag is not None:
            names.insert(0, expected.tag_field)
            if expected.tag_field not in value:
                self._note(path, "GM1012", f"`{expected.tag_field}` is missing, `{expected.tag}` expected")
            else:
                self._check_word(value[expected.tag_field], [expected.tag], (*path, expected.tag_field))
            cleaned[expected.tag_field] = expected.tag
        for name, field in fields.items():
            if name in value:
                cleaned[name] = self.check(value[name], field.type, (*path, name))
            elif field.required:
                self._note(path, "GM1012", f"`{name}` is missing, {_name_of(field.type)} expected")
                cleaned[name] = self._give_up(field.type, (*path, name))
        for name in value:
            if name not in names:
                self._note((*path, name), "GM1010", _unknown_field(name, names, value), at_key=True)
        return cleaned

    def _check_mapping(self, value: Any, expected: inspect.DictType, path: Path) -> Any:
        if not isinstance(value, dict):
            return self._mismatch(value, expected, path)
        self._check_length(len(value), expected, path, "entries")
        return {name: self.check(item, expected.value_type, (*path, name)) for name, item in value.items()}

    def _check_list(self, value: Any, expected: Any, path: Path) -> Any:
        if not isinstance(value, list):
            return self._mismatch(value, expected, path)
        if not isinstance(expected, inspect.TupleType):
            self._check_length(len(value), expected, path, "items")
            return [self.check(item, expected.item_type, (*path, index)) for index, item in enumerate(value)]
        if len(value) != len(expected.item_types):
            self._note(path, "GM1014", f"{len(expected.item_types)} items expected, found {len(value)}")
            return self._give_up(expected, path)
        pairs = zip(value, expected.item_types, strict=True)
        return [self.check(item, item_type, (*path, index)) for index, (item, item_type) in enumerate(pairs)]

    def _check_word(self, value: Any, allowed: list[Any], path: Path) -> Any:
        if any(value == word and type(value) is type(word) for word in allowed):
            return value
        hint = _closest(value, [str(word) for word in allowed]) if isinstance(value, str) else None
        guess = f", did you mean `{hint}`?" if hint and len(allowed) > 1 else ""
        self._note(path, "GM1013", f"{_words(allowed)} expected, found {self._found(value, path)}{guess}")
        self.broken.append(path)
        return allowed[0]

    def _check_bounds(self, value: Any, expected: Any, path: Path) -> None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            bounds = (("ge", ">=", operator.ge), ("gt", ">", operator.gt), ("le", "<=", operator.le))
            for name, sign, holds in (*bounds, ("lt", "<", operator.lt)):
                bound = getattr(expected, name, None)
                if bound is not None and not holds(value, bound):
                    self._note(path, "GM1014", f"a number {sign} {bound} expected, found {value}")
        elif isinstance(value, str):
            self._check_length(len(value), expected, path, "characters")

    def _check_length(self, length: int, expected: Any, path: Path, unit: str) -> None:
        least, most = getattr(expected, "min_length", None), getattr(expected, "max_length", None)
        if least is not None and length < least:
            self._note(path, "GM1014", f"at least {least} {unit} expected, found {length}")
        if most is not None and length > most:
            self._note(path, "GM1014", f"at most {most} {unit} expected, found {length}")

    def _mismatch(self, value: Any, expected: inspect.Type, path: Path) -> Any:
        message = f"{_name_of(expected)} expected, found {self._found(value, path)}"
        source = self.document.source_text(path)
        if source and isinstance(expected, inspect.StrType) and not isinstance(value, str):
            message = f'{message}: write "{source[:_SHOWN_CHARACTERS_MAX]}" in quotes'
        elif isinstance(expected, inspect.BoolType) and source and source.lower() in _YAML_1_1_BOOLEANS:
            message = f"{message}: `{source}` is text in YAML 1.2, write true or false"
        self._note(path, "GM1011", message)
        return self._give_up(expected, path)

    def _give_up(self, expected: inspect.Type, path: Path) -> Any:
        """Return a value that fits `expected`, and remember that it is not the document's."""
        self.broken.append(path)
        return _filler(expected)

    def _found(self, value: Any, path: Path) -> str:
        if value is None:
            return "nothing"
        if isinstance(value, dict):
            return "a mapping"
        if isinstance(value, list):
            return "a list"
        source = self.document.source_text(path)
        shown = str(value) if source is None else source
        if len(shown) > _SHOWN_CHARACTERS_MAX:
            shown = shown[:_SHOWN_CHARACTERS_MAX] + "..."
        if isinstance(value, bool):
            return f"`{shown}`"
        return f"{'text' if isinstance(value, str) else 'a number'} `{shown}`"

    def _note(self, path: Path, code: str, message: str, *, at_key: bool = False) -> None:
        self.problems.append(self.document.problem(path, code, message, at_key=at_key))


_LISTS = (
    inspect.ListType,
    inspect.VarTupleType,
    inspect.TupleType,
    inspect.SetType,
    inspect.FrozenSetType,
)


def _scalar_fits(value: Any, expected: inspect.Type) -> bool:
    if isinstance(expected, inspect.StrType):
        return isinstance(value, str)
    if isinstance(expected, inspect.BoolType):
        return isinstance(value, bool)
    if isinstance(expected, inspect.IntType):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(expected, inspect.FloatType):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(expected, inspect.NoneType):
        return value is None
    return True


def _filler(expected: inspect.Type) -> Any:
    """Return the least value of a type: what stands in for a part of a document that cannot be read."""
    if isinstance(expected, inspect.Metadata):
        expected = expected.type
    if isinstance(expected, inspect.UnionType):
        empty = any(isinstance(option, inspect.NoneType) for option in expected.types)
        return None if empty else _filler(expected.types[0])
    if isinstance(expected, inspect.StructType):
        filled = {field.encode_name: _filler(field.type) for field in expected.fields if field.required}
        if expected.tag_field is not None and expected.tag is not None:
            filled[expected.tag_field] = expected.tag
        return filled
    if isinstance(expected, inspect.EnumType):
        return next(iter(expected.cls)).value
    if isinstance(expected, inspect.LiteralType):
        return expected.values[0]
    if isinstance(expected, inspect.DictType):
        return {}
    if isinstance(expected, _LISTS):
        return []
    fillers: tuple[tuple[type[inspect.Type], Any], ...] = (
        (inspect.StrType, "x"),
        (inspect.BoolType, False),
        (inspect.IntType, 1),
        (inspect.FloatType, 1.0),
    )
    return next((filler for kind, filler in fillers if isinstance(expected, kind)), None)


def _could_be(value: Any, expected: inspect.Type) -> bool:
    if isinstance(expected, inspect.Metadata):
        expected = expected.type
    if isinstance(expected, inspect.StructType | inspect.DictType):
        return isinstance(value, dict)
    if isinstance(expected, _LISTS):
        return isinstance(value, list)
    if isinstance(expected, inspect.EnumType | inspect.LiteralType):
        return isinstance(value, str | int)
    return _scalar_fits(value, expected)


def _name_of(expected: inspect.Type) -> str:
    if isinstance(expected, inspect.Metadata):
        expected = expected.type
    if isinstance(expected, inspect.UnionType):
        names = [_name_of(item) for item in expected.types if not isinstance(item, inspect.NoneType)]
        return " or ".join(dict.fromkeys(names))
    if isinstance(expected, inspect.EnumType):
        return _words([member.value for member in expected.cls])
    if isinstance(expected, inspect.LiteralType):
        return _words(list(expected.values))
    if isinstance(expected, inspect.StructType | inspect.DictType):
        return "a mapping"
    if isinstance(expected, _LISTS):
        return "a list"
    names_by_type: tuple[tuple[type[inspect.Type], str], ...] = (
        (inspect.StrType, "text"),
        (inspect.BoolType, "true or false"),
        (inspect.IntType, "a whole number"),
        (inspect.FloatType, "a number"),
        (inspect.NoneType, "nothing"),
    )
    return next((name for kind, name in names_by_type if isinstance(expected, kind)), "another type")


def _words(allowed: list[Any]) -> str:
    return " or ".join(f"`{word}`" for word in allowed)


def _unknown_field(name: str, names: list[str], present: dict[str, Any]) -> str:
    hint = _closest(name, [other for other in names if other not in present])
    if hint is not None:
        return f"unknown field, did you mean `{hint}`?"
    return f"unknown field, known here: {', '.join(names)}"


def _closest(name: str, candidates: list[str]) -> str | None:
    folded = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(name[:_SHOWN_CHARACTERS_MAX].lower(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None
