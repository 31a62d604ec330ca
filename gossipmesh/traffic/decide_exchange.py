"""Answer a decision vector of the kind `exchange`: exchanges played by a script, step by step.

What an engine tells an exchange is a step, what the exchange has it do is the answer. Rules:

1. All exchanges of a question stand on one ground; `exchange` in a step names which is told, 1 by default.
2. A `begin` that names a `server_name` is of an exchange on its way in, by `caller`.
3. A step brings the random numbers that are drawn in it, all of them and no more.
4. An answer has `then` (the action), `until` (the deadline, where there is one) and `effects`, each only
   where there is something to say. A step out of turn is answered `{"out_of_turn": true}`.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec

from gossipmesh.model.instant import NEVER, Instant
from gossipmesh.model.snapshot import InboundSection, LimitsSection, RoutesSection, UpstreamSection
from gossipmesh.traffic import endings
from gossipmesh.traffic.actions import Action, Answer, Connect, Counted, Cut, Finish, Request, Reset
from gossipmesh.traffic.endpoints import EndpointChange
from gossipmesh.traffic.exchange import Exchange, OutOfTurn
from gossipmesh.traffic.ground import Denied, Effect, Ground
from gossipmesh.traffic.inbound import InboundExchange
from gossipmesh.traffic.tables import Tables

_Either = Exchange | InboundExchange

_Number = Annotated[float, msgspec.Meta(ge=0, lt=1)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Asked(msgspec.Struct):
    service: str | None = None
    host: str = ""
    path: str = "*"
    method: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    uid: int | None = None
    waits_for_body: bool = False
    looped: bool = False
    last_stop: bool = False


class _Step(msgspec.Struct):
    do: str
    now: _Time
    exchange: int = 1
    random: tuple[_Number, ...] = ()
    request: _Asked | None = None
    ending: str = "via_upstream"
    more: str = ""
    unreached: bool = False
    status: int = 200
    far_flag: str = ""
    begins: bool = True
    caller: str = ""
    server_name: str = ""
    reused: bool = False
    node: str = ""
    routes: tuple[RoutesSection, ...] | None = None
    upstreams: tuple[UpstreamSection, ...] | None = None
    inbounds: tuple[InboundSection, ...] | None = None
    limits: LimitsSection | None = None


class _Question(msgspec.Struct):
    routes: tuple[RoutesSection, ...]
    upstreams: tuple[UpstreamSection, ...]
    limits: LimitsSection
    steps: tuple[_Step, ...]
    inbounds: tuple[InboundSection, ...] = ()
    node: str = ""


class _Numbers:
    """The random numbers of the step under way."""

    def __init__(self) -> None:
        self._left: list[float] = []

    def bring(self, numbers: tuple[float, ...]) -> None:
        """Take those of the next step."""
        self._left = list(numbers)

    def random(self) -> float:
        """Return the next one; asking for more than there are is the question's mistake."""
        if not self._left:
            raise ValueError("a random number is missing")
        return self._left.pop(0)

    @property
    def left_count(self) -> int:
        """Return how many were brought and not drawn."""
        return len(self._left)


def play(given: object) -> dict[str, Any]:
    """Answer one question.

    Raises:
        msgspec.ValidationError, LookupError, ValueError: it is none. Remote's fault. State unchanged.
    """
    asked = msgspec.convert(given, _Question)
    played = _Play(asked)
    return {"steps": [played.step(step) for step in asked.steps]}


