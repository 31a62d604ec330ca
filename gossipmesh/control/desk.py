"""Where requests are decided: one after the other, in turns, off the loop.

Each source of connections has its turn, and within it each node: `control.queue`. Deciding reads and fsyncs
files, so it happens in a thread, one request at a time, in which nothing else of the authority runs. What was
decided on is counted and told; what happens to the answer is the server's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import trio

from gossipmesh.control.issuing import Issuer
from gossipmesh.control.queue import FairQueue
from gossipmesh.control.requests import RequestRefused
from gossipmesh.control.roots import Authority
from gossipmesh.model.enrolment import (
    EnrolRequest,
    Issued,
    OpenNoted,
    OpenReport,
    Refusal,
    RenewRequest,
)
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.instant import WallSeconds
from gossipmesh.net.places import Party

WAITING_PER_SOURCE_MAX: Final = 64
WAITING_MAX: Final = 1_024
LINE_CHARS_MAX: Final = 400

Request = EnrolRequest | RenewRequest | OpenReport
Answer = tuple[int, Issued | OpenNoted | Refusal]


@dataclass
class ServerStatistics:
    """What came in, by what became of it."""

    enrolled: int = 0
    renewed: int = 0
    opened: int = 0
    refused: int = 0
    busy: int = 0
    broken: int = 0


class _Case:
    """A request, whose it is, and its answer once there is one."""

    def __init__(self, request: Request, peer: str) -> None:
        self.request = request
        self.peer = peer
        self.answer: Answer | None = None
        self.answered = trio.Event()
        self.abandoned = False


class Desk:
    """Decides requests with an `Issuer`; `run` is what does it."""

    def __init__(
        self,
        issuer: Issuer,
        clock: Callable[[], WallSeconds],
        report: Callable[[str], None],
        look: Callable[[], Authority],
    ) -> None:
        """`look` returns the authority as it is on disk now."""
        self._issuer = issuer
        self._look = look
        self._clock = clock
        self._report = report
        self._queue: FairQueue[_Case] = FairQueue(per_party_max=WAITING_PER_SOURCE_MAX, all_max=WAITING_MAX)
        self._something = trio.Event()
        self.statistics = ServerStatistics()

    async def run(self) -> None:
        """Decide what waits, until cancelled."""
        while True:
            case = self._queue.take()
            if case is None:
                self._something = trio.Event()
                await self._something.wait()
            elif not case.abandoned:
                case.answer = await trio.to_thread.run_sync(self._decide, case.request, case.peer)
                case.answered.set()

    async def decide(self, request: Request, source: Party, peer: str) -> Answer:
        """Return status and answer, when it is this one's turn; at once when too many wait already."""
        case = _Case(request, peer)
        if not self._queue.put(source, _member(request), case):
            self.statistics.busy += 1
            return 503, Refusal("too many requests from your address wait; try again in a minute", "busy")
        self._something.set()
        try:
            await case.answered.wait()
        finally:
            case.abandoned = True
        if case.answer is None:
            raise RuntimeError("answered without an answer")
        return case.answer

    def _decide(self, request: Request, peer: str) -> Answer:
        """Return status and answer. Blocks: runs in a thread, never two at a time."""
        now, counts = self._clock(), self.statistics
        try:
            self._issuer.use(self._look())
            if isinstance(request, OpenReport):
                noted = self._issuer.take_report(request, now, peer)
                counts.opened += 1
                return 200, noted
            if isinstance(request, EnrolRequest):
                issued = self._issuer.enrol(request, now, peer)
                counts.enrolled += 1
            else:
                issued = self._issuer.renew(request, now, peer)
                counts.renewed += 1
        except RequestRefused as error:
            counts.refused += 1
            self._report(one_line(f"refused {peer} [{error.code}]: {error}"))
            return 403, Refusal(str(error), error.code)
        except MalformedInput as error:
            counts.refused += 1
            return 400, Refusal(str(error)[:300], "malformed")
        except OperatorError as error:
            self._report(f"cannot answer {peer}: {error}")
            return 503, Refusal("the authority cannot write its records; its log says why", "unavailable")
        what = "enrolled" if isinstance(request, EnrolRequest) else "renewed"
        without = f", without {', '.join(issued.left_out)}: it may not be these" if issued.left_out else ""
        self._report(one_line(f"{what} {issued.svids[0].spiffe_id} from {peer}{without}"))
        return 200, issued


def one_line(text: str) -> str:
    """Return what a stranger had a hand in as one printable line of bounded length."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:LINE_CHARS_MAX])


def _member(request: Any) -> str:
    """Return what tells the askers behind one address apart; unproven, and good for no more than that."""
    return str(request.token_id if isinstance(request, EnrolRequest) else request.spiffe_id)
