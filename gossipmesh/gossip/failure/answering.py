"""When this node answers a verdict against itself: at once, unless it would soon be condemned again.

Rules:
1. Whoever was deaf or degraded stays out for a while, and answers when that is over (`quarantine`). Whoever
   has heard others since without a word of it is not held dead by them: somebody kept true votes for later.
2. Whoever had answered its accusers all the while and is called silent is not heard. It answers once most of
   two rounds of pings were answered; until then it would only go and come. Being told things is no answer.
Paper: none. Deviation: SWIM refutes at once; docs/adr/0007 and 0026 say why the target waits.
"""

from collections import OrderedDict, deque
from typing import Final

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.hearing import Hearing
from gossipmesh.gossip.failure.prober import Prober
from gossipmesh.gossip.failure.quarantine import Quarantine, made_at
from gossipmesh.gossip.failure.verdicts import VerdictJudge, brings_quarantine
from gossipmesh.model.instant import MILLISECOND_NS, Instant
from gossipmesh.model.records import SignedRecord, Verdict

_UNDER_WAY_NS: Final = 200 * MILLISECOND_NS
_ACCUSERS_MAX: Final = 64
_ROUNDS: Final = 2


@kept.part("answering")
class Answering:
    """The verdict against us that waits, if any; `due` returns its record again in the end."""

    def __init__(
        self,
        ctx: Context,
        courier: Courier,
        judge: VerdictJudge,
        prober: Prober,
        hearing: Hearing,
    ) -> None:
        self._ctx = ctx
        self._courier = courier
        self._judge = judge
        self._prober = prober
        self._hearing = hearing
        self._answered: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self._against = (0, 0)
        self._is_due = False
        self._waiting: SignedRecord | None = None
        self._in_rounds = False
        self._quarantine = Quarantine(ctx.settings.monitor)
        self.out_until: Instant | None = None
        self._asked: dict[int, bool] = {}
        self._rounds: deque[tuple[int, int]] = deque(maxlen=_ROUNDS)

    def answered(self, node_id: bytes) -> None:
        """Note that we answered a member's suspicion, and not late."""
        before, last = self._answered.pop(node_id, (-1, -1))
        before = last if self._ctx.now - last >= _UNDER_WAY_NS else before
        self._answered[node_id] = (before, self._ctx.now)
        if len(self._answered) > _ACCUSERS_MAX:
            self._answered.popitem(last=False)

    def paused(self) -> None:
        """Forget it all: what we read after a pause we answered late, whatever its stamp says."""
        self._answered.clear()

    def is_later(self, verdict: Verdict, record: SignedRecord) -> bool:
        """Tell whether a verdict against our present incarnation is answered later, and see to it."""
        against = (verdict.generation, verdict.epoch)
        if against == self._against:
            return not self._is_due
        if self._keeps_us_out(verdict):
            self._waiting, self._in_rounds = record, False
        elif self._was_in_vain(verdict):
            self._rounds.clear()
            self._waiting, self._in_rounds, self.out_until = record, True, None
            self._round()
        else:
            return False
        self._against, self._is_due = against, False
        return True

    def _keeps_us_out(self, verdict: Verdict) -> bool:
        """Begin a quarantine, if the verdict brings one that is not over yet, and set when it ends."""
        if not brings_quarantine(verdict) or not self._judge.is_valid(verdict):
            return False
        settings = self._ctx.settings.monitor
        since = made_at(verdict, self._ctx.started, self._ctx.now, settings.heartbeat_slot_ns)
        if self._ctx.now - max(since, self._hearing.since) > settings.deaf_ns:
            # Who holds us dead says so whenever it hears us, and little else.
            return False
        until = self._quarantine.begin(since)
        if until <= self._ctx.now:
            return False
        self.out_until = until
        self._ctx.timers.set(("answer", None), until)
        return True

    def _was_in_vain(self, verdict: Verdict) -> bool:
        """Tell whether most of the voters had asked us, and been answered, while they heard nothing."""
        newest = self._ctx.now - _UNDER_WAY_NS
        oldest = self._ctx.now - self._ctx.settings.monitor.silence_ns
        answers = [self._answered.get(vote.voter, (-1, -1)) for vote in verdict.votes]
        return 2 * sum(any(oldest <= at <= newest for at in pair) for pair in answers) > len(answers)

    def _round(self) -> None:
        """Ping some members; whoever has not answered in half a silence has not heard us, or we not it."""
        settings = self._ctx.settings.monitor
        peers = self._courier.choose(settings.control_peers, b"")
        self._asked = {self._prober.ping(member): False for member in peers}
        wait_ns = settings.silence_ns // _ROUNDS
        self._ctx.timers.set(("answer", None), self._ctx.now + wait_ns)

    def acked(self, sequence: int) -> None:
        """Take a direct ack."""
        if sequence in self._asked:
            self._asked[sequence] = True

    def due(self) -> SignedRecord | None:
        """Return the verdict that is answered now (timer `answer`); None while we are not heard."""
        return self._answer() if not self._in_rounds or self._is_heard_again() else None

    def _is_heard_again(self) -> bool:
        """Count a round of pings; begin another unless most of two rounds were answered."""
        self._rounds.append((len(self._asked), sum(self._asked.values())))
        self._asked = {}
        asked = sum(count for count, _ in self._rounds)
        heard = sum(count for _, count in self._rounds)
        is_heard = 100 * heard >= self._ctx.settings.monitor.control_percent * asked
        if len(self._rounds) == _ROUNDS and is_heard:
            return True
        self._round()
        return False

    def _answer(self) -> SignedRecord | None:
        record, self._waiting = self._waiting, None
        self._is_due, self.out_until = True, None
        return record
