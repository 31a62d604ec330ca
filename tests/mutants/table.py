"""The kept mutants: what is broken, and the named test that must notice.

Add one whenever a rule is added that nothing else would miss. Choose the cheapest test that notices: all
are judged in under a minute on one core. A text that is no longer found exactly once fails the table.
"""

from typing import Final

from tests.mutants.mutate import Mutant, mutant
from tests.mutants.table_moves import MOVE_MUTANTS
from tests.mutants.table_newcomers import NEWCOMER_MUTANTS
from tests.mutants.table_peers import PEER_MUTANTS
from tests.mutants.table_revocations import REVOCATION_MUTANTS
from tests.mutants.table_streams import STREAM_MUTANTS
from tests.mutants.table_votes import VOTE_MUTANTS

_CATCH: Final = "tests/mutants/test_catchers.py::"
_LATTICE: Final = "tests/unit/gossip/membership/test_lattice.py::"
_CLAIMS: Final = "tests/unit/testing/swim/test_claims.py::"
_DOCUMENTS: Final = "tests/unit/trust/test_documents.py::"
_VERSIONS: Final = "tests/unit/trust/test_versions.py::"
_SEAL: Final = "tests/unit/trust/test_seal.py::"
_RECORDS: Final = "tests/unit/trust/test_records.py::"
_VOTES: Final = "tests/mutants/test_catchers_votes.py::"
_EXPLORER: Final = "tests/simulation/test_explorer.py::"
_STRANGERS: Final = "tests/unit/gossip/test_strangers.py::"


_DOCUMENT_MUTANTS: Final = (
    mutant(
        "trust-skips-a-version",
        "trust.documents",
        "if offered.version != self.trust.version + 1:",
        "if offered.version <= self.trust.version:",
        _DOCUMENTS + "TestTrust::test_refuses",
        "Trust N+2 is accepted",
    ),
    mutant(
        "trust-counted-by-its-envelope",
        "gossip.dissemination.documents",
        "documents.trust_sha256 if counts_signed else before",
        "before",
        "tests/unit/gossip/dissemination/test_equal_trust.py::"
        "test_members_with_other_signatures_on_one_trust_are_equal_and_fetch_nothing",
        "one Trust in two envelopes counts as two",
    ),
    mutant(
        "trust-signed-by-the-new-keys-only",
        "trust.documents",
        "self._require_root_threshold(opened, self.trust)",
        "signatures",
        _DOCUMENTS + "TestTrust::test_refuses",
        "the old root keys need not agree to their successors",
    ),
    Mutant(
        "floor-without-hash",
        "gossipmesh.trust.documents",
        (("        if offered < floor:", "        if offered[0] < floor[0]:"),),
        _CATCH + "test_two_sets_of_one_version_have_one_winner_in_either_order",
        "of two sets of one version the later to arrive wins",
    ),
    mutant(
        "floor-strict",
        "trust.documents",
        "        if offered < floor:",
        "        if offered <= floor:",
        _DOCUMENTS + "TestOrder::test_a_restored_floor_holds_and_its_own_set_comes_back",
        "the very set a floor stands for is refused after a restart",
    ),
    mutant(
        "adopted-below-the-floor",
        "trust.documents",
        "        self._require_place(accepted.scope, accepted.floor, refuse)",
        "        assert refuse is not None",
        _DOCUMENTS + "TestOrder::test_a_checked_set_overtaken_before_its_adoption_is_refused",
        "a set overtaken since its check lowers the floor",
    ),
    mutant(
        "floor-of-disk-forgotten",
        "trust.documents",
        "max(floors, key=lambda floor: self._rank(scope, floor))",
        "NO_FLOOR",
        _DOCUMENTS + "TestOrder::test_a_restored_floor_holds_and_its_own_set_comes_back",
        "a restart forgets the floors",
    ),
    mutant(
        "policy-generation-unchecked",
        "trust.documents",
        "        if not self.is_current(scope, offered[0]):",
        "        if not self.is_current(scope, offered[0]) and offered[0] < 0:",
        _VERSIONS + "TestGenerations::test_a_version_of_another_generation_is_refused_with_a_sentence",
        "a stolen signer's version of any generation is taken",
    ),
    mutant(
        "floor-of-another-generation-counts",
        "trust.documents",
        "        return max(own, explicit) if self.is_current(scope, own[0]) else explicit",
        "        return max(own, explicit)",
        _VERSIONS
        + "TestGenerations::test_a_restart_keeps_what_was_in_force_until_the_new_generation_is_here",
        "what a node of a build before took from a thief shuts the scope for it",
    ),
    mutant(
        "threshold-by-signature",
        "trust.documents",
        "counted = {key: signed[key] for key in in_scope if key in signed}",
        "counted = {bytes((n,)): one.signature for n, one in enumerate(envelope.signatures)}",
        _DOCUMENTS + "TestThreshold::test_one_key_never_counts_twice",
        "one key that signs twice counts twice",
    ),
    mutant(
        "scope-unchecked",
        "trust.documents",
        "in_scope = keys_of(trust, SignerRole.POLICY, manifest.scope)",
        "in_scope = keys_of(trust, SignerRole.POLICY, None)",
        _DOCUMENTS + "TestThreshold::test_a_signer_of_another_scope_does_not_count",
        "any policy signer may sign for any scope",
    ),
    mutant(
        "body-hash-unchecked",
        "trust.documents",
        "return len(body) == entry.size and hashlib.sha256(body).hexdigest() == entry.sha256",
        "return len(body) == entry.size",
        _DOCUMENTS + "test_refuses_the_attack_and_keeps_what_it_had[tampered body]",
        "a body of the right length passes for the one that was signed",
    ),
    mutant(
        "features-unchecked",
        "trust.documents",
        "if feature not in self._features)",
        "if False)",
        _DOCUMENTS + "test_refuses_the_attack_and_keeps_what_it_had[a feature we lack]",
        "a set that this build cannot execute is taken",
    ),
)

