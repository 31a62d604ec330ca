"""The engine's listening sockets: made once, here, and kept from engine to engine.

A socket found in a running engine is used again when it listens where the configuration says.
"""

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

from gossipmesh.agent.engine.port_holder import engine_holding
from gossipmesh.agent.logs import fields
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address
from gossipmesh.net.streams import listen

log = logging.getLogger("gossipmesh.agent.listeners")

_BACKLOG = 4_096  # the kernel takes net.core.somaxconn when that is less; a queue that is full costs a second

HandOver = Callable[[Mapping[str, socket.socket]], Awaitable[None]]


def port_error(error: OSError, bind: Address, protocol: str, key: str) -> OperatorError:
    """Return the sentence for an address that cannot be had; `key` is the configuration's."""
    advice = {
        errno.EADDRINUSE: "stop what uses that port, or change the key",
        errno.EADDRNOTAVAIL: "this machine has no such address: change the key",
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE: change the key",
    }.get(error.errno or 0, "change the key")
    reason = os.strerror(error.errno or 0)
    if error.errno == errno.EADDRINUSE and protocol == "tcp" and (pid := engine_holding(bind)) is not None:
        reason += f" by a gossipmesh engine (process {pid})"
        advice = (
            f"end it with `gossipmesh leave` where its agent runs, or `kill {pid}` when none does, "
            "or change the key"
        )
    return OperatorError(
        f"cannot listen on {bind}/{protocol} ({key}): {reason}; {advice}; nothing was started"
    )


def require_free(name: str, bind: Address) -> None:
    """Check that the listener `name` could be had at `bind`.

    Raises:
        OperatorError: it could not. State unchanged.
    """
    try:
        listen(bind).close()
    except OSError as error:
        raise port_error(error, bind, "tcp", f"spec.{name}.bind") from None


class Listeners:
    """All sockets an engine listens on, by the names of the engine protocol."""

    def __init__(self, found: Mapping[str, socket.socket]) -> None:
        """`found` are duplicates taken from a running engine, owned from now on by this."""
        self._found = dict(found)
        self.sockets: dict[str, socket.socket] = {}
        self.problems: dict[str, str] = {}

    async def take_fixed(self, binds: Mapping[str, Address], hand_over: HandOver) -> None:
        """Have the fixed listeners at `binds`; what a running engine holds of their ports, it gives up first.

        `hand_over` gives listeners to that engine; one it holds by the same name is closed there.

        Raises:
            OperatorError: an address cannot be had; the engine has its listeners back, as far as that goes.
        """
        moved = self._in_the_way(binds)
        if moved:
            await self._have_closed(moved, hand_over)
        try:
            for name, bind in binds.items():
                self.bind_fixed(name, bind)
        except OperatorError:
            for name in set(binds) & self.sockets.keys():
                self.sockets.pop(name).close()
            await self._put_back(moved, hand_over)
            raise

    def _in_the_way(self, binds: Mapping[str, Address]) -> dict[str, Address]:
        """Return what the engine listens on at a port that is wanted for something else, or otherwise."""
        ports = {bind.port for bind in binds.values()}
        found = {name: Address(*sock.getsockname()[:2]) for name, sock in self._found.items()}
        return {name: at for name, at in found.items() if at.port in ports and binds.get(name) != at}

    async def _have_closed(self, moved: Mapping[str, Address], hand_over: HandOver) -> None:
        """Have the engine close listeners: it gets others by their names, which nobody knows of."""
        log.info("ports of the engine change hands", extra=fields(listeners=sorted(moved)))
        stand_ins = {name: listen(Address("127.0.0.1", 0)) for name in moved}
        try:
            await hand_over(stand_ins)
        finally:
            for sock in stand_ins.values():
                sock.close()
        for name in moved:
            self._found.pop(name).close()

    async def _put_back(self, moved: Mapping[str, Address], hand_over: HandOver) -> None:
        back: dict[str, socket.socket] = {}
        try:
            for name, at in moved.items():
                back[name] = listen(at, _BACKLOG)
            await hand_over(back)
        except (OSError, OperatorError) as error:
            log.error("the engine's ports could not be put back: %s", error)
        finally:
            for sock in back.values():
                sock.close()

    def bind_fixed(self, name: str, bind: Address) -> None:
        """Have the listener `name` at `bind`.

        Raises:
            OperatorError: the address cannot be had. State unchanged.
        """
        try:
            self.sockets[name] = self._reuse(name, bind) or listen(bind, _BACKLOG)
        except OSError as error:
            raise port_error(error, bind, "tcp", f"spec.{name}.bind") from None

    def set_upstreams(self, wanted: Mapping[str, Address]) -> bool:
        """Have exactly these explicit upstream ports; one that cannot be had is a problem, tried again.

        Returns:
            Whether the sockets changed. Those no longer wanted are left out, and closed by who holds them.
        """
        before = dict(self.sockets)
        for name in [name for name in self.sockets if "/" in name and name not in wanted]:
            del self.sockets[name]
        problems: dict[str, str] = {}
        for name, bind in wanted.items():
            if name not in self.sockets:
                try:
                    self.sockets[name] = self._reuse(name, bind) or listen(bind, _BACKLOG)
                except OSError as error:
                    problems[name] = f"cannot listen on {bind}/tcp for {name}: {error.strerror}"
        for name, problem in problems.items():
            if problem != self.problems.get(name):
                log.error("%s; free that port or change spec.upstreams", problem, extra=fields(listener=name))
        self.problems = problems
        return self.sockets != before

    def close_unused(self) -> None:
        """Close what a running engine held and nobody wants any more."""
        for sock in self._found.values():
            sock.close()
        self._found = {}

    def _reuse(self, name: str, bind: Address) -> socket.socket | None:
        sock = self._found.get(name)
        if sock is None or sock.getsockname()[:2] != (bind.host, bind.port):
            return None
        return self._found.pop(name)
