"""Parties that take more than their share: programs that flood a listener, run beside a mesh under test.

`python -m gossipmesh.testing.floods KIND --to ADDRESS:PORT ...` does one of these until it is killed:

* `idle`: holds `--count` connections open and says nothing, opening anew what the other end closes;
* `half-hellos`: the same, but each has sent half of a TLS client's first message;
* `hellos`: the same with the whole message, and nothing after it;
* `chunks`: sends one request of `--count` chunks of one byte after the other, and reads the answers;
* `names`: asks for `--count` services that do not exist, `--rate` a second;
* `answers`: asks for one answer of `--count` chunks of one byte after the other.

`--uid` becomes another user first (needs root), `--from` is the address connections come from: a flood of
another party must not be taken for its good neighbours. Prints `progress` twice a second, as JSON lines.
Nothing of it uses trio: ten thousand connections cost this process little, so that it is the flooded side
that is measured.
"""

import argparse
import json
import os
import resource
import select
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from gossipmesh.model.instant import SECOND_NS
from gossipmesh.net import clock

PROGRESS_INTERVAL_S: Final = 0.5
OPENED_PER_TURN_MAX: Final = 200
REOPENED_PER_TURN_MAX: Final = 10
TURN_S: Final = 0.05
ANSWER_TIMEOUT_S: Final = 60.0
PAUSE_S: Final = 0.05
CHUNK_BYTES: Final = 65_536
SPARE_DESCRIPTORS: Final = 32
REST: Final = threading.Event()  # never set: what is waited on when nothing is to be done
NICE: Final = 5  # a flood is to cost whom it floods, not the machine


class Tally:
    """What a flood did so far."""

    def __init__(self) -> None:
        self.open = 0
        self.opened = 0
        self.closed = 0
        self.failed = 0
        self.sent = 0
        self.answers: dict[str, int] = {}

    def answered(self, said: str) -> None:
        """Count an answer by its status, or by what came instead of one."""
        self.answers[said] = self.answers.get(said, 0) + 1

    def print(self) -> None:
        """Print everything as one line."""
        sys.stdout.write(json.dumps({"type": "progress", **vars(self)}) + "\n")
        sys.stdout.flush()


class Place:
    """Where a flood goes to and comes from: ADDRESS:PORT, or the path of a Unix socket."""

    def __init__(self, to: str, source: str) -> None:
        self._to = to
        self._source = source

    def start(self) -> socket.socket:
        """Return a socket on its way to be connected."""
        is_path = self._to.startswith("/")
        opened = socket.socket(socket.AF_UNIX if is_path else socket.AF_INET)
        opened.setblocking(False)
        if is_path:
            opened.connect_ex(self._to)
            return opened
        if self._source:
            # The port is chosen when it connects: ten thousand sockets share none with anybody else.
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
            opened.bind((self._source, 0))
        host, _, port = self._to.rpartition(":")
        opened.connect_ex((host, int(port)))
        return opened

    def connect(self) -> socket.socket:
        """Return a connected socket that blocks, with a timeout."""
        opened = self.start()
        opened.settimeout(ANSWER_TIMEOUT_S)
        ready = select.poll()
        ready.register(opened, select.POLLOUT)
        ready.poll(int(ANSWER_TIMEOUT_S * 1000))
        error = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            opened.close()
            raise OSError(error, os.strerror(error))
        return opened


class Held:
    """Connections held open by one epoll."""

    def __init__(self, places: list[Place], tally: Tally) -> None:
        self._places = places
        self._tally = tally
        self._poller = select.epoll()
        self._held: dict[int, socket.socket] = {}

    def __len__(self) -> int:
        return len(self._held)

    def open(self, events: int) -> None:
        """Open one more, at the next place."""
        try:
            opened = self._places[self._tally.opened % len(self._places)].start()
        except OSError:
            self._tally.failed += 1
            return
        self._held[opened.fileno()] = opened
        self._tally.opened += 1
        self._tally.open = len(self._held)
        self._poller.register(opened, events)

    def modify(self, held: socket.socket, events: int) -> None:
        """Wait for something else on one of them."""
        self._poller.modify(held, events)

    def close(self, held: socket.socket) -> None:
        """Give one up."""
        del self._held[held.fileno()]
        held.close()
        self._tally.closed += 1
        self._tally.open = len(self._held)

    def turn(self) -> Iterator[tuple[socket.socket, int]]:
        """Yield those on which something happened, then rest until the turn is over."""
        deadline_s = _now_s() + TURN_S
        for descriptor, event in self._poller.poll(TURN_S, OPENED_PER_TURN_MAX):
            yield self._held[descriptor], event
        REST.wait(max(0.0, deadline_s - _now_s()))


def hold_idle(places: list[Place], count: int, tally: Tally, said: bytes = b"") -> None:
    """Hold `count` connections over all places, for good; what was closed is opened anew, more slowly."""
    held = Held(places, tally)
    waiting = select.EPOLLIN | select.EPOLLRDHUP
    while True:
        is_first = tally.opened + tally.failed < count
        most = OPENED_PER_TURN_MAX if is_first else REOPENED_PER_TURN_MAX
        for _ in range(min(most, count - len(held))):
            held.open(waiting | (select.EPOLLOUT if said else 0))
        for connection, event in held.turn():
            if event & select.EPOLLOUT and _say(connection, said):
                tally.sent += 1
                held.modify(connection, waiting)
            elif not _still_open(connection):
                held.close(connection)


