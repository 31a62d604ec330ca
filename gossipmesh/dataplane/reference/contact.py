"""Noticing that this node is cut off, and that it is not any more.

Responsible for what no failed connection tells: open connections to a node that acknowledges nothing, and
contact that returns while everything goes elsewhere. What follows is `gossipmesh.traffic.isolation`'s.
"""

import socket
from typing import Final

import trio

from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.dataplane.reference.tries import Attempt
from gossipmesh.model.member import Address
from gossipmesh.net.byte_stream import connect

LOOK_S: Final = 0.25
ASK_S: Final = 0.5
ASK_TIMEOUT_S: Final = 1.0
_RETRANSMITS_MIN: Final = 2  # the second is sent 0.6 s after the first loss; one loss is no silence
_TCP_INFO_RETRANSMITS: Final = 2  # struct tcp_info, byte 2


class ContactWatch:
    """Watches tries under way, and asks lost nodes for a sign of life; `run` it."""

    def __init__(self, state: EngineState) -> None:
        self._state = state
        self._asked: list[str] = []

    async def run(self) -> None:
        """Watch until cancelled; nothing runs while no try is under way."""
        while True:
            await self._state.attempts.wait_busy()
            await trio.sleep(LOOK_S)
            self.look()
            if self._state.ground.states.isolation.isolated:
                await self._ask_until_reached()

    def look(self) -> None:
        """Note the nodes that have not acknowledged what went to them since the last look.

        Cost: one getsockopt for each try that waits for its answer since before the last look.
        """
        for attempt in self._state.attempts.turn():
            downstream = attempt.downstream
            waits = downstream is not None and not downstream.response_started
            if attempt.node and waits and _is_silent(attempt):
                self._state.unreached(attempt.node)

    async def _ask_until_reached(self) -> None:
        """Connect to one lost node after another; whoever takes it, or refuses it, is reached."""
        state = self._state
        while state.ground.states.isolation.isolated:
            await trio.sleep(ASK_S)
            self.look()
            found = self._next_lost()
            if found is None:
                continue
            node, address = found
            try:
                with trio.fail_after(ASK_TIMEOUT_S):
                    (await connect(address, mesh=True)).close()
            except ConnectionRefusedError:
                pass  # an answer all the same
            except (OSError, trio.TooSlowError):
                continue
            state.reached(node, now())

    def _next_lost(self) -> tuple[str, Address] | None:
        """Return the lost node asked longest ago, and where it listens."""
        applied, isolation = self._state.applied, self._state.ground.states.isolation
        sections = () if applied is None else applied.tables.upstreams.values()
        lost = {
            endpoint.node: endpoint.address
            for section in sections
            for endpoint in section.endpoints
            if endpoint.node != isolation.own
        }
        self._asked = [node for node in self._asked if node in lost]
        fresh = [node for node in lost if node not in self._asked]
        if not lost:
            return None
        node = fresh[0] if fresh else self._asked.pop(0)
        self._asked.append(node)
        return node, lost[node]


def _is_silent(attempt: Attempt) -> bool:
    """Tell whether what was sent for a try is being sent again and again."""
    if attempt.connection is None:
        return False
    try:
        info = attempt.connection.stream.socket.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_RETRANSMITS + 1
        )
    except OSError:
        return False  # closed here
    return info[_TCP_INFO_RETRANSMITS] >= _RETRANSMITS_MIN
