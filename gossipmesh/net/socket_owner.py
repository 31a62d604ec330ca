"""Whose process is at the other end of a connection on this machine: uid by netlink sock_diag.

Unprivileged, one request and one answer, about 20 us. Rule: only a socket that a process still holds
has an owner. The kernel reports uid 0 for orphans and TIME_WAIT, so those are answered None, or
closing quickly would be a way to become root.

Spec: sock_diag(7).
"""

import errno
import os
import socket
import struct
from typing import Final

from gossipmesh.model.member import Address

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_ALL_STATES: Final = 0xFFFFFFFF
_NO_COOKIE: Final = 0xFFFFFFFF
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBBI HH 16s16s III".replace(" ", ""))
_SOCKET_ID_BYTES: Final = 48
# struct inet_diag_msg: family, state, timer, retrans, then the id, then expires, rqueue, wqueue, uid, inode
_TAIL: Final = struct.Struct("=IIIII")
_TAIL_OFFSET: Final = _HEADER.size + 4 + _SOCKET_ID_BYTES
_HELD_STATES: Final = frozenset({1, 2, 3, 4, 5, 8, 9})  # established to close-wait; not TIME_WAIT, CLOSE


class SocketOwners:
    """One netlink socket, kept open; call `close` when done."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
        )
        self._socket.bind((0, 0))
        self._socket.settimeout(0.1)  # the kernel answers while we send; this only bounds a broken one
        self._sequence = 0

    def uid_of(self, local: Address, remote: Address) -> int | None:
        """Return the uid holding the TCP socket bound to `local` and connected to `remote`.

        Both are as that socket sees them. None: no such socket here, or no process holds it any more.

        Raises:
            OSError: netlink itself failed. Local fault. State unchanged.
        """
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        family = socket.AF_INET6 if ":" in local.host else socket.AF_INET
        request = _REQUEST.pack(
            family,
            socket.IPPROTO_TCP,
            0,
            0,
            _ALL_STATES,
            socket.htons(local.port),
            socket.htons(remote.port),
            _packed(family, local.host),
            _packed(family, remote.host),
            0,
            _NO_COOKIE,
            _NO_COOKIE,
        )
        header = _HEADER.pack(
            _HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, self._sequence, 0
        )
        self._socket.send(header + request)
        while True:
            answer = self._socket.recv(4096)
            _length, kind, _flags, sequence, _port = _HEADER.unpack_from(answer)
            if sequence == self._sequence:
                return self._read(kind, answer)

    def holds_other_end(self, sock: socket.socket) -> bool:
        """Tell whether a process of this machine still holds what `sock` is connected to.

        True as well when nobody can tell. Cost: one question to the kernel, some 20 microseconds.
        """
        try:
            peer, own = sock.getpeername(), sock.getsockname()
            return self.uid_of(Address(peer[0], peer[1]), Address(own[0], own[1])) is not None
        except OSError:
            return True

    def _read(self, kind: int, answer: bytes) -> int | None:
        if kind == _NLMSG_ERROR:
            code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
            if code in (errno.ENOENT, 0):
                return None
            raise OSError(code, f"sock_diag: {os.strerror(code)}")
        if kind != _SOCK_DIAG_BY_FAMILY or len(answer) < _TAIL_OFFSET + _TAIL.size:
            return None
        state = answer[_HEADER.size + 1]
        _expires, _received, _sent, uid, inode = _TAIL.unpack_from(answer, _TAIL_OFFSET)
        return int(uid) if inode and state in _HELD_STATES else None

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()


def _packed(family: socket.AddressFamily, host: str) -> bytes:
    return socket.inet_pton(family, host.partition("%")[0]).ljust(16, b"\0")