_SEAL_MUTANTS: Final = (
    mutant(
        "replay-window-off-by-one",
        "trust.seal",
        "age < limits.REPLAY_WINDOW_PACKETS",
        "age <= limits.REPLAY_WINDOW_PACKETS",
        _SEAL + "test_a_counter_is_taken_once_and_old_ones_never",
        "the counter that just left the window is taken again",
    ),
    mutant(
        "replay-unmarked",
        "trust.seal",
        "self._bits |= 1 << -shift",
        "pass",
        _SEAL + "test_a_counter_is_taken_once_and_old_ones_never",
        "a late packet may be replayed",
    ),
    mutant(
        "cookie-for-any-address",
        "trust.seal",
        'message = stamp + run.to_bytes(8, "big") + address.encode()',
        'message = stamp + run.to_bytes(8, "big")',
        _SEAL + "test_a_cookie_is_for_one_address_run_and_time",
        "a cookie is good wherever it is shown from",
    ),
    mutant(
        "cookie-for-ever",
        "trust.seal",
        "if age_s > self._age_max_s:",
        "if age_s > 2**31:",
        _SEAL + "test_a_cookie_is_for_one_address_run_and_time",
        "a cookie never ends",
    ),
    Mutant(
        "header-unauthenticated",
        "gossipmesh.trust.seal",
        (
            ('"big"), body, header)', '"big"), body, b"")'),
            ('"big"), sealed, header)', '"big"), sealed, b"")'),
        ),
        _SEAL + "test_both_sides_derive_one_key_and_each_info_another",
        "a packet's header may be changed on the way",
    ),
)

