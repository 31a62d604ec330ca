"""What an agent listens on itself, and where its engine is to listen."""

import socket
from contextlib import ExitStack

from gossipmesh.agent.config import AgentConfig
from gossipmesh.agent.engine.listeners import port_error, require_free
from gossipmesh.model.member import Address
from gossipmesh.net.streams import listen
from gossipmesh.net.udp import UdpSocket


class Sockets:
    """What the agent itself listens on, taken before anything is changed anywhere."""

    def __init__(self, config: AgentConfig, stack: ExitStack) -> None:
        """Bind everything.

        Raises:
            OperatorError: an address cannot be had; the sentence names the key to change.
        """
        self._config = config
        try:
            self.udp = UdpSocket(config.gossip_bind)
        except OSError as error:
            raise port_error(error, config.gossip_bind, "udp", "spec.gossip.bind") from None
        stack.callback(self.udp.close)
        self.streams = self._listen(stack, config.gossip_bind, "gossip")
        self.api = self._listen(stack, config.api_bind, "api")
        self.metrics = self._listen(stack, config.metrics_bind, "metrics")

    def require_engine_ports(self) -> None:
        """Check the ports a first engine will need, before a token is spent for nothing."""
        for name, bind in engine_binds(self._config).items():
            require_free(name, bind)

    def _listen(self, stack: ExitStack, bind: Address, section: str) -> socket.socket:
        try:
            listener = listen(bind)
        except OSError as error:
            raise port_error(error, bind, "tcp", f"spec.{section}.bind") from None
        stack.callback(listener.close)
        return listener


def reachable(bind: Address) -> Address:
    """Return the address this machine reaches a listener of its own at."""
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind.host, bind.host), bind.port)


def engine_binds(config: AgentConfig) -> dict[str, Address]:
    """Return the engine's fixed listeners; the protocol's names for them are the configuration's too."""
    return {"mesh": config.mesh_bind, "proxy": config.proxy_bind, "readiness": config.readiness_bind}
