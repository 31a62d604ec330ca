"""The kept mutants of newcomers, restarts and what a packet may cost: a part of `table`."""

from typing import Final

from tests.mutants.mutate import mutant

_NEWCOMERS: Final = "tests/simulation/test_newcomers.py::"
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
        "member.ends <= wall_s and not is_doubted",
        "member.ends <= wall_s",
        _NEWCOMERS + "test_a_wrong_clock_for_a_moment_forgets_nobody_and_for_long_does",
        "a second of wrong time costs a node all members, on disk as well",
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
