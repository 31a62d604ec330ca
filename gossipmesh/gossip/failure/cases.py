"""A monitor's case against its target: evidence, judgement, and which move follows from what was found.

Pure: no clock, no packets. The table `MOVES` is data; docs and tests are made from it. Rules:
1. Silence is aged by whoever votes, from the later of the case's opening and the last life.
2. Any packet of the target is life and withdraws `silent`; only answers withdraw `deaf` and `degraded`.
   Whoever would be called either, and whose engine serves, is called no more than `agent gone`.
3. When our own view of the world failed (control rounds, a pause), every clock restarts and the vote is
   withdrawn: then it is we who were cut off.
4. Three direct answers in a row close a case.
Paper: Lifeguard IV.B gives a suspect time in proportion to confirmations; here the time is fixed and the
    number of independent witnesses is (docs/GOSSIP.md, "Failure detection").
"""

from collections import deque
from enum import Enum
from typing import Final, NamedTuple

from gossipmesh.gossip.base import kept
from gossipmesh.gossip.base.settings import MonitorSettings
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import Cause

_SENT_MAX: Final = 60
_SPAN_NEW_NS: Final = 3_000_000_000  # pings younger than this may still be answered
_SPAN_OLD_NS: Final = 20_000_000_000
_HEEDED_NEW_NS: Final = 1_000_000_000  # whoever answers at all has answered by then, or is late
_HEEDED_OLD_NS: Final = 6_000_000_000
_HEEDED_PINGS_MIN: Final = 4
_HEARD_NS: Final = 3_000_000_000  # a turn of heartbeats, and half as much


@kept.value("case state")
class CaseState(Enum):
    """What this monitor says of the target just now."""

    WATCHING = "watching"
    SILENT = "silent"
    REFUSED = "refused"
    AGENT_GONE = "agent gone"
    DEAF = "deaf"
    DEGRADED = "degraded"
    CLOSED = "closed"


class CaseInput(Enum):
    """What may happen to a case: a packet, a finding of a tick, or something about ourselves."""

    LIFE = "a packet of it"
    ANSWER = "a direct answer"
    ANSWERED = "the third answer in a row"
    FOUND_NOTHING = "a tick: no cause"
    FOUND_SILENT = "a tick: silent"
    FOUND_REFUSED = "a tick: refused"
    FOUND_AGENT_GONE = "a tick: agent gone"
    FOUND_DEAF = "a tick: deaf"
    FOUND_DEGRADED = "a tick: degraded"
    CUT_OFF = "our control rounds failed"
    SLEPT = "we were stopped"
    SETTLED = "condemned, left, or not ours to watch"


class Act(Enum):
    """What the monitor does besides."""

    NOTHING = "nothing"
    VOTE = "vote"
    UNVOTE = "unvote"
    RESTART = "restart the clocks"
    UNVOTE_AND_RESTART = "unvote, restart the clocks"
    CLOSE = "close"
    UNVOTE_AND_CLOSE = "unvote, close"


class Move(NamedTuple):
    """The next state and what is done."""

    state: CaseState
    act: Act


_FOUND: Final = {
    CaseInput.FOUND_SILENT: CaseState.SILENT,
    CaseInput.FOUND_REFUSED: CaseState.REFUSED,
    CaseInput.FOUND_AGENT_GONE: CaseState.AGENT_GONE,
    CaseInput.FOUND_DEAF: CaseState.DEAF,
    CaseInput.FOUND_DEGRADED: CaseState.DEGRADED,
}
CAUSES: Final = {
    CaseState.SILENT: Cause.SILENT,
    CaseState.REFUSED: Cause.REFUSED,
    CaseState.AGENT_GONE: Cause.AGENT_GONE,
    CaseState.DEAF: Cause.DEAF,
    CaseState.DEGRADED: Cause.DEGRADED,
}
_STUBBORN: Final = (CaseState.DEAF, CaseState.DEGRADED)


def _watching() -> dict[tuple[CaseState, CaseInput], Move]:
    here = CaseState.WATCHING
    moves = {
        (here, CaseInput.LIFE): Move(here, Act.NOTHING),
        (here, CaseInput.ANSWER): Move(here, Act.NOTHING),
        (here, CaseInput.ANSWERED): Move(CaseState.CLOSED, Act.CLOSE),
        (here, CaseInput.FOUND_NOTHING): Move(here, Act.NOTHING),
        (here, CaseInput.CUT_OFF): Move(here, Act.RESTART),
        (here, CaseInput.SLEPT): Move(here, Act.RESTART),
        (here, CaseInput.SETTLED): Move(CaseState.CLOSED, Act.CLOSE),
    }
    return moves | {(here, found): Move(state, Act.VOTE) for found, state in _FOUND.items()}


