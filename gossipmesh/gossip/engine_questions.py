"""Asks engines whether they serve: the question only, what follows is the asker's.

Rules:
1. A bounded number at once; a question the shell never answers counts as unanswered, never as refused.
Deviation: no paper asks a second process of the same machine before it calls the machine dead.
"""

from collections.abc import Callable

from gossipmesh.gossip.context import Context
from gossipmesh.gossip.effects import ProbeEngine
from gossipmesh.gossip.member import Member
from gossipmesh.model import limits

Answer = Callable[[bool, bool], None]
"""Takes (answered, refused)."""


class EngineQuestions:
    """Questions under way, by number and by member."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._number = 0
        self._open: dict[int, tuple[bytes, Answer]] = {}
        self._asked: dict[bytes, int] = {}

    def is_open(self, node_id: bytes) -> bool:
        """Tell whether a member's engine is being asked."""
        return node_id in self._asked

    def ask(self, member: Member, then: Answer) -> bool:
        """Ask a member's engine unless that is under way; False when there is no room."""
        if member.state is None or len(self._open) >= limits.ENGINE_PROBES_MAX:
            return False
        if member.node_id in self._asked:
            return True
        self._number += 1
        number = self._number
        self._open[number] = (member.node_id, then)
        self._asked[member.node_id] = number
        self._ctx.statistics.engine_probes += 1
        self._ctx.emit(ProbeEngine(number, member.state.mesh_addresses, member.credential.spiffe_id))
        self._ctx.timers.set(
            ("question", number),
            self._ctx.now + self._ctx.settings.engine_timeout_ns,
            lambda: self.answered(number, False, False),
        )
        return True

    def answered(self, number: int, answered: bool, refused: bool) -> None:
        """Take an answer; a late or repeated one finds nothing."""
        node_id, then = self._open.pop(number, (b"", None))
        self._ctx.timers.cancel(("question", number))
        if then is None:
            return
        self._asked.pop(node_id, None)
        then(answered, refused)

    def forget(self, node_id: bytes) -> None:
        """Drop the question about a member, if there is one."""
        number = self._asked.pop(node_id, None)
        if number is not None:
            self._open.pop(number, None)
            self._ctx.timers.cancel(("question", number))
