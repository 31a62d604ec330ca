"""YAML is read strictly, and every mistake comes with its place."""

import random
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from gossipmesh.model import limits
from gossipmesh.model.policy import HTTPRoute
from gossipmesh.wire.problems import CODES
from gossipmesh.wire.yaml_source import YamlErrors, check_shape, parse_yaml_untrusted


class Level(StrEnum):
    LOW = "low"
    HIGH = "high"


class Inner(msgspec.Struct, frozen=True, rename="camel"):
    bind_address: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 80


class Shape(msgspec.Struct, frozen=True, tag_field="kind", tag="Shape"):
    name: str
    level: Level = Level.LOW
    inner: Inner | None = None
    ratio: float = 0.5
    enabled: bool = True
    labels: dict[str, str] = {}
    items: tuple[Inner, ...] = ()


def parse_one(text: str) -> Any:
    (document,) = parse_yaml_untrusted(text, "a.yaml")
    return document.value


def problems_of(text: str) -> list[tuple[int, int, str, str]]:
    with pytest.raises(YamlErrors) as caught:
        parse_yaml_untrusted(text, "a.yaml")
    return [(p.line, p.column, p.path, p.code) for p in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("12", 12),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("1:20", "1:20"),
        ("0b11", "0b11"),
        ("2026-01-01", "2026-01-01"),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("'0777'", "0777"),
        ('"true"', "true"),
        ("|\n  12\n", "12\n"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    parsed = parse_one(f"a: {text}")["a"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 0777", (1, 4, "$.a", "GM1007")),
        ("a: .inf", (1, 4, "$.a", "GM1007")),
        ("a: 1e999", (1, 4, "$.a", "GM1007")),
        ("a: 99999999999999999999", (1, 4, "$.a", "GM1007")),
        ("a: 1\nb: 2\na: 3", (3, 1, "$.a", "GM1003")),
        ("a: 1\n'a': 3", (2, 1, "$.a", "GM1003")),
        ("a: &x 1", (1, 4, "$.a", "GM1004")),
        ("a: !!str 1", (1, 4, "$.a", "GM1005")),
        ("a:\n  <<: {b: 1}", (2, 3, "$.a", "GM1006")),
        ("? [1, 2]\n: 3", (1, 3, "$", "GM1008")),
        ("~: 3", (1, 1, "$", "GM1008")),
        ("a: [1,\nb: 2", (3, 1, "$", "GM1001")),
        ("a: \x01", (1, 1, "$", "GM1001")),
        ("\ud800", (1, 1, "$", "GM1001")),
    ],
)
def test_what_readers_disagree_about_is_refused(text: str, expected: tuple[int, int, str, str]) -> None:
    assert problems_of(text) == [expected]


def test_an_alias_bomb_costs_nothing() -> None:
    text = "a: &a [x, x]\n" + "".join(
        f"b{i}: &b{i} [*{'a' if i == 0 else f'b{i - 1}'}, *a]\n" for i in range(9)
    )
    assert {code for _, _, _, code in problems_of(text)} == {"GM1004"}


def test_limits_are_met_before_anything_is_built() -> None:
    assert problems_of("x" * (limits.YAML_BYTES_MAX + 1)) == [(1, 1, "$", "GM1002")]
    assert [code for *_, code in problems_of("[" * 500 + "]" * 500)] == ["GM1002"]
    assert [code for *_, code in problems_of("- 1\n" * (limits.YAML_NODES_MAX + 1))] == ["GM1002"]


def test_problems_are_bounded() -> None:
    assert len(problems_of("- 01\n" * 5_000)) == limits.YAML_PROBLEMS_MAX


def test_a_file_holds_many_documents_and_empty_ones_are_left_out() -> None:
    documents = parse_yaml_untrusted("---\na: 1\n---\n---\n# nothing\n---\nb: 2\n", "a.yaml")
    assert [document.value for document in documents] == [{"a": 1}, {"b": 2}]
    assert documents[1].position(("b",)) == (7, 4)
    assert documents[1].key_position(("b",)) == (7, 1)


def test_positions_fall_back_to_the_nearest_ancestor() -> None:
    (document,) = parse_yaml_untrusted("a:\n  b:\n    - c: 1\n", "a.yaml")
    assert document.position(("a", "b", 0, "c")) == (3, 10)
    assert document.position(("a", "b", 0, "missing", "x")) == (3, 7)


def check(text: str, shape: type) -> tuple[Any, list[str]]:
    (document,) = parse_yaml_untrusted(text, "a.yaml")
    value, problems = check_shape(document, shape)
    return value, [str(problem) for problem in problems]


def test_a_document_that_fits_becomes_its_type() -> None:
    text = (
        "kind: Shape\nname: x\nlevel: high\nratio: 1\ninner: {bindAddress: '::1'}\nitems:\n- bindAddress: b\n"
    )
    value, problems = check(text, Shape)
    assert problems == []
    assert value == Shape(name="x", level=Level.HIGH, ratio=1.0, inner=Inner("::1"), items=(Inner("b"),))


def test_five_mistakes_are_reported_at_once_with_their_places() -> None:
    text = (
        "kind: Shape\n"
        "nane: x\n"
        "level: hihg\n"
        "enabled: yes\n"
        "labels: {version: 1.10}\n"
        "items:\n"
        "- bindAddres: b\n"
        "  port: 70000\n"
    )
    value, problems = check(text, Shape)
    assert value is None
    assert problems == [
        "a.yaml:1:1: $: `name` is missing, text expected [GM1012]",
        "a.yaml:2:1: $.nane: unknown field, did you mean `name`? [GM1010]",
        "a.yaml:3:8: $.level: `low` or `high` expected, found text `hihg`, did you mean `high`? [GM1013]",
        "a.yaml:4:10: $.enabled: true or false expected, found text `yes`: `yes` is text in YAML 1.2, "
        "write true or false [GM1011]",
        "a.yaml:5:19: $.labels.version: text expected, found a number `1.10`: "
        'write "1.10" in quotes [GM1011]',
        "a.yaml:7:3: $.items[0]: `bindAddress` is missing, text expected [GM1012]",
        "a.yaml:7:3: $.items[0].bindAddres: unknown field, did you mean `bindAddress`? [GM1010]",
        "a.yaml:8:9: $.items[0].port: a number <= 65535 expected, found 70000 [GM1014]",
    ]


@pytest.mark.parametrize(
    "value", ["[1]", "text", "12", "{spec: [1]}", "{spec: {rules: {a: 1}}}", "{metadata: }"]
)
def test_no_value_surprises_the_walk(value: str) -> None:
    typed, problems = check(value, HTTPRoute)
    assert typed is None
    assert problems


def test_mutated_files_raise_only_what_is_declared() -> None:
    rng = random.Random(7)
    codes: set[str] = set()
    source = (Path(__file__).parents[3] / "configs/policies/shop-cart-canary.yaml").read_text()
    for _ in range(1_500):
        text = list(source)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(text))
            text[at : at + rng.randint(0, 3)] = rng.choice(
                ["", "&", "*", "[", "{", "- ", ":", "\n", "\t", "\x00", "!"]
            )
        try:
            documents = parse_yaml_untrusted("".join(text), "a.yaml")
        except YamlErrors as error:
            codes.update(problem.code for problem in error.problems)
            continue
        for document in documents:
            typed, problems = check_shape(document, HTTPRoute)
            assert (typed is None) == bool(problems)
            codes.update(problem.code for problem in problems)
    assert {"GM1001", "GM1004", "GM1010", "GM1013"} <= codes <= CODES.keys()