class _Play:
    """One question's ground and exchanges."""

    def __init__(self, asked: _Question) -> None:
        self._numbers = _Numbers()
        self._ground = Ground(self._numbers)
        self._asked = asked
        self._exchanges: dict[int, _Either] = {}
        self._ground.apply(self._tables(), Instant(0))

    def _tables(self) -> Tables:
        asked = self._asked
        return Tables((*asked.routes, *asked.upstreams, *asked.inbounds, asked.limits), asked.node)

    def step(self, step: _Step) -> dict[str, Any]:
        """Do one step and say what came of it."""
        self._numbers.bring(step.random)
        answer: dict[str, Any] = {}
        try:
            action = self._do(step)
        except OutOfTurn:
            return {"out_of_turn": True}
        exchange = self._exchanges.get(step.exchange)
        if action is not None and exchange is not None:
            answer["then"] = _said(action, exchange)
        if exchange is not None and exchange.deadline != NEVER:
            answer["until"] = exchange.deadline
        effects = [self._told(effect) for effect in self._ground.take_effects()]
        if effects:
            answer["effects"] = effects
        if self._numbers.left_count:
            raise ValueError(f"{self._numbers.left_count} random numbers were not drawn")
        return answer

    def _do(self, step: _Step) -> Action | None:
        now = Instant(step.now)
        if step.do == "begin":
            return self._begun(step, now)
        shared = _SHARED.get(step.do)
        if shared is not None:
            return shared(self, step, now)
        exchange = self._exchanges[step.exchange]
        if isinstance(exchange, InboundExchange):
            return _INBOUND_INPUTS[step.do](exchange, step)
        return _INPUTS[step.do](exchange, step, now)

    def _begun(self, step: _Step, now: Instant) -> Action:
        asked = Request(**msgspec.structs.asdict(step.request or _Asked()))
        if step.server_name:
            came = InboundExchange(self._ground, asked, step.caller, step.server_name)
            self._exchanges[step.exchange] = came
            return came.begin()
        exchange = self._exchanges[step.exchange] = Exchange(self._ground, asked)
        return exchange.begin(now)

    def apply(self, step: _Step, now: Instant) -> None:
        """Swap a snapshot in: what the step brings is new, the rest stays."""
        for name in ("routes", "upstreams", "inbounds", "limits"):
            brought = getattr(step, name)
            if brought is not None:
                setattr(self._asked, name, brought)
        self._ground.apply(self._tables(), now)

    def unreached(self, step: _Step, now: Instant) -> None:
        """Have a node out of reach."""
        self._ground.unreached(step.node, now)

    def reached(self, step: _Step, now: Instant) -> None:
        """Have contact with a node."""
        self._ground.reached(step.node, now)

    def review(self, _step: _Step, now: Instant) -> None:
        """Have everything under way judged again."""
        self._ground.review(now)

    def _told(self, effect: Effect) -> dict[str, Any]:
        if isinstance(effect, Counted):
            return {"counted": effect.name}
        if isinstance(effect, EndpointChange):
            way = "ejected" if effect.ejected else "returned"
            name = f"{effect.node}/{effect.registration}"
            return {way: name, "reason": effect.reason, "upstream": effect.upstream}
        if isinstance(effect, Denied):
            return {"denied": effect.caller, "rule": effect.rule}
        number = next(number for number, one in self._exchanges.items() if one is effect.exchange)
        return {"stopped": number, "ending": effect.reset.ending.name}


def _said(action: Action, exchange: _Either) -> dict[str, Any]:
    if isinstance(action, Connect):
        return {"do": "connect", "endpoint": f"{action.endpoint.node}/{action.endpoint.registration}"}
    if isinstance(action, Reset):
        return {"do": "reset", "ending": action.ending.name} | ({"client": True} if action.client else {})
    if isinstance(action, Answer | Finish | Cut):
        said: dict[str, Any] = {"do": "finish" if isinstance(action, Finish) else "cut"}
        if isinstance(action, Answer):
            said = {"do": "answer", "status": action.ending.status, "reason": action.reason}
        return said | {"flags": ",".join(exchange.flags), "details": exchange.details}
    return dict(msgspec.to_builtins(action))


_SHARED: Final[dict[str, Callable[[_Play, _Step, Instant], None]]] = {
    "apply": _Play.apply,
    "unreached": _Play.unreached,
    "reached": _Play.reached,
    "review": _Play.review,
}
_INPUTS: Final[dict[str, Callable[[Exchange, _Step, Instant], Action | None]]] = {
    "routes_came": lambda one, _, now: one.routes_came(now),
    "body_taken": lambda one, _, now: one.body_taken(now),
    "connected": lambda one, _, now: one.connected(now),
    "unconnected": lambda one, step, now: one.unconnected(
        endings.of(step.ending), step.more, now, unreached=step.unreached
    ),
    "sent": lambda one, _, now: one.sent(now),
    "outgrew": lambda one, _, __: one.outgrew(),
    "client_owes": lambda one, step, _: one.client_owes(begins=step.begins),
    "head": lambda one, step, now: one.head(step.status, step.far_flag, now),
    "passed": lambda one, _, now: one.passed(now),
    "ended": lambda one, step, now: one.ended(endings.of(step.ending), step.more, now),
    "due": lambda one, _, now: one.due(now),
    "left": lambda one, _, __: one.left(),
    "revoked": lambda one, _, __: one.revoked(),
    "close": lambda one, _, now: one.close(now),
}
_INBOUND_INPUTS: Final[dict[str, Callable[[InboundExchange, _Step], Action | None]]] = {
    "body_taken": lambda one, _: one.body_taken(),
    "connected": lambda one, step: one.connected(reused=step.reused),
    "unconnected": lambda one, step: one.unconnected(endings.of(step.ending), step.more),
    "sent": lambda one, _: one.sent(),
    "outgrew": lambda one, _: one.outgrew(),
    "head": lambda one, _: one.head(),
    "ended": lambda one, step: one.ended(endings.of(step.ending), step.more),
    "left": lambda one, _: one.left(),
    "revoked": lambda one, _: one.revoked(),
    "close": lambda one, _: one.close(),
}
