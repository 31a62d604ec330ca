"""Mutated bytes against whole cores: from strangers, and from a member whose keys are good."""

from typing import Any

import pytest

from tests.fuzz.budget import fuzz
from tests.fuzz.decoders import Target
from tests.fuzz.members import Pair, member_targets
from tests.fuzz.rivals import rival_targets
from tests.fuzz.test_decoders import TARGETS as OTHERS

TARGETS = [*member_targets(), *rival_targets()]


def test_the_shares_of_all_targets_are_the_whole() -> None:
    assert sum(target.share for target in [*TARGETS, *OTHERS]) == 1_000


def test_the_harness_speaks_as_a_member_does() -> None:
    """Without a mutation the victim takes packet, stream and answer; or nothing behind them is fuzzed."""
    dropped_before: dict[str, Any] = {}
    for target in TARGETS:
        if target.name in ("datagram-member", "stream-member", "stream-answer"):
            accepted = [target.feed(data) for data in target.corpus]
            assert len(accepted) == len(target.corpus)
    pair = Pair()
    pair.victim.receive_datagram(pair.packet(b"\x90"), pair.hostile_host.address, pair.tick())
    assert pair.victim.statistics().dropped == dropped_before


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_a_core_stands_what_it_is_sent(target: Target) -> None:
    """A core raises nothing; what it cannot use it counts."""
    fuzz(target)
