"""Mutated bytes against everything that reads bytes: declared exceptions, bounded work, flat memory."""

import pytest

from tests.fuzz.budget import fuzz
from tests.fuzz.certificates import certificate_targets
from tests.fuzz.decoders import Target, decoder_targets
from tests.fuzz.edges import edge_targets
from tests.fuzz.enrolment import enrolment_targets
from tests.fuzz.enrolment_fields import field_targets
from tests.fuzz.files import file_targets
from tests.fuzz.rolls import roll_targets
from tests.fuzz.signers import signer_targets

TARGETS = [
    *decoder_targets(),
    *certificate_targets(),
    *edge_targets(),
    *signer_targets(),
    *enrolment_targets(),
    *field_targets(),
    *file_targets(),
    *roll_targets(),
]


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_inputs_that_were_not_mutated_are_read(target: Target) -> None:
    """A corpus that is refused from the start would fuzz nothing behind the first check."""
    accepted_count = 0
    for data in target.corpus:
        try:
            target.feed(data)
        except target.declared:
            continue
        accepted_count += 1
    assert accepted_count


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_mutated_inputs_raise_what_is_declared_and_cost_what_is_bounded(target: Target) -> None:
    """Anything but what is declared propagates and names the seed."""
    fuzz(target)