_RECORD_MUTANTS: Final = (
    mutant(
        "record-signature-unchecked",
        "trust.records",
        "    if not verifier.verify(public_key, message, record.signature):",
        "    if False:",
        _LATTICE + "test_a_record_nobody_signed_is_refused",
        "a record need not be signed",
    ),
    mutant(
        "kind-unsigned",
        "trust.records",
        "bytes((kind, len(domain)))",
        "bytes((0, len(domain)))",
        _CATCH + "test_a_signature_is_good_for_one_kind_alone",
        "a signature over one kind of record is good for another",
    ),
    mutant(
        "credential-for-any-id",
        "trust.records",
        "if credential.node_id != node_id_of(credential.spiffe_id):",
        "if False:",
        _RECORDS + "test_refuses_a_credential[another id than its name's]",
        "a credential may claim another node's id",
    ),
    mutant(
        "credential-never-ends",
        "gossip.membership.credentials",
        "if not is_kept and not self._ctx.holds_now(credential.not_before, credential.ends):",
        "if not is_kept and not self._ctx.holds_now(credential.not_before, 2**62):",
        _CATCH + "test_a_credential_that_ended_is_no_ticket",
        "a credential is good after its end",
    ),
    mutant(
        "verdicts-mixed-up",
        "trust.keys",
        "digest.update(message)",
        'digest.update(b"")',
        "tests/unit/trust/test_keys.py::test_the_memo_keeps_verdicts_apart_and_counts",
        "the memo of verdicts confuses messages",
    ),
)

_CATALOG_MUTANTS: Final = (
    mutant(
        "tie-break-by-arrival",
        "gossip.membership.catalog",
        "            if digest > held.rank.tie:",
        "            if digest != held.rank.tie:",
        _LATTICE + "test_of_two_records_of_one_order_the_same_wins_everywhere",
        "of two records of one order the later to arrive wins",
    ),
    mutant(
        "older-state-taken",
        "gossip.membership.catalog",
        "if offered > held.rank[:3]:",
        "if offered != held.rank[:3]:",
        _CATCH + "test_an_older_state_never_replaces_a_newer",
        "an order goes back",
    ),
    mutant(
        "left-overridden",
        "gossip.membership.soundness",
        "SEQUENCE_WHOLE) if state.phase == NodePhase.LEFT else order",
        "SEQUENCE_WHOLE) if state.phase == -1 else order",
        _LATTICE + "test_left_is_final_for_its_epoch",
        "who left is back in the same epoch",
    ),
    mutant(
        "sums-count-suspicion",
        "testing.swim.catalog",
        "counted = claim.status >= MemberStatus.UNATTENDED",
        "counted = claim.status >= MemberStatus.SUSPECT",
        _CLAIMS + "test_suspicion_does_not_move_the_sum_and_a_death_does",
        "state sums never come to rest while anybody is suspected",
    ),
    mutant(
        "condemned-in-advance",
        "testing.swim.catalog",
        "        if order > member.order:\n",
        "        if False:\n",
        _CLAIMS + "test_nobody_is_condemned_in_advance",
        "a claim against an order its subject never signed counts",
    ),
    mutant(
        "claim-outlives-its-refutation",
        "testing.swim.catalog",
        "if subject.claim is not None and subject.claim.order < state.order:",
        "if False:",
        _CLAIMS + "test_a_higher_state_beats_any_claim_and_an_equal_one_none",
        "a higher order does not clear what was claimed",
    ),
    mutant(
        "retired-kind-kept",
        "gossip.membership.catalog",
        "        if record.kind in RETIRED_KINDS:\n",
        "        if False:\n",
        _LATTICE + "test_a_retired_kind_is_refused_whoever_signs_it",
        "what released nodes refuse is kept, and state sums differ for ever",
    ),
    mutant(
        "retired-kind-answered",
        "gossip.intake",
        " or record.kind in RETIRED_KINDS:",
        ":",
        _LATTICE + "test_a_retired_kind_under_our_own_name_is_no_theft_and_no_reason_to_answer",
        "a record nobody keeps drives our epoch up and is taken for theft",
    ),
    mutant(
        "generation-unchecked",
        "gossip.membership.catalog",
        "        if order.generation != member.credential.generation:",
        "        if False:",
        _CATCH + "test_records_of_another_generation_are_nobodys",
        "a key of an older enrolment still signs",
    ),
    mutant(
        "opaque-kinds-uncounted",
        "gossip.membership.catalog",
        "record.kind})[: limits.UNKNOWN_KINDS_PER_MEMBER_MAX]",
        "record.kind})[: 2**31]",
        _CATCH + "test_unknown_kinds_of_one_member_are_eight",
        "one member may have us keep records without end",
    ),
    mutant(
        "checks-unlimited",
        "gossip.membership.catalog",
        "        self.left -= 1\n",
        "        self.left -= 0\n",
        _CATCH + "test_one_input_costs_no_more_than_its_checks",
        "one packet may cost any number of signature checks",
    ),
    mutant(
        "any-text-as-zone",
        "gossip.membership.soundness",
        "if zoned and not _ZONE.fullmatch(zone):",
        "if False:",
        "tests/unit/gossip/membership/test_soundness.py::test_a_zone_is_the_name_of_an_interface_and_no_other_text",
        "a member has us keep, show and pass on any text as part of its address",
    ),
)

