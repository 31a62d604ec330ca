"""The kept mutants: what is broken, and the named test that must notice.

Add one whenever a rule is added that nothing else would miss. Choose the cheapest test that notices: all
are judged in under a minute on one core. A text that is no longer found exactly once fails the table.
"""

from typing import Final

from tests.mutants.mutate import Mutant

_CATCH: Final = "tests/mutants/test_catchers.py::"
_LATTICE: Final = "tests/unit/gossip/test_lattice.py::"
_DOCUMENTS: Final = "tests/unit/trust/test_documents.py::"
_SEAL: Final = "tests/unit/trust/test_seal.py::"
_RECORDS: Final = "tests/unit/trust/test_records.py::"
_VOTES: Final = "tests/mutants/test_catchers_votes.py::"
_MONITORS: Final = "tests/unit/gossip/test_monitor_detector.py::"
_CERTIFICATES: Final = "tests/unit/gossip/test_certificates.py::"
_BYZANTINE: Final = "tests/simulation/test_byzantine.py::"
_EXPLORER: Final = "tests/simulation/test_explorer.py::"
_ANSWERING: Final = "tests/unit/gossip/test_answering.py::"
_PROBER: Final = "tests/unit/gossip/test_prober.py::"
_STRANGERS: Final = "tests/unit/gossip/test_strangers.py::"


def _mutant(name: str, module: str, found: str, instead: str, test: str, says: str) -> Mutant:
    return Mutant(name, f"gossipmesh.{module}", ((found, instead),), test, says)


_DOCUMENT_MUTANTS: Final = (
    _mutant(
        "trust-skips-a-version",
        "trust.documents",
        "if offered.version != self.trust.version + 1:",
        "if offered.version <= self.trust.version:",
        _DOCUMENTS + "TestTrust::test_refuses",
        "Trust N+2 is accepted",
    ),
    _mutant(
        "trust-signed-by-the-new-keys-only",
        "trust.documents",
        "self._require_root_threshold(opened, self.trust)",
        "pass",
        _DOCUMENTS + "TestTrust::test_refuses",
        "the old root keys need not agree to their successors",
    ),
    Mutant(
        "floor-without-hash",
        "gossipmesh.trust.documents",
        (
            (
                "        offered = (manifest.version, manifest_hash)\n        if offered < floor:",
                "        offered = (manifest.version, manifest_hash)\n        if offered[0] < floor[0]:",
            ),
            ("        if accepted.floor < floor:", "        if accepted.version < floor[0]:"),
        ),
        _CATCH + "test_two_sets_of_one_version_have_one_winner_in_either_order",
        "of two sets of one version the later to arrive wins",
    ),
    _mutant(
        "floor-strict",
        "trust.documents",
        "        held = self._in_force.get(manifest.scope)\n"
        "        offered = (manifest.version, manifest_hash)\n        if offered < floor:",
        "        held = self._in_force.get(manifest.scope)\n"
        "        offered = (manifest.version, manifest_hash)\n        if offered <= floor:",
        _DOCUMENTS + "TestOrder::test_a_restored_floor_holds_and_its_own_set_comes_back",
        "the very set a floor stands for is refused after a restart",
    ),
    _mutant(
        "adopted-below-the-floor",
        "trust.documents",
        "        if accepted.floor < floor:",
        "        if accepted.floor < NO_FLOOR:",
        _DOCUMENTS + "TestOrder::test_a_checked_set_overtaken_before_its_adoption_is_refused",
        "a set overtaken since its check lowers the floor",
    ),
    _mutant(
        "floor-of-disk-forgotten",
        "trust.documents",
        "max(self._floors.get(scope, NO_FLOOR), (version, manifest_hash))",
        "NO_FLOOR",
        _DOCUMENTS + "TestOrder::test_a_restored_floor_holds_and_its_own_set_comes_back",
        "a restart forgets the floors",
    ),
    _mutant(
        "threshold-by-signature",
        "trust.documents",
        "counted = len([key for key in in_scope.values() if key in signed])",
        "counted = len(envelope.signatures)",
        _DOCUMENTS + "TestThreshold::test_one_key_never_counts_twice",
        "one key that signs twice counts twice",
    ),
    _mutant(
        "scope-unchecked",
        "trust.documents",
        "in_scope = _keys_of(trust, SignerRole.POLICY, manifest.scope)",
        "in_scope = _keys_of(trust, SignerRole.POLICY, None)",
        _DOCUMENTS + "TestThreshold::test_a_signer_of_another_scope_does_not_count",
        "any policy signer may sign for any scope",
    ),
    _mutant(
        "body-hash-unchecked",
        "trust.documents",
        "len(body) != entry.size or hashlib.sha256(body).hexdigest() != entry.sha256:",
        "len(body) != entry.size:",
        _DOCUMENTS + "test_refuses_the_attack_and_keeps_what_it_had[tampered body]",
        "a body of the right length passes for the one that was signed",
    ),
    _mutant(
        "features-unchecked",
        "trust.documents",
        "if feature not in self._features)",
        "if False)",
        _DOCUMENTS + "test_refuses_the_attack_and_keeps_what_it_had[a feature we lack]",
        "a set that this build cannot execute is taken",
    ),
)

