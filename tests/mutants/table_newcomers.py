"""The kept mutants of newcomers, restarts and what a packet may cost: a part of `table`."""

from typing import Final

from tests.mutants.mutate import mutant

_NEWCOMERS: Final = "tests/simulation/test_newcomers.py::"
_CLOCKS: Final = "tests/unit/gossip/membership/test_credential_watch.py::"
_FLOODS: Final = "tests/simulation/test_byzantine_floods.py::"

NEWCOMER_MUTANTS: Final = (
    mutant(
        "old-deaths-unjudged-for-ever",
        "gossip.failure.renewals",
        "doubt.until = Instant(now + _RENEWAL_NS)",
        "doubt.until = now",
        _NEWCOMERS + "test_a_newcomer_that_counts_others_than_the_voters_did_agrees_in_the_end",
        "a newcomer never agrees on who is dead",
    ),
    mutant(
        "renewals-feed-one-another",
        "gossip.failure.renewals",
        "if doubt.until >= 0 and now < doubt.until + _QUIET_NS:",
        "if False:",
        _NEWCOMERS + "test_a_newcomer_that_counts_others_than_the_voters_did_agrees_in_the_end",
        "monitors of the dead vote to each other for ever",
    ),
    mutant(
        "a-leave-keeps-its-verdict",
        "gossip.membership.catalog",
        "member.verdict.order <= lasting(state):",
        "member.verdict.order < state.order:",
        _NEWCOMERS + "test_who_was_condemned_and_then_left_has_left_for_newcomers_too",
        "state sums never equal a newcomer's",
    ),
    mutant(
        "old-deaths-are-news",
        "gossip.failure.retained_endpoints",
        "if not self._is_news(member):",
        "if False:",
        _NEWCOMERS + "test_a_restart_takes_no_old_deaths_for_a_catastrophe",
        "every restart holds the endpoints of the long dead",
    ),
    mutant(
        "a-wrong-clock-forgets-all",
        "gossip.membership.credential_watch",
        "member.ends <= now_s and not is_doubted",
        "member.ends <= now_s",
        _CLOCKS + "test_two_peers_cannot_tell_whose_clock_is_off",
        "a second of wrong time costs a node of a small mesh all members, on disk as well",
    ),
    mutant(
        "one-clock-forgets-all",
        "gossip.base.civil_time",
        "return self._peers_ahead_s if self.is_judged else 0",
        "return 0",
        _CLOCKS + "test_nobody_is_forgotten_while_three_peers_disagree",
        "a clock that stays wrong for ten minutes costs a node all members",
    ),
    mutant(
        "dates-lead-ahead",
        "gossip.base.civil_time",
        "max(latest_s + limits.CLOCK_TOLERANCE_S, self._signed_s)",
        "max(latest_s, self._signed_s) + limits.CLOCK_TOLERANCE_S",
        "tests/unit/gossip/base/test_civil_time.py::"
        "test_dates_ahead_are_taken_up_to_a_tolerance_that_they_do_not_move",
        "whoever signs dates leads every clock ahead, five minutes a credential",
    ),
    mutant(
        "a-wrong-clock-at-the-start-forgets-all",
        "gossip.membership.credential_watch",
        "if not self._has_looked:",
        "if False:",
        _CLOCKS + "test_a_machine_that_starts_with_a_wrong_clock_knows_whom_it_knew",
        "a machine whose clock is set after its agent's start has nobody left to ask",
    ),
    mutant(
        "anybodys-ack-is-taken",
        "gossip.failure.prober",
        "        if target_id == member.node_id:\n            del",
        "        if target_id:\n            del",
        "tests/unit/gossip/failure/test_prober.py::test_an_ack_of_another_is_not_the_one_that_is_waited_for",
        "one liar has honest monitors condemn a live node deaf",
    ),
    mutant(
        "wants-without-a-budget",
        "gossip.router",
        "if not self._wants.take_key(member.node_id, self._ctx.now):",
        "if False:",
        _FLOODS + "test_many_questions_in_a_packet_are_not_many_answers",
        "a packet asks for fifty",
    ),
    mutant(
        "every-ping-of-a-packet-answered",
        "gossip.router",
        "                if is_pinged:",
        "                if False:",
        _FLOODS + "test_many_questions_in_a_packet_are_not_many_answers",
        "a packet has sixty answers",
    ),
    mutant(
        "ranked-for-whoever-signs-nothing",
        "gossip.failure.verdicts",
        "is_ranked = self._monitors.has_ranked(verdict.node_id)",
        "is_ranked = True",
        _FLOODS + "test_verdicts_that_nobody_signed_make_no_rankings",
        "verdicts that nobody signed stall a node of ten thousand members",
    ),
    mutant(
        "the-lesser-name-stands",
        "gossip.failure.verdict_wants",
        "if wanted is None or _rank(name) > _rank(wanted):",
        "if wanted is None:",
        "tests/unit/gossip/failure/test_verdict_wants.py::"
        "test_what_is_named_while_less_is_asked_for_is_asked_for_too",
        "a death that is named while less was asked for waits for repair",
    ),
)
