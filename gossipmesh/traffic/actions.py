"""What an exchange is told and what it has its engine do: values, none of which holds a socket or a clock.

Inputs are methods of `gossipmesh.traffic.exchange`; each returns one of these actions, and what concerns
others goes to the effects of `gossipmesh.traffic.ground`. Engines do an action and say how it went.
"""

import msgspec

from gossipmesh.model.instant import Instant
from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import SnapshotEndpoint
from gossipmesh.traffic.endings import Ending
from gossipmesh.traffic.routing import Headers


class Request(msgspec.Struct, frozen=True):
    """What is asked, as far as it is decided upon.

    `service` is an explicit port's; None: the host names it. `method` None is a TCP connection. `uid` is the
    local user's, None for nobody known. `waits_for_body`: part of a body is not there yet. `looped`: it
    passed too many engines. `last_stop`: it may not go further (Max-Forwards).
    """

    service: str | None
    host: str = ""
    path: str = "*"
    method: str | None = None
    headers: Headers = ()
    uid: int | None = None
    waits_for_body: bool = False
    looped: bool = False
    last_stop: bool = False


class Ask(msgspec.Struct, frozen=True, tag_field="do", tag="ask"):
    """Ask the agent for a service's routes; say `routes_came` when they did, or will not."""

    service: str


class TakeBody(msgspec.Struct, frozen=True, tag_field="do", tag="take_body"):
    """Read what is small enough to be kept whole; say `body_taken`."""


class Connect(msgspec.Struct, frozen=True, tag_field="do", tag="connect"):
    """Take a connection to an endpoint, or make one; say `connected` or `unconnected`."""

    endpoint: SnapshotEndpoint


class ConnectWorkload(msgspec.Struct, frozen=True, tag_field="do", tag="connect_workload"):
    """Take a connection to a workload of this node, or make one; say `connected` or `unconnected`."""

    registration: str
    address: Address


class Wait(msgspec.Struct, frozen=True, tag_field="do", tag="wait"):
    """Do nothing until then; say `due`."""

    until: Instant


class Relay(msgspec.Struct, frozen=True, tag_field="do", tag="relay"):
    """Pass the answer on; from a TCP workload on, carry bytes both ways."""


class Drop(msgspec.Struct, frozen=True, tag_field="do", tag="drop"):
    """Pass nothing of the answer on; say `ended` when the stream is done with."""


class Reset(msgspec.Struct, frozen=True, tag_field="do", tag="reset"):
    """End the try's stream, and give up its connection if there is none yet; say `ended` or `unconnected`.

    `client`: nobody is to be answered, end the client's side as well.
    """

    ending: Ending
    client: bool = False


class Answer(msgspec.Struct, frozen=True, tag_field="do", tag="answer"):
    """Answer for the engine itself, as `ending` says, what nothing has been answered to yet.

    `reason` is what the client is told; the flags are the exchange's.
    """

    ending: Ending
    reason: str


class Finish(msgspec.Struct, frozen=True, tag_field="do", tag="finish"):
    """Nothing is left to do: the answer went out whole."""


class Cut(msgspec.Struct, frozen=True, tag_field="do", tag="cut"):
    """End the client's connection: there is no client, or what it has must not look whole."""


Action = Ask | TakeBody | Connect | ConnectWorkload | Wait | Relay | Drop | Reset | Answer | Finish | Cut
RELAY = Relay()
DROP = Drop()
TAKE_BODY = TakeBody()
FINISH = Finish()
CUT = Cut()


class Counted(msgspec.Struct, frozen=True):
    """Something an operator may want to know happened once more."""

    name: str