_SEAL_MUTANTS: Final = (
    _mutant(
        "replay-window-off-by-one",
        "trust.seal",
        "age < limits.REPLAY_WINDOW_PACKETS",
        "age <= limits.REPLAY_WINDOW_PACKETS",
        _SEAL + "test_a_counter_is_taken_once_and_old_ones_never",
        "the counter that just left the window is taken again",
    ),
    _mutant(
        "replay-unmarked",
        "trust.seal",
        "self._bits |= 1 << (self.highest - counter)",
        "pass",
        _SEAL + "test_a_counter_is_taken_once_and_old_ones_never",
        "a late packet may be replayed",
    ),
    _mutant(
        "cookie-for-any-address",
        "trust.seal",
        'message = stamp + run.to_bytes(8, "big") + address.encode()',
        'message = stamp + run.to_bytes(8, "big")',
        _SEAL + "test_a_cookie_is_for_one_address_run_and_time",
        "a cookie is good wherever it is shown from",
    ),
    _mutant(
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
            ("_NONCE_PAD, body, header)", '_NONCE_PAD, body, b"")'),
            ("_NONCE_PAD, sealed, header", '_NONCE_PAD, sealed, b""'),
        ),
        _SEAL + "test_both_sides_derive_one_key_and_each_info_another",
        "a packet's header may be changed on the way",
    ),
)

_RECORD_MUTANTS: Final = (
    _mutant(
        "record-signature-unchecked",
        "trust.records",
        "    if not verifier.verify(public_key, message, record.signature):",
        "    if False:",
        _LATTICE + "test_a_record_nobody_signed_is_refused",
        "a record need not be signed",
    ),
    _mutant(
        "kind-unsigned",
        "trust.records",
        "bytes((kind, len(domain)))",
        "bytes((0, len(domain)))",
        _CATCH + "test_a_signature_is_good_for_one_kind_alone",
        "a signature over one kind of record is good for another",
    ),
    _mutant(
        "credential-for-any-id",
        "trust.records",
        "if credential.node_id != node_id_of(credential.spiffe_id):",
        "if False:",
        _RECORDS + "test_refuses_a_credential[another id than its name's]",
        "a credential may claim another node's id",
    ),
    _mutant(
        "credential-never-ends",
        "gossip.catalog",
        "if not credential.not_before <= self._ctx.wall_s < credential.ends:",
        "if not credential.not_before <= self._ctx.wall_s:",
        _CATCH + "test_a_credential_that_ended_is_no_ticket",
        "a credential is good after its end",
    ),
    _mutant(
        "verdicts-mixed-up",
        "trust.keys",
        "digest.update(message)",
        'digest.update(b"")',
        "tests/unit/trust/test_keys.py::test_the_memo_keeps_verdicts_apart_and_counts",
        "the memo of verdicts confuses messages",
    ),
)