def _voting(here: CaseState) -> dict[tuple[CaseState, CaseInput], Move]:
    stays = Move(here, Act.NOTHING)
    withdrawn = Move(CaseState.WATCHING, Act.UNVOTE)
    restarted = Move(CaseState.WATCHING, Act.UNVOTE_AND_RESTART)
    stubborn = here in _STUBBORN
    moves = {
        (here, CaseInput.LIFE): stays if stubborn else withdrawn,
        (here, CaseInput.ANSWER): stays if here is CaseState.DEGRADED else withdrawn,
        (here, CaseInput.ANSWERED): Move(CaseState.CLOSED, Act.UNVOTE_AND_CLOSE),
        (here, CaseInput.FOUND_NOTHING): withdrawn,
        (here, CaseInput.CUT_OFF): restarted,
        (here, CaseInput.SLEPT): restarted,
        (here, CaseInput.SETTLED): Move(CaseState.CLOSED, Act.CLOSE),
    }
    return moves | {(here, found): Move(state, Act.VOTE) for found, state in _FOUND.items()}


def _table() -> dict[tuple[CaseState, CaseInput], Move]:
    moves = _watching()
    for state in CAUSES:
        moves |= _voting(state)
    # A closed case is gone from the desk; whatever is still under way for it does nothing.
    return moves | {(CaseState.CLOSED, what): Move(CaseState.CLOSED, Act.NOTHING) for what in CaseInput}


MOVES: Final[dict[tuple[CaseState, CaseInput], Move]] = _table()


@kept.value("evidence", engine_served_at=-1)
class Evidence:
    """What one monitor knows of its target since the case opened."""

    __slots__ = (
        "answers_in_a_row",
        "deaf_since",
        "engine_answered_at",
        "engine_refusals",
        "engine_served_at",
        "engine_silences",
        "first_opened",
        "opened",
        "port_refusals",
        "sends_at",
        "sent",
        "silent_since",
    )

    def __init__(self, now: Instant) -> None:
        self.first_opened = now
        self.opened = now
        self.silent_since = now
        self.sends_at = -1
        self.deaf_since = now
        self.answers_in_a_row = 0
        self.sent: deque[list[int]] = deque(maxlen=_SENT_MAX)
        self.port_refusals: list[int] = []
        self.engine_refusals: list[int] = []
        self.engine_silences = 0
        self.engine_answered_at = -1
        self.engine_served_at = -1

    def restart(self, now: Instant) -> None:
        """Begin anew: what looked like silence was ours."""
        self.opened = now
        self.silent_since = max(self.silent_since, now)
        self.deaf_since = now
        self.answers_in_a_row = 0
        self.sent.clear()
        self.forget_refusals()

    def forget_refusals(self) -> None:
        """Drop what life contradicts."""
        self.port_refusals.clear()
        self.engine_refusals.clear()
        self.engine_silences = 0
        self.engine_answered_at = -1

    def pinged(self, sequence: int, now: Instant) -> None:
        """Note a direct ping of this case; the row of answers ends if the one before was not answered."""
        if self.sent and not self.sent[-1][2]:
            self.answers_in_a_row = 0
        self.sent.append([sequence, now, 0, int(self.sends_at >= max(0, now - _HEARD_NS))])

    def lived(self, arrived: Instant, settings: MonitorSettings, *, is_recent: bool) -> bool:
        """Note a packet; False when it proves nothing new.

        `is_recent`: its sender had heard us since the case opened. What has not may be an old packet held
        back by somebody, so it counts no longer than a deaf member's would.
        """
        self.sends_at = max(self.sends_at, arrived)
        if not is_recent and arrived - self.opened >= settings.deaf_ns:
            return False
        if arrived <= self.silent_since:
            return False
        self.silent_since = arrived
        self.forget_refusals()
        return True

    def answered(self, sequence: int, now: Instant, within_ns: int | None = None) -> bool:
        """Note the answer to a direct ping of this case; False when it was not one, or took too long."""
        for ping in self.sent:
            if ping[0] == sequence and not ping[2]:
                if within_ns is not None and now - ping[1] > within_ns:
                    return False
                ping[2] = 1
                self.deaf_since = now
                self.answers_in_a_row += 1
                return True
        return False

    def engine_said(self, answered: bool, refused: bool, now: Instant) -> None:
        """Note what the target's engine did."""
        if answered:
            self.engine_answered_at = self.engine_served_at = now
            self.engine_refusals.clear()
            self.engine_silences = 0
        elif refused:
            self.engine_refusals.append(now)
            del self.engine_refusals[1:-1]
            self.engine_answered_at = self.engine_served_at = -1
        else:
            self.engine_silences += 1
            if self.engine_silences >= 2:
                self.engine_answered_at = self.engine_served_at = -1

    def is_refused(self, settings: MonitorSettings, now: Instant) -> bool:
        """Tell whether gossip port and engine refused, the engine twice over long enough."""
        return bool(self.port_refusals) and _spans(self.engine_refusals, settings.refusal_ns)

    def is_agent_gone(self, settings: MonitorSettings, tolerance_ns: int) -> bool:
        """Tell whether the engine answers where the agent's port refuses, twice over long enough.

        Anybody can forge a refusal; the agent's own word takes as long as it says that it is late.
        """
        least_ns = settings.refusal_ns + tolerance_ns
        return self.engine_answered_at >= 0 and _spans(self.port_refusals, least_ns)

    def is_unheeded(self, now: int) -> bool:
        """Tell whether it sends and answers none of the latest pings: it is asked by other ways as well."""
        newest, oldest = now - _HEEDED_NEW_NS, now - _HEEDED_OLD_NS
        # A ping has a fourth place since it is noted whether the target was heard then.
        answers = [ping[2] for ping in self.sent if oldest < ping[1] < newest and any(ping[3:])]
        return len(answers) >= _HEEDED_PINGS_MIN and not any(answers)

    def is_degraded(self, settings: MonitorSettings, at: int, tolerance_ns: int, usual_percent: int) -> bool:
        """Tell whether too few of the pings that had time enough were answered.

        `usual_percent`: how many of our pings others answer; what our own link loses is no fault of its.
        """
        if at - self.opened < settings.degraded_ns + tolerance_ns:
            return False
        newest, oldest = at - _SPAN_NEW_NS - tolerance_ns, at - _SPAN_OLD_NS - tolerance_ns
        answers = [ping[2] for ping in self.sent if oldest < ping[1] < newest]
        enough = len(answers) >= settings.degraded_pings_min
        least_percent = settings.degraded_percent * usual_percent // 100
        return enough and 100 * sum(answers) < least_percent * len(answers)


