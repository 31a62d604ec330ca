"""Asks engines whether they serve: the question only, what follows is the asker's.

Rules:
1. A bounded number at once; a question the shell never answers counts as unanswered, never as refused.
Deviation: no paper asks a second process of the same machine before it calls the machine dead.
"""

from enum import StrEnum
from typing import NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import ProbeEngine
from gossipmesh.gossip.membership.member import Member
from gossipmesh.model import limits


@kept.value("asker")
class Asker(StrEnum):
    """For whom an engine is asked: an open case, or the look now and then at an unattended member's."""

    CASE = "case"
    LOOK = "look"


@kept.value("question")
class Question(NamedTuple):
    """Whose engine is asked, and for whom."""

    node_id: bytes
    asker: Asker


@kept.part("engine questions")
class EngineQuestions:
    """Questions under way, by number and by member."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._number = 0
        self._open: dict[int, Question] = {}
        self._asked: dict[bytes, int] = {}

    def is_open(self, node_id: bytes) -> bool:
        """Tell whether a member's engine is being asked."""
        return node_id in self._asked

    def ask(self, member: Member, asker: Asker) -> bool:
        """Ask a member's engine unless that is under way; False when there is no room."""
        if member.state is None or len(self._open) >= limits.ENGINE_PROBES_MAX:
            return False
        if member.node_id in self._asked:
            return True
        self._number += 1
        number = self._number
        self._open[number] = Question(member.node_id, asker)
        self._asked[member.node_id] = number
        self._ctx.statistics.engine_probes += 1
        self._ctx.emit(ProbeEngine(number, member.state.mesh_addresses, member.credential.spiffe_id))
        self._ctx.timers.set(("question", number), self._ctx.now + self._ctx.settings.engine_timeout_ns)
        return True

    def take(self, number: int) -> Question | None:
        """Return what was asked, which is asked no more; None for a late or repeated answer."""
        question = self._open.pop(number, None)
        self._ctx.timers.cancel(("question", number))
        if question is not None:
            self._asked.pop(question.node_id, None)
        return question

    def forget(self, node_id: bytes) -> None:
        """Drop the question about a member, if there is one."""
        number = self._asked.pop(node_id, None)
        if number is not None:
            self._open.pop(number, None)
            self._ctx.timers.cancel(("question", number))