_OWN_MUTANTS: Final = (
    mutant(
        "epoch-not-synced",
        "gossip.base.context",
        "value, durable=True, ticket=ticket",
        "value, durable=False, ticket=ticket",
        _CATCH + "test_an_epoch_is_durable_before_anybody_hears_of_it",
        "an epoch is shown that a power cut takes back",
    ),
    mutant(
        "epoch-shown-before-it-is-on-disk",
        "gossip.membership.own",
        "        self.persist_epoch((goes_on, (self.epoch_ahead, *about)))\n",
        "        self.epoch = self.epoch_ahead\n"
        "        self.persist_epoch((goes_on, (self.epoch_ahead, *about)))\n",
        _CATCH + "test_an_epoch_is_durable_before_anybody_hears_of_it",
        "whatever is signed while the epoch is being written shows it",
    ),
    mutant(
        "set-in-force-before-its-floor-is-on-disk",
        "gossip.dissemination.documents",
        "        self._floors_ahead[scope] = accepted.floor\n",
        "        self._floors_ahead[scope] = accepted.floor\n        self._ctx.documents.adopt(accepted)\n",
        "tests/unit/gossip/dissemination/test_documents.py::test_floors_are_durable_and_come_before_the_notice",
        "a set is served that a power cut takes back",
    ),
    mutant(
        "epoch-not-persisted",
        "gossip.membership.own",
        "        self.persist_epoch((goes_on, (self.epoch_ahead, *about)))\n",
        "        self.begin_epoch(self.epoch_ahead)\n",
        _CATCH + "test_an_epoch_is_durable_before_anybody_hears_of_it",
        "a raised epoch is never written",
    ),
    mutant(
        "refuted-without-a-higher-order",
        "gossip.membership.own",
        "        self._sequence += 1\n        return NodeState(",
        "        return NodeState(",
        _CATCH + "test_every_state_we_sign_is_above_the_last",
        "a refutation carries the order it refutes",
    ),
    mutant(
        "successor-believed-at-once",
        "gossip.membership.succession",
        "if self._ctx.now >= self._doubts_until:",
        "if True:",
        "tests/unit/gossip/membership/test_succession.py::"
        "test_who_was_taken_out_comes_back_beside_one_that_knows_no_better",
        "who is just back ends by the word of a key that was stolen and dropped",
    ),
    mutant(
        "hello-proof-unchecked",
        "gossip.sessions.handshake",
        "if not self._ctx.verifier.verify(credential.signing_key, proof, signature):",
        "if False:",
        _STRANGERS + "test_a_hello_with_a_valid_cookie_and_a_credential_of_nobody_is_refused",
        "whoever shows a credential is taken for its owner",
    ),
    Mutant(
        "longer-answer-than-question",
        "gossipmesh.gossip.sessions.handshake",
        (
            ("if size_bytes < limits.DATAGRAM_BYTES_MAX - 2:", "if size_bytes < 0:"),
            ("if len(payload) <= size_bytes:", "if payload:"),
        ),
        _STRANGERS + "test_a_short_hello_is_not_answered",
        "others can be flooded through us",
    ),
)

