"""Whether we hear the world at all: no monitor may call one silent while most are silent to it.

While a case is open, eight random members other than its target are pinged every half silence; who was not
heard is pinged again at half time. Rules:
1. Two whole rounds, in the time of the silence itself, must be heard to 70 %; before that nothing is said.
2. Rounds that fail restart every clock: it is we who are cut off.
3. The share of our pings that others answer is what a target's share is measured by: our own link may lose
   some of all.
Paper: none. Lifeguard's local health infers as much from failed probes; this asks directly.
"""

from collections import deque

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.timers import Deadlines
from gossipmesh.gossip.dissemination.courier import Courier
from gossipmesh.gossip.failure.prober import Prober
from gossipmesh.gossip.membership.member import Member

_ROUNDS = 2
_ROUNDS_OF_ANSWERS = 8  # as long as it takes to find somebody degraded


@kept.part("control rounds")
class ControlRounds:
    """Runs while cases are open; whoever begins a round names one of their targets, to be left out."""

    def __init__(self, ctx: Context, courier: Courier, prober: Prober) -> None:
        self._ctx = ctx
        self._courier = courier
        self._prober = prober
        self._peers: list[Member] = []
        self._began = -1
        self._rounds: deque[tuple[int, int]] = deque(maxlen=_ROUNDS)
        self._pings: dict[int, bool] = {}
        self._answers: deque[tuple[int, int]] = deque(maxlen=_ROUNDS_OF_ANSWERS)

    @property
    def passed(self) -> bool:
        """Tell whether two rounds were heard."""
        return len(self._rounds) == _ROUNDS and self._heard_enough()

    @property
    def failed(self) -> bool:
        """Tell whether two rounds were held and too few were heard."""
        return len(self._rounds) == _ROUNDS and not self._heard_enough()

    def _heard_enough(self) -> bool:
        asked = sum(count for count, _ in self._rounds)
        heard = sum(count for _, count in self._rounds)
        return asked > 0 and 100 * heard >= self._ctx.settings.monitor.control_percent * asked

    @property
    def answered_percent(self) -> int:
        """Return how many of the last rounds' pings were answered (rule 3); 100 before there were any."""
        asked = sum(count for count, _ in self._answers)
        answered = sum(count for _, count in self._answers)
        return 100 if asked == 0 else 100 * answered // asked

    def acked(self, sequence: int) -> None:
        """Take a direct ack."""
        if sequence in self._pings:
            self._pings[sequence] = True

    def begin(self, target: bytes) -> None:
        """Start rounds, if none run."""
        if self._began < 0:
            self.go_on(target)

    def restart(self, target: bytes | None) -> None:
        """Forget what was heard; a round under way counts for nothing."""
        self._rounds.clear()
        self._pings.clear()
        if self._began >= 0:
            self.go_on(target)

    def go_on(self, target: bytes | None) -> None:
        """Begin the next round; without a target there is nobody to judge, and rounds end."""
        if target is None:
            self._began = -1
            self._rounds.clear()
            self._pings.clear()
            self._answers.clear()
            self._ctx.timers.cancel(("control half", None))
            return
        settings = self._ctx.settings.monitor
        self._ctx.statistics.control_rounds += 1
        self._began = self._ctx.now
        self._peers = self._courier.choose(settings.control_peers, target)
        self._pings = {self._prober.ping(member): False for member in self._peers}
        half_ns = settings.silence_ns // (2 * _ROUNDS)
        self._ctx.timers.set(("control half", None), self._ctx.now + half_ns)
        # A moment before half a silence, so that the tick that finds the silence finds two rounds.
        lag_ns = self._ctx.lag.current_ns(self._ctx.now)
        end_at = self._ctx.now + settings.silence_ns // _ROUNDS - 1_000_000 + lag_ns
        self._ctx.timers.set(("control", None), end_at)

    def deadlines(self) -> Deadlines:
        """Return the kinds of timers set here, and what each is for."""
        return {"control half": self._half}

    def _heard(self, member: Member) -> bool:
        patience_ns = min(member.lag_ms * 1_000_000, self._ctx.settings.monitor.tolerance_max_ns)
        return member.heard_at >= self._began - patience_ns

    def _half(self) -> None:
        for member in self._peers:
            if not self._heard(member):
                self._pings[self._prober.ping(member)] = False

    def end(self) -> bool:
        """Count what a round heard (timer `control`); False when none ran."""
        if self._began < 0:
            return False
        heard = sum(1 for member in self._peers if self._heard(member))
        self._rounds.append((len(self._peers), heard))
        self._answers.append((len(self._pings), sum(self._pings.values())))
        if self.failed:
            self._ctx.statistics.control_failures += 1
        return True

    @property
    def began(self) -> int:
        """Return when the round under way began; -1 when none runs."""
        return self._began
