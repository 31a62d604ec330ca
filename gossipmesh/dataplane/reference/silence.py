"""Who has said nothing yet: all such connections of a room wait here together, without a task for any.

Rules: a connection waits for its first byte, or for its first TLS record whole, and is then handed on, a few
in a turn, or at a pace when its party has all it may have under way; one that ends meanwhile, stays silent
too long or has to make way is ended at once. Nothing is made of it before: who says nothing costs a socket
and a place; a task, or a TLS connection half begun, far more.
"""

import math
import select
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

import trio

_HANDED_ON_PER_TURN: Final = 8
_HANDSHAKES_PER_TURN: Final = 1  # half a millisecond of signing and deriving keys, more where cores are few
_ENDED_PER_TURN: Final = 32
_BROKEN: Final = select.EPOLLERR | select.EPOLLHUP  # told whether asked for or not
_PACE_S: Final = 0.02  # from one handshake to the next of who has its share under way
_RECORD_HEAD_BYTES: Final = 5  # type, version, length (RFC 8446 5.1)
_HANDSHAKE_RECORD: Final = 22
_HELLO_BYTES_MAX: Final = 4_096  # ours have some 300; what is longer is waited for so far


class Waiter(Protocol):
    """A connection that waits here."""

    @property
    def client(self) -> socket.socket:
        """Return its socket, which does not block."""
        ...


W = TypeVar("W", bound=Waiter)


class Silence(Generic[W]):
    """The silent connections of one room."""

    def __init__(
        self,
        silence_s: float,
        speaks: Callable[[W], None],
        ends: Callable[[W], None],
        *,
        shakes_hands: bool = False,
        may_speak: Callable[[W], bool] = lambda _waiter: True,
    ) -> None:
        """Watch nobody yet.

        Args:
            silence_s: how long one may take to its first byte or record; may be infinite.
            speaks: takes a connection that has spoken.
            ends: takes one that is to be closed.
            shakes_hands: whether the first byte begins a TLS handshake.
            may_speak: tells whether one that has spoken is handed on at once, or at a pace.
        """
        self._silence_s = silence_s
        self._speaks = speaks
        self._ends = ends
        self._shakes_hands = shakes_hands
        self._poller = select.epoll()
        self._waiting: OrderedDict[int, tuple[float, W]] = OrderedDict()  # by descriptor, as they came
        self._wanted: dict[int, int] = {}  # bytes lacking of a record that has begun, with what came of it
        self._held_back: OrderedDict[int, W] = OrderedDict()  # by descriptor, as they spoke
        self._next_s = 0.0  # when the next of them is handed on
        self._may_speak = may_speak
        self._rest = trio.CancelScope()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, waiter: W) -> None:
        """Have a connection wait.

        Raises:
            OSError: the kernel watches no more of them (ENOSPC, ENOMEM). State: it does not wait.
        """
        descriptor = waiter.client.fileno()
        self._poller.register(descriptor, select.EPOLLIN)
        due = trio.current_time() + self._silence_s
        self._waiting[descriptor] = (due, waiter)
        if self._rest.deadline > due:
            self._rest.deadline = due  # there was nobody to expire before

    def end(self, waiter: W) -> None:
        """End one that waits."""
        self._forget(waiter.client.fileno())
        self._ends(waiter)

    async def run(self) -> None:
        """Hand on and end until cancelled, then end all."""
        try:
            while True:
                with trio.CancelScope(deadline=self._due()) as self._rest:
                    await trio.lowlevel.wait_readable(self._poller.fileno())
                self._expire()
                self._let_in()
                self.look()
        finally:
            for _due, waiter in list(self._waiting.values()):
                self.end(waiter)
            self._poller.close()

    def look(self) -> None:
        """Hand on those that have spoken by now, and end those that have ended; a turn's worth at most."""
        most = _HANDSHAKES_PER_TURN if self._shakes_hands else _HANDED_ON_PER_TURN
        for descriptor, event in self._poller.poll(0, _ENDED_PER_TURN):
            waiter = self._waiting[descriptor][1]
            spoke = False if event & _BROKEN else self._spoke(descriptor, waiter.client)
            if spoke is None:
                continue
            if not spoke:
                self.end(waiter)
                continue
            if not most:
                return
            most -= 1
            if self._may_speak(waiter):
                self._forget(descriptor)
                self._speaks(waiter)
            else:
                self._hold_back(descriptor, waiter)

    def _hold_back(self, descriptor: int, waiter: W) -> None:
        self._poller.modify(descriptor, 0)  # a reset is still told
        self._held_back[descriptor] = waiter
        self._next_s = max(self._next_s, trio.current_time())
        self._rest.deadline = min(self._rest.deadline, self._next_s)

    def _let_in(self) -> None:
        """Hand on the next of those held back, if it is time."""
        now = trio.current_time()
        if self._held_back and now >= self._next_s:
            descriptor, waiter = next(iter(self._held_back.items()))
            self._next_s = now if self._may_speak(waiter) else now + _PACE_S
            self._forget(descriptor)
            self._speaks(waiter)

    def _due(self) -> float:
        return min(self._expires_s(), self._next_s if self._held_back else math.inf)

    def _expires_s(self) -> float:
        for due, _waiter in self._waiting.values():
            return due
        return math.inf

    def _expire(self) -> None:
        now = trio.current_time()
        for _ in range(_ENDED_PER_TURN):
            if self._expires_s() > now:
                return
            self.end(next(iter(self._waiting.values()))[1])

    def _forget(self, descriptor: int) -> None:
        del self._waiting[descriptor]
        self._wanted.pop(descriptor, None)
        self._held_back.pop(descriptor, None)
        self._poller.unregister(descriptor)

    def _spoke(self, descriptor: int, client: socket.socket) -> bool | None:
        """Tell whether all that is waited for is there; None: not yet, False: it has ended before."""
        try:
            if not self._shakes_hands:
                return bool(client.recv(1, socket.MSG_PEEK))
            return self._record_came(descriptor, client)
        except BlockingIOError:
            return None
        except OSError:
            return False

    def _record_came(self, descriptor: int, client: socket.socket) -> bool | None:
        lacked = self._wanted.get(descriptor, 1)
        wanted = max(lacked, _RECORD_HEAD_BYTES)
        came = client.recv(_RECORD_HEAD_BYTES + _HELLO_BYTES_MAX, socket.MSG_PEEK)
        if len(came) < lacked:
            return False  # the kernel was to wake us for no less, unless it ends
        if len(came) >= _RECORD_HEAD_BYTES:
            if came[0] != _HANDSHAKE_RECORD:
                wanted = 0  # OpenSSL has the words for it
            else:
                wanted = _RECORD_HEAD_BYTES + min(int.from_bytes(came[3:5], "big"), _HELLO_BYTES_MAX)
        whole = len(came) >= wanted
        if lacked > 1 or not whole:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 if whole else wanted)
        if not whole:
            self._wanted[descriptor] = wanted
        return True if whole else None
