"""One exchange on its way in: what another node's engine asks of a workload of this one, to its end.

An HTTP request, or (method None) a TCP connection. Told and asked as `gossipmesh.traffic.exchange` is, but
for the time: no clock runs here but the connection's own. Rules:

1. Who calls is what its certificate proved; whether it may is asked when it begins and again after every
   snapshot, and what may not go on ends at once.
2. The workload is not chosen: there is one. It is asked a second time only where the connection that broke
   was a kept one, before any answer, and doing it twice is safe.
3. What goes wrong towards the workload is for the caller's engine to judge: it is told by flags.
"""

from typing import Final

from gossipmesh.model.instant import NEVER, Instant
from gossipmesh.model.snapshot import InboundSection
from gossipmesh.traffic import endings
from gossipmesh.traffic.actions import (
    CUT,
    FINISH,
    RELAY,
    TAKE_BODY,
    Action,
    Answer,
    ConnectWorkload,
    Relay,
    Request,
    Reset,
)
from gossipmesh.traffic.authorization import Verdict, decide
from gossipmesh.traffic.endings import Ending
from gossipmesh.traffic.exchange import TURNS, OutOfTurn, Phase
from gossipmesh.traffic.ground import Denied, Ground
from gossipmesh.traffic.outcomes import Outcome
from gossipmesh.traffic.retries import is_idempotent

REVOKED: Final = Verdict(False, "revoked")
"""Its node is revoked, forgotten, or enrolled again since it proved who it is."""
_REASONS: Final = {
    "UF": "no connection to the workload could be made",
    "UO": "this node lacks what a connection to the workload takes",
    "UC": "the workload ended the connection before it answered",
    "UPE": "the workload's answer is not HTTP",
}
"""What a caller's engine is told of a workload that was asked; it knows of the service's other ones."""
_TRIES_MAX: Final = 2  # a kept connection may have ended at the moment it was used


