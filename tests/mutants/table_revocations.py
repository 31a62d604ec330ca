"""Mutants of key sets and tombstones: who may publish which keys, and who is a member no more."""

from typing import Final

from tests.mutants.mutate import Mutant, mutant

_TOMBSTONES: Final = "tests/unit/gossip/test_tombstones.py::"
_KEYS: Final = "tests/unit/gossip/test_key_sets.py::"
_CREDENTIALS: Final = "gossip.membership.credentials"

REVOCATION_MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "tombstone-by-serial",
        _CREDENTIALS,
        "int(credential.is_tombstone), credential.serial",
        "0, credential.serial",
        _TOMBSTONES + "test_it_is_held_in_whatever_order_it_comes",
        "a renewal brings a revoked node back",
    ),
    mutant(
        "trust-revokes-nobody",
        _CREDENTIALS,
        "generation <= trust.revoked.get(name, -1)",
        "generation < trust.revoked.get(name, -1)",
        _TOMBSTONES + "test_whom_trust_revokes_is_gone_everywhere_and_ends_when_it_learns_so",
        "the very generation that Trust revokes goes on",
    ),
    mutant(
        "generation-without-end",
        "gossip.membership.soundness",
        "if credential.generation > wall_s + DAY_S or credential.serial > wall_s + DAY_S:",
        "if credential.serial > wall_s + DAY_S:",
        _TOMBSTONES + "test_a_forged_one_is_refused_and_changes_nothing",
        "a stolen credential key keeps a name out for ever",
    ),
    mutant(
        "half-a-tombstone",
        "gossip.membership.soundness",
        "credential.exchange_key or credential.spki_hashes or credential.service_patterns",
        "credential.exchange_key or credential.spki_hashes",
        _TOMBSTONES + "test_a_forged_one_is_refused_and_changes_nothing",
        "a credential without a key allows services",
    ),
    mutant(
        "streams-of-the-revoked-go-on",
        "gossip.node",
        "for member in self._catalog.take_revoked():",
        "for member in self._catalog.take_revoked()[:0]:",
        _TOMBSTONES + "test_streams_with_it_are_cut",
        "a stream with a revoked node goes on",
    ),
    mutant(
        "revoked-is-probed",
        "gossip.intake",
        "        self._detector.forget(member)\n        generation",
        "        generation",
        _TOMBSTONES + "test_nothing_of_it_is_asked_for_probed_or_voted_on_any_more",
        "monitors go on about a revoked node",
    ),
    mutant(
        "any-path-is-its-nodes",
        "gossip.membership.soundness",
        "if entry.path not in own and (service is None or not may_serve(credential, service)):",
        "if entry.path not in own and service is None:",
        "tests/unit/gossip/membership/test_key_sets.py::test_what_a_credential_does_not_allow_is_refused_whole",
        "a node lists keys for services that it may not serve",
    ),
    mutant(
        "theft-unnoticed",
        "gossip.intake",
        "and not self._own.knows_keys(keys):",
        "and False:",
        _KEYS + "test_a_set_of_ours_that_we_did_not_sign_is_told_and_signed_above",
        "a thief's keys are listed in a node's name, and it says nothing",
    ),
    mutant(
        "wide-set-stays",
        "gossip.membership.catalog",
        "        if not keys_are_allowed(member, credential):\n            self._drop(member, _KEY_SET)",
        "        if not keys_are_allowed(member, credential):\n            pass",
        _KEYS + "test_a_narrower_credential_takes_away_what_it_does_not_allow_in_whatever_order",
        "what a credential does not allow any more stays where it came first",
    ),
)