def _half(message: bytes) -> bytes:
    return message[: len(message) // 2]


def _say(held: socket.socket, said: bytes) -> bool:
    try:
        return held.send(said) == len(said)
    except OSError:
        return False


def client_hello(name: str) -> bytes:
    """Return a TLS client's first message to a server of that name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=cast(Any, name.encode()))
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def _still_open(held: socket.socket) -> bool:
    """Take what was said unasked; tell whether the connection is still open."""
    try:
        return bool(held.recv(CHUNK_BYTES))
    except BlockingIOError:
        return True
    except OSError:
        return False


def exchange(place: Place, request: bytes, tally: Tally) -> None:
    """Send one request on a connection of its own, and read its answer until the other end closes."""
    try:
        with place.connect() as connection:
            tally.opened += 1
            sender = threading.Thread(target=_send, args=(connection, request), daemon=True)
            sender.start()
            answer, received = b"", b"-"
            while received:
                received = connection.recv(CHUNK_BYTES)
                answer = answer or received
            sender.join(ANSWER_TIMEOUT_S)
    except OSError as error:
        tally.answered(error.strerror or type(error).__name__)
        return
    tally.sent += 1
    tally.answered(_status(answer))


def _send(connection: socket.socket, request: bytes) -> None:
    try:
        connection.sendall(request)
    except OSError:
        return  # it was answered early, or cut off; the reader sees which


def send_chunks(places: list[Place], count: int, tally: Tally, host: str) -> None:
    """Send requests of `count` one-byte chunks, one after the other."""
    head = f"POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    request = head.encode() + b"1\r\na\r\n" * count + b"0\r\n\r\n"
    while True:
        exchange(places[0], request, tally)
        REST.wait(PAUSE_S)


def ask_for_chunks(places: list[Place], count: int, tally: Tally, host: str) -> None:
    """Ask for answers of `count` one-byte chunks, one after the other."""
    request = f"GET /chunks/{count} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    while True:
        exchange(places[0], request, tally)
        REST.wait(PAUSE_S)


def ask_for_names(places: list[Place], count: int, tally: Tally, rate_per_s: float) -> None:
    """Ask for `count` services nobody knows, `rate_per_s`, whatever becomes of earlier ones; then rest."""
    held = Held(places, tally)
    start_s = _now_s()
    while True:
        due = min(count, int((_now_s() - start_s) * rate_per_s) + 1) - tally.opened - tally.failed
        for _ in range(min(due, OPENED_PER_TURN_MAX)):
            held.open(select.EPOLLOUT)
        for connection, event in held.turn():
            if event & select.EPOLLOUT:
                tally.sent += 1
                name = f"n{os.getpid()}x{tally.sent}.shop"
                connection.send(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
                held.modify(connection, select.EPOLLIN)
                continue
            try:
                tally.answered(_status(connection.recv(CHUNK_BYTES)))
            except OSError as error:
                tally.answered(error.strerror or type(error).__name__)
            held.close(connection)


def _status(answer: bytes) -> str:
    return answer.split(b"\r\n")[0].decode("latin-1")[:40] or "nothing"


def _now_s() -> float:
    return clock.monotonic() / SECOND_NS


def _report(tally: Tally) -> None:
    while True:
        tally.print()
        REST.wait(PROGRESS_INTERVAL_S)


def become(uid: int) -> None:
    """Take every descriptor this process may have, and go on as another user with no group of ours."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.nice(NICE)
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)


def main() -> None:
    """Flood until killed."""
    parser = argparse.ArgumentParser(prog="gossipmesh.testing.floods")
    parser.add_argument("kind", choices=["idle", "half-hellos", "hellos", "chunks", "answers", "names"])
    parser.add_argument("--to", action="append", required=True, metavar="ADDRESS:PORT|/PATH")
    parser.add_argument("--from", dest="source", default="", metavar="ADDRESS")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--uid", type=int, default=os.geteuid())
    parser.add_argument("--host", default="", help="the service, or server, asked for")
    parser.add_argument("--rate", type=float, default=200.0, help="names a second")
    options = parser.parse_args()
    become(options.uid)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS
    places, tally = [Place(to, options.source) for to in options.to], Tally()
    kinds: dict[str, Callable[[], None]] = {
        "idle": lambda: hold_idle(places, min(options.count, most), tally),
        "half-hellos": lambda: hold_idle(
            places, min(options.count, most), tally, _half(client_hello(options.host))
        ),
        "hellos": lambda: hold_idle(places, min(options.count, most), tally, client_hello(options.host)),
        "chunks": lambda: send_chunks(places, options.count, tally, options.host),
        "answers": lambda: ask_for_chunks(places, options.count, tally, options.host),
        "names": lambda: ask_for_names(places, options.count, tally, options.rate),
    }
    threading.Thread(target=_report, args=(tally,), daemon=True).start()
    kinds[options.kind]()


if __name__ == "__main__":
    main()