def _spans(times: list[int], least_ns: int) -> bool:
    return len(times) >= 2 and times[-1] - times[0] >= least_ns


class Circumstances(NamedTuple):
    """What a judgement needs besides evidence.

    `at` is now minus our own lag; `control_passed`: both rounds were heard; `restarting`: the target said it
    will be back; `usual_percent`: how many of the pings of our control rounds were answered.
    """

    at: int
    tolerance_ns: int
    control_passed: bool
    restarting: bool
    usual_percent: int = 100


def judge(evidence: Evidence, settings: MonitorSettings, seen: Circumstances) -> CaseInput:
    """Return what a tick finds; the strongest cause that holds."""
    at = Instant(seen.at)
    if not seen.restarting:
        if evidence.is_refused(settings, at):
            return CaseInput.FOUND_REFUSED
        if evidence.is_agent_gone(settings, seen.tolerance_ns):
            return CaseInput.FOUND_AGENT_GONE
    if not seen.control_passed:
        return CaseInput.FOUND_NOTHING
    patience_ns = settings.silence_ns + seen.tolerance_ns
    if evidence.port_refusals:
        # Its kernel refuses: the machine is there, its agent is not, and nobody tells how late its engine is.
        patience_ns = settings.silence_ns + settings.tolerance_max_ns
    sends = evidence.sends_at >= 0 and at - evidence.sends_at < patience_ns
    if sends and at - evidence.deaf_since >= settings.deaf_ns + 2 * seen.tolerance_ns:
        return _ill(CaseInput.FOUND_DEAF, evidence, seen)
    if at - evidence.silent_since >= patience_ns:
        if evidence.engine_answered_at < 0:
            return CaseInput.FOUND_SILENT
        # The agent hangs and its engine serves: nothing a caller would notice.
        return CaseInput.FOUND_NOTHING if seen.restarting else CaseInput.FOUND_AGENT_GONE
    if evidence.is_degraded(settings, at, seen.tolerance_ns, seen.usual_percent):
        return _ill(CaseInput.FOUND_DEGRADED, evidence, seen)
    return CaseInput.FOUND_NOTHING


def _ill(found: CaseInput, evidence: Evidence, seen: Circumstances) -> CaseInput:
    """Return what is found of a target that sends and does not answer as it should.

    Where its engine serves, its agent is at fault alone: it takes nobody's endpoints away.
    """
    if evidence.engine_served_at < 0:
        return found
    return CaseInput.FOUND_NOTHING if seen.restarting else CaseInput.FOUND_AGENT_GONE


@kept.value("case")
class Case:
    """One open case; `sent_before` is the link's counter when it opened, so that old packets show.

    Until `renews_until` it goes on though its target is condemned: somebody cannot judge that.
    """

    __slots__ = (
        "engine_asked_at",
        "evidence",
        "incarnation",
        "pinged_at",
        "renews_until",
        "sent_before",
        "state",
        "ticks_count",
        "voted_at",
        "voted_in",
    )

    def __init__(self, now: Instant, incarnation: tuple[int, int], sent_before: int) -> None:
        self.state = CaseState.WATCHING
        self.evidence = Evidence(now)
        self.incarnation = incarnation
        self.sent_before = sent_before
        self.ticks_count = 0
        self.engine_asked_at = -1
        self.pinged_at = -1
        self.renews_until = -1
        self.voted_at = -1
        self.voted_in = CaseState.WATCHING

    def take(self, what: CaseInput) -> Act:
        """Move as the table says and return what to do."""
        move = MOVES[(self.state, what)]
        self.state = move.state
        return move.act