_EXPLORED_MUTANTS: Final = (
    mutant(
        "quorum-minus-one",
        "gossip.failure.monitors",
        "return Panel(monitors_count, monitors_count // 2 + 1)",
        "return Panel(monitors_count, monitors_count // 2)",
        _EXPLORER + "test_nothing_breaks_in_any_order[votes-3-4]",
        "half of the monitors are a quorum",
    ),
    mutant(
        "withdrawal-ignored",
        "gossip.failure.votes",
        "        voters[voter] = _Held(None, sequence, now)\n        return held.vote is not None",
        "        return held.vote is not None",
        _VOTES + "test_a_vote_taken_back_counts_no_more",
        "a vote that was taken back counts on",
    ),
    mutant(
        "floor-lost-with-the-power",
        "gossip.base.context",
        "value, durable=True, ticket=ticket",
        "value, durable=False, ticket=ticket",
        _EXPLORER + "test_nothing_breaks_in_any_order[floors-3-2]",
        "a floor that was announced is lost by a power cut",
    ),
    mutant(
        "refuted-epoch-lost-with-the-power",
        "gossip.base.context",
        "value, durable=True, ticket=ticket",
        "value, durable=False, ticket=ticket",
        _EXPLORER + "test_nothing_breaks_in_any_order[refutation-3-2]",
        "an incarnation that answered a verdict is begun a second time",
    ),
)

MUTANTS: Final = (
    *_DOCUMENT_MUTANTS,
    *_SEAL_MUTANTS,
    *_RECORD_MUTANTS,
    *_CATALOG_MUTANTS,
    *_OWN_MUTANTS,
    mutant(
        "epoch-of-services-unbounded",
        "gossip.membership.soundness",
        "if epoch > wall_s + DAY_S:",
        "if epoch > wall_s + DAY_S and kind == RecordKind.NODE_STATE:",
        "tests/simulation/test_byzantine_records.py::test_no_kind_of_record_drives_an_epoch_beyond_reach",
        "one record by a stolen key puts its owner out of the group for good",
    ),
    mutant(
        "first-kinds-kept",
        "gossip.membership.catalog",
        "kinds = sorted({*member.opaque, record.kind})[",
        "kinds = [*member.opaque, record.kind][",
        "tests/simulation/test_byzantine_records.py::test_unknown_kinds_in_whatever_order_end_as_one_view",
        "nodes that heard them in another order compare for ever",
    ),
    *VOTE_MUTANTS,
    *STREAM_MUTANTS,
    *NEWCOMER_MUTANTS,
    *PEER_MUTANTS,
    *REVOCATION_MUTANTS,
    *MOVE_MUTANTS,
    *_EXPLORED_MUTANTS,
)

CI_NAMES: Final = (
    "listed-by-anybody",
    "key-sets-bind-nobody",
    "trust-skips-a-version",
    "floor-without-hash",
    "threshold-by-signature",
    "body-hash-unchecked",
    "replay-window-off-by-one",
    "cookie-for-any-address",
    "record-signature-unchecked",
    "tie-break-by-arrival",
    "left-overridden",
    "condemned-in-advance",
    "epoch-not-persisted",
    "refuted-without-a-higher-order",
    "votes-never-expire",
    "control-rounds-skipped",
    "voter-counts-twice",
    "quorum-minus-one",
)
