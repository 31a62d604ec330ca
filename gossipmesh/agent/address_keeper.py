"""Follows this machine's addresses while the agent runs: what it found at its start it finds again.

Responsible for which address others are told, and since when it is lost. Rules:
1. What is told stays as long as the machine has it, however many come beside it.
2. Only an address that the agent found is found again: what the configuration names and the machine loses
   is an error, said in the log and by `check`, and nothing else is told in its place.
3. One publication in a few seconds: an address that flaps is everybody's traffic. What waits is counted.
4. Where the kernel tells no news, the addresses are looked at every few seconds, and the log says so.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final

import trio

from gossipmesh.agent.addresses import configured_losses
from gossipmesh.agent.config import AgentConfig
from gossipmesh.agent.logs import fields
from gossipmesh.agent.state.restore import own_address
from gossipmesh.gossip.base.settings import NodeAddresses
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeState
from gossipmesh.net.address_news import AddressNews, has_address

log = logging.getLogger("gossipmesh.agent.addresses")

_PUBLISH_GAP_S: Final = 3.0  # a change has gone round in a tenth of that
_SOON_S: Final = 0.05
_POLL_S: Final = 3.0
_LOST_S: Final = 0.5  # a route may come after the address, and of routes no news comes
_REST_S: Final = 60.0


class AddressKeeper:
    """Looks when the kernel tells of a change, and tells what came of it."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        state: Callable[[], NodeState],
        towards: Callable[[], Sequence[Address]],
        publish: Callable[[NodeAddresses], None],
        listen: Callable[[], AddressNews] = AddressNews,
    ) -> None:
        """`state` is what others are told now, `towards` where they are; `publish` tells them anew."""
        self.lost: dict[str, str] = {}
        self.published_count = 0
        self.held_back_count = 0
        self._config = config
        self._state = state
        self._towards = towards
        self._publish = publish
        self._listen = listen
        self._once_here: set[str] = set()
        self._waiting: NodeAddresses | None = None
        self._free_at = 0.0

    @property
    def follows(self) -> bool:
        """Tell whether an address that is lost is looked for: one of those told was found, not configured."""
        return self._config.gossip_advertise is None or self._config.mesh_advertise is None

    async def run(self) -> None:
        """Follow until cancelled."""
        with closing(self._listen()) as news:
            if news.why_not is not None:
                text = "the kernel tells no news of addresses (%s): they are looked at every %g s"
                log.warning(text, news.why_not, _POLL_S)
            while True:
                self.look()
                await news.wait(self._rest_s(_REST_S if news.is_told else _POLL_S))

    def _rest_s(self, most_s: float) -> float:
        if self._waiting is not None:
            return max(_SOON_S, self._free_at - trio.current_time())
        return _LOST_S if self.lost and self.follows else most_s

    def look(self) -> None:
        """See which addresses are here, say which are lost, and tell others of a new one."""
        config, state = self._config, self._state()
        lost = configured_losses(config, self._once_here)
        told = NodeAddresses(state.gossip_addresses, state.mesh_addresses)
        found = NodeAddresses(
            self._where("gossip", config.gossip_bind, config.gossip_advertise, told.gossip, lost),
            self._where("mesh", config.mesh_bind, config.mesh_advertise, told.mesh, lost),
        )
        self._say(lost)
        if found == told:
            self._waiting = None
        elif trio.current_time() >= self._free_at:
            self._tell(told, found)
        elif found != self._waiting:
            self._waiting = found
            self.held_back_count += 1

    def _where(
        self,
        section: str,
        bind: Address,
        advertise: Address | None,
        told: tuple[Address, ...],
        lost: dict[str, str],
    ) -> tuple[Address, ...]:
        """Return where this node is found by a listener; what is lost and not found again is noted."""
        host = told[0].host
        if advertise is not None or has_address(host):
            return told
        try:
            return (own_address(bind, None, self._towards(), section),)
        except OperatorError:
            lost[f"spec.{section}.bind"] = host
            return told

    def _tell(self, told: NodeAddresses, found: NodeAddresses) -> None:
        self._waiting = None
        self._free_at = trio.current_time() + _PUBLISH_GAP_S
        self.published_count += 1
        now, before = ([str(a) for a in (*one.gossip, *one.mesh)] for one in (found, told))
        text = "this machine has another address: others find this node at %s from now on, no more at %s"
        log.warning(text, ", ".join(now), ", ".join(before), extra=fields(now=now, before=before))
        self._publish(found)

    def _say(self, lost: dict[str, str]) -> None:
        """Log what was lost, or came back, since the last look."""
        for key in [key for key in lost if self.lost.get(key) != lost[key]]:
            if self._is_followed(key):
                text = "this machine has lost %s, where others find this node, and no other leads to them yet"
                log.warning(text, lost[key], extra=fields(key=key))
            else:
                text = (
                    "this machine has lost %s, which %s names: nothing that others send there arrives, and "
                    "they are told no other; give the machine that address back, or change the key and "
                    "restart the agent"
                )
                log.error(text, lost[key], key, extra=fields(key=key))
        for key in [key for key in self.lost if key not in lost]:
            log.info("what was lost is there again, or replaced: %s", self.lost[key], extra=fields(key=key))
        self.lost = lost

    def _is_followed(self, key: str) -> bool:
        section = key.split(".")[1]
        advertise = {"gossip": self._config.gossip_advertise, "mesh": self._config.mesh_advertise}
        return section in advertise and advertise[section] is None
