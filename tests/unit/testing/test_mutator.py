"""The mutator is deterministic, makes every kind of damage, and the fuzz loop notices what it should."""

import json
import random

import pytest

from gossipmesh.model.errors import MalformedInput
from gossipmesh.testing.mutator import Mutator
from gossipmesh.wire.codec import encode, unpack_untrusted
from tests.fuzz import budget
from tests.fuzz.decoders import Target

SOURCE = encode([1, "text", b"bytes" * 10, {"key": [1, 2, 3]}, None])


def mutants(seed: int, count: int = 2_000) -> list[bytes]:
    mutator = Mutator(random.Random(seed))
    return [mutator.mutate_mixed(SOURCE, [SOURCE]) for _ in range(count)]


def test_a_seed_makes_the_same_inputs_again() -> None:
    assert mutants(1) == mutants(1) != mutants(2)


def test_json_stays_json_for_the_most_part() -> None:
    """So that what is read behind the parser is tried, and not the parser alone."""
    source = json.dumps({"a": [1, "text", None], "b": {"c": True}}).encode()
    mutator = Mutator(random.Random(4))
    made = [mutator.mutate_json(source, [source]) for _ in range(2_000)]
    again = Mutator(random.Random(4))
    assert made == [again.mutate_json(source, [source]) for _ in range(2_000)]
    readable_count = 0
    for data in made:
        try:
            json.loads(data)
        except (ValueError, RecursionError):
            continue
        readable_count += 1
    assert 1_000 < readable_count < 1_900
    assert len(set(made)) > 800
    assert any(data.startswith(b'{"deep":' + b"[" * 1_000) for data in made)


def test_every_kind_of_damage_is_made() -> None:
    made = mutants(3)
    assert any(len(data) < len(SOURCE) // 2 for data in made)
    assert any(len(data) > 1_000 for data in made)
    assert any(b"\xdd\xff\xff\xff\xff" in data for data in made)
    assert any(b"\x91" * 13 in data for data in made)
    assert any(encode(2**64 - 1) in data for data in made)
    readable_count = 0
    for data in made:
        try:
            unpack_untrusted(data, bytes_max=100_000)
        except MalformedInput:
            continue
        readable_count += 1
    assert 200 < readable_count < 1_800


def target_of(feed: object) -> Target:
    return Target("toy", 20, "bytes", [SOURCE], feed, 1, 1)  # type: ignore[arg-type]


def test_the_loop_reports_a_foreign_exception_with_its_input() -> None:
    def feed(data: bytes) -> tuple[int, int]:
        if data.startswith(b"\x94"):
            raise KeyError("boom")
        return 0, 0

    with pytest.raises(AssertionError, match=r"toy, seed .1., input .*KeyError: .boom.: 94"):
        budget.fuzz(target_of(feed))


def test_the_loop_reports_work_over_the_bound() -> None:
    with pytest.raises(AssertionError, match="2 signature checks"):
        budget.fuzz(target_of(lambda data: (2, 0)))
    with pytest.raises(AssertionError, match="7 items"):
        budget.fuzz(target_of(lambda data: (0, 7)))


def test_the_loop_reports_memory_that_grows() -> None:
    kept: list[bytes] = []

    def feed(data: bytes) -> tuple[int, int]:
        kept.append(data * 200)
        return 0, 0

    with pytest.raises(AssertionError, match="bytes more"):
        budget.fuzz(target_of(feed))
