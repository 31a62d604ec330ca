"""The kept mutants of streams and of what is fetched by them: a part of `table`."""

from typing import Final

from tests.mutants.mutate import mutant

_STREAMS: Final = "tests/simulation/test_byzantine_streams.py::"
_REPAIR: Final = "tests/unit/gossip/repair/test_comparisons.py::"

STREAM_MUTANTS: Final = (
    mutant(
        "any-answer-on-any-stream",
        "gossip.repair.comparisons",
        "if session.opener and not isinstance(message, _ANSWERS.get(session.purpose, _TABLE_ANSWERS)):",
        "if False:",
        _STREAMS + "test_an_end_out_of_place_freezes_no_document",
        "one frame freezes a policy scope, or Trust, until the next start",
    ),
    mutant(
        "list-taken-again",
        "gossip.repair.conversation",
        'if session.listed or session.purpose != "sync":',
        "if False:",
        _STREAMS + "test_a_list_is_taken_once_and_only_when_asked_for",
        "the whole exchange is planned anew at each repetition",
    ),
    mutant(
        "end-before-its-list",
        "gossip.repair.comparisons",
        'case Turn() | Done() if session.purpose == "sync" and not session.listed:',
        "case Turn() | Done() if False:",
        _STREAMS + "test_a_list_is_taken_once_and_only_when_asked_for",
        "a view is whole because somebody said so",
    ),
    mutant(
        "stream-without-end",
        "gossip.sessions.streams",
        "due = min(self._ctx.now + wait_ns, session.ends_at)",
        "due = self._ctx.now + wait_ns",
        _STREAMS + "test_one_member_takes_few_of_the_streams_a_node_may_open",
        "an empty frame every five seconds holds a stream for ever",
    ),
    mutant(
        "all-streams-to-one",
        "gossip.sessions.streams",
        "with_it >= limits.STREAMS_OPENED_PER_MEMBER_MAX",
        "with_it >= 2**31",
        _STREAMS + "test_one_member_takes_few_of_the_streams_a_node_may_open",
        "one member's announcements take all streams",
    ),
    mutant(
        "one-comparison-at-a-time",
        "gossip.repair.comparisons",
        "any(self._ctx.now < until for until in alone_until)",
        "bool(alone_until)",
        _STREAMS + "test_a_comparison_without_end_keeps_nobody_from_comparing_with_others",
        "whoever does not come to an end stops all repair",
    ),
    mutant(
        "a-cut-is-outlasted",
        "gossip.repair.comparisons",
        "_OPENING_ALONE_NS: Final = SECOND_NS",
        "_OPENING_ALONE_NS: Final = 20 * SECOND_NS",
        _REPAIR + "test_a_comparison_that_never_opens_keeps_nobody_for_longer_than_a_second",
        "a stream that a partition swallowed stops repair after the heal",
    ),
    mutant(
        "no-early-ticks",
        "gossip.dissemination.courier",
        "enumerate(self._ctx.settings.early_ticks_ns)",
        "enumerate(())",
        "tests/unit/gossip/dissemination/test_courier.py::test_what_was_forwarded_rides_on_two_early_ticks",
        "whom no forwarding reached learns of a death 200 ms later",
    ),
    mutant(
        "dozens-go-by-packets",
        "gossip.repair.comparisons",
        "if session.news_count == _MANY_RECORDS:",
        "if False:",
        _REPAIR + "test_who_is_given_much_compares_with_three_more",
        "halves that meet again agree seconds later",
    ),
    mutant(
        "announced-above-all",
        "gossip.dissemination.documents",
        "stuck and pending.announced != announced",
        "False",
        _STREAMS + "test_documents_spun_out_without_end_keep_no_genuine_ones_out",
        "a version nobody has keeps the genuine one out",
    ),
    mutant(
        "trust-of-one-announcer",
        "gossip.dissemination.documents",
        "busy = any(self._ctx.now - asked_at < _STUCK_NS for asked_at in self._trust_asked.values())",
        "busy = bool(self._trust_asked)",
        _STREAMS + "test_documents_spun_out_without_end_keep_no_genuine_ones_out",
        "one member holds up a rotation of the roots",
    ),
    mutant(
        "page-in-one-frame",
        "gossip.repair.conversation",
        "if frame and frame_bytes + len(record) > PAGE_BYTES:",
        "if False:",
        _STREAMS + "test_records_of_unknown_kinds_too_many_for_a_frame_keep_no_newcomer_out",
        "one member's records let no newcomer in",
    ),
    mutant(
        "first-table-without-patience",
        "gossip.repair.comparisons",
        "wait_ns <<= min(self._tries // _PATIENT_TRIES, _TRIES_DOUBLINGS_MAX)",
        "wait_ns <<= 0",
        _STREAMS + "test_a_first_stream_that_fails_for_ever_is_asked_for_ever_less",
        "two hundred and fifty streams a second that all fail",
    ),
)