_CATALOG_MUTANTS: Final = (
    _mutant(
        "tie-break-by-arrival",
        "gossip.catalog",
        "            if digest > held.rank.tie:",
        "            if digest != held.rank.tie:",
        _LATTICE + "test_of_two_records_of_one_order_the_same_wins_everywhere",
        "of two records of one order the later to arrive wins",
    ),
    _mutant(
        "older-state-taken",
        "gossip.catalog",
        "if offered > held.rank[:3]:",
        "if offered != held.rank[:3]:",
        _CATCH + "test_an_older_state_never_replaces_a_newer",
        "an order goes back",
    ),
    _mutant(
        "left-overridden",
        "gossip.catalog",
        "            and old.phase == NodePhase.LEFT",
        "            and old.phase == -1",
        _LATTICE + "test_left_is_final_for_its_epoch",
        "who left is back in the same epoch",
    ),
    _mutant(
        "roots-count-suspicion",
        "gossip.catalog",
        "counted = claim.status >= MemberStatus.UNATTENDED",
        "counted = claim.status >= MemberStatus.SUSPECT",
        _LATTICE + "test_suspicion_does_not_move_the_root_and_a_death_does",
        "roots never come to rest while anybody is suspected",
    ),
    _mutant(
        "condemned-in-advance",
        "gossip.catalog",
        "        if order > member.order:\n",
        "        if False:\n",
        _CATCH + "test_nobody_is_condemned_in_advance",
        "a claim against an order its subject never signed counts",
    ),
    _mutant(
        "claim-outlives-its-refutation",
        "gossip.catalog",
        "if member.claim is not None and member.claim.order < state.order:",
        "if False:",
        _LATTICE + "test_a_higher_state_beats_any_claim_and_an_equal_one_none",
        "a higher order does not clear what was claimed",
    ),
    _mutant(
        "generation-unchecked",
        "gossip.catalog",
        "        if generation != member.credential.generation:",
        "        if False:",
        _CATCH + "test_records_of_another_generation_are_nobodys",
        "a key of an older enrolment still signs",
    ),
    _mutant(
        "opaque-kinds-uncounted",
        "gossip.catalog",
        "len(member.opaque) >= limits.UNKNOWN_KINDS_PER_MEMBER_MAX:",
        "len(member.opaque) >= 2**31:",
        _CATCH + "test_unknown_kinds_of_one_member_are_eight",
        "one member may have us keep records without end",
    ),
    _mutant(
        "checks-unlimited",
        "gossip.catalog",
        "        self.left -= 1\n",
        "        self.left -= 0\n",
        _CATCH + "test_one_input_costs_no_more_than_its_checks",
        "one packet may cost any number of signature checks",
    ),
)

_OWN_MUTANTS: Final = (
    _mutant(
        "epoch-not-synced",
        "gossip.own",
        "encode(self.epoch), durable=True)",
        "encode(self.epoch), durable=False)",
        _CATCH + "test_an_epoch_is_durable_before_anybody_hears_of_it",
        "an epoch is shown that a power cut takes back",
    ),
    _mutant(
        "epoch-not-persisted",
        "gossip.own",
        "        self._ctx.statistics.epochs_raised += 1\n        self.persist_epoch()\n",
        "        self._ctx.statistics.epochs_raised += 1\n",
        _CATCH + "test_an_epoch_is_durable_before_anybody_hears_of_it",
        "a raised epoch is never written",
    ),
    _mutant(
        "refuted-without-a-higher-order",
        "gossip.own",
        "        self._sequence += 1\n        return NodeState(",
        "        return NodeState(",
        _CATCH + "test_every_state_we_sign_is_above_the_last",
        "a refutation carries the order it refutes",
    ),
    _mutant(
        "hello-proof-unchecked",
        "gossip.handshake",
        "if not self._ctx.verifier.verify(credential.signing_key, proof, signature):",
        "if False:",
        _STRANGERS + "test_a_hello_with_a_valid_cookie_and_a_credential_of_nobody_is_refused",
        "whoever shows a credential is taken for its owner",
    ),
    Mutant(
        "longer-answer-than-question",
        "gossipmesh.gossip.handshake",
        (
            ("if size_bytes < limits.DATAGRAM_BYTES_MAX - 2:", "if size_bytes < 0:"),
            ("if len(payload) <= size_bytes:", "if payload:"),
        ),
        _STRANGERS + "test_a_short_hello_is_not_answered",
        "others can be flooded through us",
    ),
)

