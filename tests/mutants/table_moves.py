"""Mutants of how a node that moved is found again, and of what nobody may gain by that."""

from typing import Final

from tests.mutants.mutate import Mutant, mutant

_MOVED: Final = "tests/unit/gossip/test_moved.py::"

MOVE_MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "who-moved-unheard-is-not-asked",
        "gossip.router",
        "elsewhere = sender",
        "elsewhere = None",
        _MOVED + "test_who_moved_unheard_is_asked_where_it_speaks_from",
        "a node whose word of its new address was lost is dead for good",
    ),
    mutant(
        "who-is-not-doubted-is-asked",
        "gossip.router",
        "if is_doubted or member.verdict is not None:",
        "if True:",
        _MOVED + "test_a_member_that_nobody_doubts_may_speak_from_wherever_it_likes",
        "each packet of a machine of two addresses draws a cookie and a hello",
    ),
    mutant(
        "who-moved-is-asked-without-end",
        "gossip.router",
        "if not member.is_found_at(sender) and self._moved.take_key(member.node_id, self._ctx.now):",
        "if not member.is_found_at(sender):",
        _MOVED + "test_it_is_asked_twice_a_second_at_most",
        "whoever taps a line has a cookie sent anywhere for each packet",
    ),
    mutant(
        "told-before-the-state-is-taken",
        "gossip.router",
        "            else:\n                self._tell_the_dead(member)\n        # Whoever floods",
        "            self._tell_the_dead(member)\n        # Whoever floods",
        _MOVED + "test_who_was_held_dead_is_told_at_its_new_address_in_the_same_step",
        "what is held against who moved goes to the address it has left, and not again for a second",
    ),
)
