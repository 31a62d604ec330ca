"""How many inputs a run makes in all, and the one loop that makes them."""

import ctypes
import gc
import os
import random
from pathlib import Path
from typing import Any

from gossipmesh.testing.mutator import Mutator
from tests.fuzz.decoders import MUTATORS, Target

INPUTS_COUNT = int(os.environ.get("GOSSIPMESH_FUZZ_INPUTS", "100000"))
DECODER_INPUTS_MIN = int(os.environ.get("GOSSIPMESH_FUZZ_DECODER_INPUTS", "50"))
SEED = os.environ.get("GOSSIPMESH_FUZZ_SEED", "1")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
GROWTH_BYTES_MAX = 8 * 1024 * 1024  # allocator noise; far below what a leak of the inputs would take


def resident_bytes() -> int:
    """Return what this process holds in memory now: garbage collected, and free pages given back.

    Without the latter a million inputs of all sizes look like a leak: glibc keeps what lies between blocks
    in use.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other libraries give back by themselves
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def fuzz(target: Target) -> int:
    """Feed a target its share of all inputs, a decoder its own least number; return how many it accepted.

    The first fifth warms caches and memos, then memory may not grow.
    """
    least_count = 50 if target.is_whole else DECODER_INPUTS_MIN
    inputs_count = max(least_count, INPUTS_COUNT * target.share // 1_000)
    rng = random.Random(f"{SEED}/{target.name}")
    mutator = Mutator(rng)
    resident_before = 0
    accepted_count = 0
    for number in range(inputs_count):
        if number == inputs_count // 5:
            resident_before = resident_bytes()
        accepted_count += _feed(target, number, _mutated(target, mutator, rng))
    grown_bytes = resident_bytes() - resident_before
    assert grown_bytes < GROWTH_BYTES_MAX, f"{grown_bytes} bytes more after {inputs_count} inputs"
    return accepted_count


def _mutated(target: Target, mutator: Mutator, rng: random.Random) -> Any:
    return MUTATORS[target.mutation](mutator, rng.choice(target.corpus), target.corpus)


def _feed(target: Target, number: int, data: Any) -> bool:
    try:
        checks, items = target.feed(data)
    except target.declared:
        return False
    except Exception as error:
        shown = data if isinstance(data, str) else data.hex()
        what = f"{type(error).__name__}: {error}: {shown[:4000]}"
        raise AssertionError(f"{target.name}, seed {SEED!r}, input {number}: {what}") from error
    assert checks <= target.checks_max, f"input {number}: {checks} signature checks"
    assert items <= target.items_max, f"input {number}: {items} items"
    return True