class InboundExchange:
    """One request or TCP connection on its way to a workload; what became known of it is readable."""

    __slots__ = (
        "_caller",
        "_ground",
        "_phase",
        "_replayable",
        "_request",
        "_reused",
        "_server_name",
        "attempts",
        "deadline",
        "details",
        "flags",
        "inbound",
        "stopped",
    )

    def __init__(self, ground: Ground, request: Request, caller: str, server_name: str) -> None:
        """`caller` is the identity its certificate proved, `server_name` the SNI it asked for."""
        self.inbound: InboundSection | None = None
        """The workload, once it is known."""
        self.attempts = 0
        self.flags: list[str] = []
        self.details = ""
        self.deadline: Final = NEVER
        self.stopped: Ending | None = None
        self._ground = ground
        self._request = request
        self._caller = caller
        self._server_name = server_name
        self._phase = Phase.NEW
        self._replayable = True
        self._reused = False

    def begin(self) -> Action:
        """Say that the request is there.

        Returns:
            TakeBody, ConnectWorkload or Answer.
        """
        if self._phase not in TURNS["begin"]:
            raise self._out_of_turn("begin")
        inbound, request = self._ground.inbound(self._server_name), self._request
        if inbound is None:
            # The workload left while its peers still hold connections: they should ask elsewhere.
            return self._refuse(endings.REGISTRATION_GONE)
        self.inbound = inbound
        verdict = self._verdict(inbound)
        if not verdict.allow:
            self._deny(inbound, verdict)
            return Answer(endings.DENIED, endings.DENIED.reason)
        if request.method == "CONNECT":
            return self._refuse(endings.CONNECT_INBOUND)
        if request.looped:
            return self._refuse(endings.HOP_LIMIT)
        if request.last_stop:
            return self._refuse(endings.MAX_FORWARDS)
        if request.waits_for_body:
            self._phase = Phase.BODY
            return TAKE_BODY
        return self._connect(inbound)

    def body_taken(self) -> Action:
        """Say that a small body has been read, or that there will be no waiting for it.

        Returns:
            ConnectWorkload.
        """
        if self._phase not in TURNS["body_taken"]:
            raise self._out_of_turn("body_taken")
        assert self.inbound is not None
        return self._connect(self.inbound)

    def _connect(self, inbound: InboundSection) -> ConnectWorkload:
        self.attempts += 1
        self._phase = Phase.CONNECTING
        self._ground.open[self] = None
        return ConnectWorkload(inbound.registration, inbound.workload)

    def connected(self, *, reused: bool) -> Relay | None:
        """Say that there is a connection, new or one that requests have gone by before.

        Returns:
            Relay for TCP, None for HTTP: send the request.
        """
        if self._phase not in TURNS["connected"]:
            raise self._out_of_turn("connected")
        self._reused = reused
        if self._request.method is None:
            self._phase = Phase.CARRYING
            return RELAY
        self._phase = Phase.SENDING
        return None

    def unconnected(self, ending: Ending, more: str) -> Action:
        """Say why there is no connection.

        Returns:
            Answer or Cut.
        """
        if self._phase not in TURNS["unconnected"]:
            raise self._out_of_turn("unconnected")
        return self._over(ending, more)

    def sent(self) -> None:
        """Say that the request is out whole."""
        if self._phase is Phase.SENDING:
            self._phase = Phase.WAITING

    def outgrew(self) -> None:
        """Say that the request's body is more than what is kept: it cannot be sent again."""
        self._replayable = False

    def head(self) -> Relay:
        """Say that the answer's head is there; whatever the workload says is passed on."""
        if self._phase not in TURNS["head"]:
            raise self._out_of_turn("head")
        self._phase = Phase.ANSWERING
        return RELAY

    def ended(self, ending: Ending, more: str) -> Action:
        """Say how the stream ended: `VIA_UPSTREAM` when the answer is over.

        Returns:
            ConnectWorkload, Answer, Finish or Cut.
        """
        if self._phase not in TURNS["ended"]:
            raise self._out_of_turn("ended")
        unanswered = self._phase is not Phase.ANSWERING
        again = self._reused and unanswered and ending.outcome is Outcome.RESET and self.stopped is None
        safe = self._replayable and is_idempotent(self._request.method)
        if again and safe and self.attempts < _TRIES_MAX and self.inbound is not None:
            return self._connect(self.inbound)
        return self._over(ending, more)

    def left(self) -> Reset | None:
        """Say that the caller has gone."""
        return self._stop(endings.DISCONNECT)

    def revoked(self) -> Reset | None:
        """Say that the caller's node is what it was no more."""
        if self.stopped is None and self.inbound is not None and self._phase is not Phase.ENDED:
            self._deny(self.inbound, REVOKED)
        return self._stop(endings.DENIED)

    def review(self, now: Instant) -> Reset | None:
        """Ask again whether the caller may, now that the tables may have changed."""
        inbound = self._ground.inbound(self._server_name)
        if inbound is None or self.stopped is not None:
            return None  # a workload that leaves finishes what it has
        verdict = self._verdict(inbound)
        if verdict.allow:
            return None
        self._deny(inbound, verdict)
        return self._stop(endings.DENIED)

    def close(self) -> None:
        """Say that nothing more will be said. Safe to repeat."""
        self._phase = Phase.ENDED
        self._ground.open.pop(self, None)

    def _verdict(self, inbound: InboundSection) -> Verdict:
        method = self._request.method
        path = None if method is None else self._request.path
        return decide(inbound, self._caller, method, path)

    def _deny(self, inbound: InboundSection, verdict: Verdict) -> None:
        """Write a refusal down where operators look; the caller itself is told nothing but 403."""
        self._flag(endings.DENIED.flag)
        self.details = f"rbac_access_denied_matched_policy[{verdict.rule}]"
        request = self._request
        path = "" if request.method is None else request.path
        denied = Denied(self._caller, inbound.service, request.method or "", path, verdict.rule)
        self._ground.effects.append(denied)

    def _stop(self, ending: Ending) -> Reset | None:
        if self.stopped is not None or self not in self._ground.open:
            return None
        self.stopped = ending
        return Reset(ending, client=True)

    def _over(self, ending: Ending, more: str) -> Action:
        answering = self._phase is Phase.ANSWERING
        self._ground.open.pop(self, None)
        if self.stopped is endings.DENIED:
            self._phase = Phase.ENDED  # written down when it was decided
            return CUT
        if self.stopped is not None:
            ending, more = self.stopped, ""
        if answering or ending is endings.DISCONNECT:
            self._write(ending, more)
            return CUT if ending.flag else FINISH
        return self._refuse(ending, more)

    def _refuse(self, ending: Ending, more: str = "") -> Answer:
        self._write(ending, more)
        reason = _REASONS.get(ending.flag, ending.reason) if self.attempts else ending.reason
        return Answer(ending, f"{reason}: {more}" if ending is endings.PROTOCOL_ERROR else reason)

    def _write(self, ending: Ending, more: str) -> None:
        self._phase = Phase.ENDED
        if ending.flag:
            self._flag(ending.flag)
        self.details = f"{ending.detail}: {more}" if more else ending.detail

    def _flag(self, flag: str) -> None:
        if flag not in self.flags:
            self.flags.append(flag)

    def _out_of_turn(self, said: str) -> OutOfTurn:
        return OutOfTurn(f"{said} in phase {self._phase.name.lower()}")
