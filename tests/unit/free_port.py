"""Ports for tests that run side by side, where a server of another process must be told one."""

import itertools
import os
import socket
from typing import Final

# Below those the kernel gives to whoever asks for none; each process has 64 of its own.
_PORTS: Final = itertools.count(20_000 + os.getpid() % 180 * 64)


def free_port() -> int:
    """Return a port nobody has on any address, nor is given until the test has used it."""
    for port in _PORTS:
        try:
            socket.create_server(("0.0.0.0", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("ports do not end")