_VOTE_MUTANTS: Final = (
    _mutant(
        "two-certify-one-another",
        "gossip.monitors",
        "    if others_count < 2:",
        "    if others_count < 1:",
        _VOTES + "test_a_quorum_is_more_than_half_and_two_nodes_certify_nobody",
        "of two nodes that part each holds the other dead",
    ),
    _mutant(
        "votes-never-expire",
        "gossip.votes",
        "and now - entry.arrived <= self._settings.vote_life_ns",
        "and entry.arrived <= now",
        _VOTES + "test_a_vote_lives_two_seconds",
        "votes pile up to a quorum over hours",
    ),
    _mutant(
        "votes-of-different-hours",
        "gossip.votes",
        "while vote.beat - ordered[first].beat > beats_apart_max:",
        "while False:",
        _VOTES + "test_votes_of_different_hours_make_no_quorum",
        "old votes can be assembled into a new certificate",
    ),
    _mutant(
        "votes-of-different-lives",
        "gossip.votes",
        "            and (entry.vote.generation, entry.vote.epoch) == incarnation",
        "            and incarnation",
        _VOTES + "test_a_vote_is_about_one_incarnation",
        "votes against an incarnation that ended count against the next",
    ),
    _mutant(
        "late-vote-undoes-a-withdrawal",
        "gossip.votes",
        "return held is None or vote.sequence > held.sequence",
        "return held is None or vote.sequence >= held.sequence",
        _VOTES + "test_a_vote_taken_back_counts_no_more",
        "a vote that comes after its withdrawal counts",
    ),
    _mutant(
        "agent-gone-kills",
        "gossip.votes",
        "DEADLY: Final = (Cause.SILENT,",
        "DEADLY: Final = (Cause.AGENT_GONE, Cause.SILENT,",
        _VOTES + "test_that_an_agent_is_gone_kills_nobody",
        "a node that still serves is held dead",
    ),
    _mutant(
        "control-rounds-skipped",
        "gossip.cases",
        "    if not seen.control_passed:",
        "    if False:",
        _VOTES + "test_silence_is_believed_only_while_the_rest_of_the_world_is_heard",
        "a node that is cut off itself accuses the others",
    ),
    _mutant(
        "lag-not-tolerated",
        "gossip.cases",
        "patience_ns = settings.silence_ns + seen.tolerance_ns",
        "patience_ns = settings.silence_ns",
        _VOTES + "test_silence_takes_its_time_and_longer_for_who_lags",
        "slow is dead",
    ),
    _mutant(
        "lesser-lag-forgotten",
        "gossip.lag",
        "        if not worst or worst[-1][0] != slot:",
        "        if not worst:",
        _MONITORS + "test_who_reads_late_is_at_no_moment_prompt",
        "who reads late judges as if it were prompt whenever its worst lag grows old",
    ),
    _mutant(
        "impatient-rounds",
        "gossip.prober",
        "        if is_patient:\n            direct_ns +=",
        "        if False:\n            direct_ns +=",
        _PROBER + "test_a_round_gives_a_member_the_time_it_says_it_is_late",
        "a member that reads late is under suspicion all the time",
    ),
    _mutant(
        "lag-taken-for-distance",
        "gossip.prober",
        "            if member.lag_ms * MILLISECOND_NS <= ",
        "            if 0 <= ",
        _PROBER + "test_how_late_others_are_is_no_round_trip",
        "one reader that is late makes all deaths be found later",
    ),
    _mutant(
        "return-overtakes-its-certificate",
        "gossip.answering",
        "        if is_held_down(certificate.votes) and ",
        "        if False and ",
        _ANSWERING + "test_who_was_deaf_answers_once_word_has_gone_round",
        "whoever hears of a deaf member's return first never keeps it out",
    ),
    _mutant(
        "unheard-answers",
        "gossip.answering",
        "        elif self._was_in_vain(certificate):",
        "        elif False:",
        _ANSWERING + "test_who_answered_in_vain_answers_once_it_is_heard",
        "a member of which little is heard goes and comes",
    ),
    _mutant(
        "answers-when-told-twice",
        "gossip.answering",
        "            return not self._is_due",
        "            return False",
        _ANSWERING + "test_who_answered_in_vain_answers_once_it_is_heard",
        "a second copy of a certificate ends the wait that the first began",
    ),
    _mutant(
        "planned-restart-accused",
        "gossip.cases",
        "    if not seen.restarting:",
        "    if True:",
        _VOTES + "test_a_planned_restart_is_no_refusal",
        "an upgrade of all agents is a mass death",
    ),
    _mutant(
        "restart-not-forwarded",
        "gossip.intake",
        "                or member.restarting_until > self._ctx.now ",
        "                or False ",
        _MONITORS + "test_an_announced_restart_is_forwarded_at_once",
        "an upgrade is announced to four members and lost with them",
    ),
    _mutant(
        "evidence-outlives-a-restart",
        "gossip.case_desk",
        "if not known or state is None or order_start(state.order) != case.incarnation:",
        "if not known or state is None:",
        _MONITORS + "test_what_one_life_refused_is_nothing_against_the_next",
        "what a stopped agent refused kills the one that took its place",
    ),
    _mutant(
        "one-refusal-suffices",
        "gossip.cases",
        "return len(times) >= 2 and times[-1] - times[0] >= least_ns",
        "return len(times) >= 1",
        _VOTES + "test_one_refusal_is_forged_easily",
        "one forged refusal is a verdict",
    ),
    _mutant(
        "life-withdraws-nothing",
        "gossip.cases",
        "    withdrawn = Move(CaseState.WATCHING, Act.UNVOTE)",
        "    withdrawn = Move(CaseState.WATCHING, Act.NOTHING)",
        _VOTES + "test_life_withdraws_a_vote_of_silence_and_being_cut_off_withdraws_any",
        "who is heard again stays accused",
    ),
    _mutant(
        "rank-unchecked",
        "gossip.certificates",
        "if self._monitors.rank_as_if(target, voter) > self._ctx.settings.monitor.voter_rank_max:",
        "if self._monitors.rank_as_if(target, voter) > 2**31:",
        _CERTIFICATES + "test_what_looks_like_a_quorum_and_is_none_is_not_believed",
        "any five members are a quorum against any victim",
    ),
    _mutant(
        "vote-signature-unchecked",
        "gossip.certificates",
        "if not self._ctx.verifier.verify(voter.credential.signing_key, message, vote.signature):",
        "if False:",
        _CERTIFICATES + "test_what_looks_like_a_quorum_and_is_none_is_not_believed",
        "one member writes the votes of all",
    ),
    _mutant(
        "voter-counts-twice",
        "gossip.certificates",
        "if voters != sorted(dict.fromkeys(voters)) or certificate.node_id in voters:",
        "if certificate.node_id in voters:",
        _VOTES + "test_a_certificate_has_each_voter_once_and_never_its_target",
        "one member's vote, repeated, is a quorum",
    ),
    _mutant(
        "newcomer-judges",
        "gossip.certificates",
        "        if not self.view_is_whole:",
        "        if False:",
        _CERTIFICATES + "test_a_newcomer_judges_nothing_before_its_view_was_whole",
        "a crafted small view makes a small quorum",
    ),
    _mutant(
        "vote-without-its-incarnation",
        "trust.records",
        "vote.node_id, vote.generation, vote.epoch, vote.cause, vote.voter,",
        "vote.node_id, vote.generation, 0, vote.cause, vote.voter,",
        _VOTES + "test_a_votes_signature_covers_every_field",
        "a genuine vote is relabelled for a later incarnation",
    ),
    _mutant(
        "certificate-over-fresh-life",
        "gossip.monitor_detector",
        "return asked_at <= member.heard_at or self._ctx.now - asked_at < settings.silence_ns",
        "return False",
        _BYZANTINE + "test_votes_that_were_true_once_kill_nobody_later[seven]",
        "a certificate beats what was just heard of its target",
    ),
    _mutant(
        "old-certificate-unasked",
        "gossip.monitor_detector",
        "if beats_later <= 0 and beats_now <= settings.beats_apart_max:",
        "if beats_later <= 0:",
        _VOTES + "test_a_certificate_older_than_life_asks_its_target_first",
        "who heard little of a member believes old votes against it",
    ),
    _mutant(
        "helper-believed-for-ever",
        "gossip.prober",
        "if self._ctx.now - probe.target.heard_at < self._ctx.settings.monitor.silence_ns:",
        "if probe.target:",
        _BYZANTINE + "test_a_helper_that_lies_hides_no_death[four]",
        "one member that lies about a probe hides a death",
    ),
    _mutant(
        "hold-down-missing",
        "gossip.hold_down",
        "return Instant(until) if until > now else None",
        "return None",
        _VOTES + "test_a_deaf_member_stays_out_for_two_minutes_and_twice_as_long_the_next_time",
        "a deaf member comes and goes for ever",
    ),
    _mutant(
        "mass-death-not-held",
        "gossip.mass_death",
        "if not many or len(self._deaths) < _LEAST:",
        "if True:",
        _VOTES + "test_many_deaths_in_a_minute_are_held",
        "a wrong view takes all endpoints away at once",
    ),
)

_EXPLORED_MUTANTS: Final = (
    _mutant(
        "quorum-minus-one",
        "gossip.monitors",
        "return Panel(monitors_count, monitors_count // 2 + 1)",
        "return Panel(monitors_count, monitors_count // 2)",
        _EXPLORER + "test_nothing_breaks_in_any_order[votes-3-4]",
        "half of the monitors are a quorum",
    ),
    _mutant(
        "withdrawal-ignored",
        "gossip.votes",
        "        voters[voter] = _Held(None, sequence, now)\n        return held.vote is not None",
        "        return held.vote is not None",
        _VOTES + "test_a_vote_taken_back_counts_no_more",
        "a vote that was taken back counts on",
    ),
    _mutant(
        "floor-lost-with-the-power",
        "gossip.spreading",
        "encode([version, manifest_hash]), durable=True)",
        "encode([version, manifest_hash]), durable=False)",
        _EXPLORER + "test_nothing_breaks_in_any_order[floors-3-2]",
        "a floor that was announced is lost by a power cut",
    ),
    _mutant(
        "refuted-epoch-lost-with-the-power",
        "gossip.own",
        "encode(self.epoch), durable=True)",
        "encode(self.epoch), durable=False)",
        _EXPLORER + "test_nothing_breaks_in_any_order[refutation-3-2]",
        "an incarnation that answered a certificate is begun a second time",
    ),
)

MUTANTS: Final = (
    *_DOCUMENT_MUTANTS,
    *_SEAL_MUTANTS,
    *_RECORD_MUTANTS,
    *_CATALOG_MUTANTS,
    *_OWN_MUTANTS,
    *_VOTE_MUTANTS,
    *_EXPLORED_MUTANTS,
)

CI_NAMES: Final = (
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
