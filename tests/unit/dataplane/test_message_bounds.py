"""How long a message may take and what reading it costs, on streams of memory and a clock of the test's."""

import socket
from collections.abc import Callable
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipmesh.dataplane.reference.body import MessageBody, MessageReader
from gossipmesh.dataplane.reference.forward import BODY_STALL_S, Downstream, Forwarding, StreamEnd
from gossipmesh.dataplane.reference.http1 import (
    MESH_LIMITS,
    OUTER_LIMITS,
    BadMessage,
    FieldsTooLarge,
    ResponseHead,
    TargetTooLong,
    parse_request_untrusted,
    parse_response_untrusted,
)
from gossipmesh.dataplane.reference.pool import PooledConnection
from gossipmesh.model import limits
from gossipmesh.net.byte_stream import PlainStream
from gossipmesh.traffic import endings

GET = b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"


class Scripted(PlainStream):
    """A stream that receives what a script says, after the pauses it says, and keeps what is sent."""

    def __init__(self, *script: bytes | float, forever: tuple[bytes, float] | None = None) -> None:
        super().__init__(socket.socket())
        self._script = list(script)
        self._forever = forever
        self.sent = b""
        self.aborted = False

    async def receive(self) -> bytes:
        while self._script:
            step = self._script.pop(0)
            if isinstance(step, bytes):
                return step
            await trio.sleep(step)
        if self._forever is None:
            await trio.sleep_forever()
            raise AssertionError
        await trio.sleep(self._forever[1])
        return self._forever[0]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def abort(self) -> None:
        self.aborted = True
        super().abort()


class Listening:
    """Whoever is told how a try goes on, and takes any answer."""

    def __init__(self) -> None:
        self.owed: list[bool] = []

    def sent(self) -> None:
        pass

    def head(self, _response: ResponseHead) -> bool:
        return True

    def passed(self) -> None:
        pass

    def outgrew(self) -> None:
        pass

    def client_owes(self, *, begins: bool) -> None:
        self.owed.append(begins)


def exchange(request: bytes, client: Scripted, workload: Scripted) -> Forwarding:
    """Return one try of `request` at `workload`."""
    reader = MessageReader(client)
    downstream = Downstream(reader, parse_request_untrusted(request), 65_536, trio.Event())
    connection = PooledConnection(workload, "", ("", "cart", "127.0.0.1", 1), lambda: None)
    return Forwarding(downstream, connection, Listening())


async def tried(request: bytes, client: Scripted, workload: Scripted) -> StreamEnd:
    """Make the try."""
    end = await exchange(request, client, workload).run(request)
    client.close()
    workload.close()
    return end


@pytest.mark.parametrize("piece_bytes", [1, 7, 1_000])
async def test_a_head_in_pieces_costs_its_bytes(piece_bytes: int) -> None:
    """65,536 bytes, byte by byte: looked at once each, and a few again at each border."""
    head = b"GET / HTTP/1.1\r\nX: ".ljust(limits.HTTP_HEAD_BYTES_MAX - 4, b"y") + b"\r\n\r\n"
    pieces = [head[start : start + piece_bytes] for start in range(0, len(head), piece_bytes)]
    stream = Scripted(*pieces, b"next")
    reader = MessageReader(stream)
    assert await reader.read_head_untrusted() == head
    assert reader.scanned_bytes <= len(head)
    assert await reader.read_some(10) == b"next"
    stream.close()


@pytest.mark.parametrize(
    ("rest", "said"),
    [(b"X: a\nb", "bare LF"), (b"X: " + b"y" * 70_000, "header fields too large")],
    ids=["bare lf", "too large"],
)
@pytest.mark.parametrize("piece_bytes", [1, 70_000])
async def test_a_head_that_cannot_become_right_is_refused_before_its_end(
    rest: bytes, said: str, piece_bytes: int
) -> None:
    data = b"GET / HTTP/1.1\r\n" + rest
    stream = Scripted(*[data[start : start + piece_bytes] for start in range(0, len(data), piece_bytes)])
    with pytest.raises(BadMessage, match=said):
        await MessageReader(stream).read_head_untrusted()
    stream.close()


async def test_a_line_break_split_between_two_reads_is_no_bare_lf() -> None:
    stream = Scripted(b"GET / HTTP/1.1\r", b"\nHost: a\r", b"\n\r", b"\n")
    assert await MessageReader(stream).read_head_untrusted() == b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    stream.close()


async def test_a_head_begun_has_a_time_and_silence_before_it_has_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream = Scripted(1e6, b"GET / HTTP/1.1\r\n", forever=(b"X: y\r\n", 1.0))
    with pytest.raises(BadMessage, match="took longer"):
        await MessageReader(stream).read_head_untrusted()
    assert trio.current_time() - 1e6 == pytest.approx(limits.HTTP_HEAD_TIMEOUT_S, abs=1)
    stream.close()


async def test_a_workload_that_never_ends_its_answers_head_is_502(
    autojump_clock: trio.testing.MockClock,
) -> None:
    end = await tried(GET, Scripted(), Scripted(30.0, b"HTTP/1.1 200 ", forever=(b"H", 1.0)))
    assert end.ending is endings.PROTOCOL_ERROR
    assert "took longer" in end.more


async def test_interim_answers_have_a_time_and_no_number(autojump_clock: trio.testing.MockClock) -> None:
    """102 every 20 s, as WebDAV servers do: an hour of them, not sixteen."""
    client = Scripted()
    end = await tried(GET, client, Scripted(forever=(b"HTTP/1.1 102 Processing\r\n\r\n", 20.0)))
    assert end.ending is endings.PROTOCOL_ERROR
    assert client.sent.count(b"HTTP/1.1 102 ") == pytest.approx(limits.HTTP_INTERIM_TIMEOUT_S / 20, abs=2)


async def test_interim_answers_that_come_at_once_are_passed_in_turns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = Scripted()
    hints = b"HTTP/1.1 103 X\r\n\r\n" * 3_000
    end = await tried(GET, client, Scripted(hints, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    assert (end.ending, end.reusable) == (endings.VIA_UPSTREAM, True)
    assert client.sent.count(b"HTTP/1.1 103 ") == 3_000


async def test_a_body_that_stalls_ends_the_try_with_a_reset(autojump_clock: trio.testing.MockClock) -> None:
    request = b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 900000\r\n\r\n"
    workload = Scripted()
    end = await tried(request, Scripted(b"abc"), workload)
    assert (end.ending, end.more) == (endings.DISCONNECT, "the request's body stalled")
    assert trio.current_time() >= BODY_STALL_S
    assert workload.aborted


@pytest.mark.parametrize("half", [b"5", b"5\r\nab", b"5;x", b"5\r\nabcde", b"0\r\nX-Sum"])
async def test_a_chunk_that_was_begun_may_stall_no_longer(
    autojump_clock: trio.testing.MockClock, half: bytes
) -> None:
    request = b"POST / HTTP/1.1\r\nHost: cart.shop\r\nTransfer-Encoding: chunked\r\n\r\n"
    with trio.fail_after(3 * BODY_STALL_S):
        end = await tried(request, Scripted(b"3\r\nabc\r\n" + half), Scripted())
    assert (end.ending, end.more) == (endings.DISCONNECT, "the request's body stalled")


async def test_consent_is_given_once_though_the_workloads_comes_late(
    autojump_clock: trio.testing.MockClock,
) -> None:
    request = b"POST / HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    client = Scripted(2.0, b"abc")
    end = await tried(request, client, Scripted(3.0, answer))
    assert end.ending is endings.VIA_UPSTREAM
    assert client.sent.count(b"HTTP/1.1 100 ") == 1


async def test_a_body_read_in_two_goes_keeps_its_trailers(autojump_clock: trio.testing.MockClock) -> None:
    """A try that ends while trailers come is followed by one that reads on."""
    stream = Scripted(b"0\r\nX-A: 1\r\n", 5.0, b"X-B:  2 \r\n\r\n")
    body = MessageBody(MessageReader(stream), content_length=None, chunked=True)
    with trio.move_on_after(1.0):
        await body.next()
    assert not body.finished
    assert await body.next() == b""
    assert body.trailers == [(b"x-a", b"1"), (b"x-b", b"2")]
    stream.close()


def fields(count: int) -> bytes:
    """Return a head's part of `count` fields."""
    return b"X: y\r\n" * count


@pytest.mark.parametrize(
    ("parse", "line"),
    [
        (parse_request_untrusted, b"GET / HTTP/1.1\r\nHost: cart.shop\r\n"),
        (parse_response_untrusted, b"HTTP/1.1 200 OK\r\nA: b\r\n"),
    ],
    ids=["request", "answer"],
)
def test_between_engines_a_head_may_have_what_engines_add(parse: Callable[..., object], line: bytes) -> None:
    more = limits.HTTP_HEADROOM_COUNT
    assert parse(line + fields(99) + b"\r\n", OUTER_LIMITS)
    assert parse(line + fields(99 + more) + b"\r\n", MESH_LIMITS)
    with pytest.raises(FieldsTooLarge, match="101"):
        parse(line + fields(100) + b"\r\n", OUTER_LIMITS)
    with pytest.raises(FieldsTooLarge):
        parse(line + fields(100 + more) + b"\r\n", MESH_LIMITS)
    long = line + b"X: " + b"y" * limits.HTTP_HEAD_BYTES_MAX + b"\r\n\r\n"
    assert parse(long, MESH_LIMITS)
    with pytest.raises(FieldsTooLarge):
        parse(long, OUTER_LIMITS)


def test_a_first_line_beyond_the_limit_is_told_from_fields_beyond_it() -> None:
    target = b"GET /" + b"a" * limits.HTTP_HEAD_BYTES_MAX + b" HTTP/1.1\r\nHost: cart.shop\r\n\r\n"
    with pytest.raises(TargetTooLong) as caught:
        parse_request_untrusted(target)
    assert caught.value.status == 414


def test_white_space_without_end_costs_its_bytes() -> None:
    """A pattern that began anew at each space would take minutes."""
    value = b" " * 60_000
    request = parse_request_untrusted(
        b"GET / HTTP/1.1\r\nHost: cart.shop\r\nX: a" + value + b"b\r\nY:" + value[:5_000] + b"\r\n\r\n"
    )
    assert (request.get(b"x"), request.get(b"y")) == (b"a" + value + b"b", b"")


WIRE_PIECES = (
    [b"1\r\na\r\n", b"3\r\nabc\r\n", b"a;x=y\r\n0123456789\r\n", b"00002\r\nab\r\n", b"1 ;\r\na\r\n"] * 3
    + [b"0\r\n", b"\r\n", b"X-Sum: 1\r\n", b"0\r\n\r\n", b"0;last\r\nX: y\r\n\r\n"]
    + [
        b"2\r\nabc\r\n",
        b"g\r\na\r\n",
        b" 1\r\na\r\n",
        b"1\r\na\n",
        b"1\na\r\n",
        b"-1\r\n",
        b"fffffffffffffff\r\n",
        b"\r",
    ]
)


async def outcome_of(wire: bytes, cuts: list[int]) -> tuple[bytes, object, str]:
    """Return how a chunked body that comes in pieces is read: its data, trailers, and the kind of a fault."""
    edges = [0, *sorted({cut for cut in cuts if cut < len(wire)}), len(wire)]
    pieces = [wire[start:end] for start, end in pairwise(edges) if end > start]
    stream = Scripted(*pieces, b"")
    body = MessageBody(MessageReader(stream), content_length=None, chunked=True)
    data = b""
    try:
        while piece := await body.next():
            data += piece
    except (BadMessage, OSError) as error:
        return b"", None, type(error).__name__
    finally:
        stream.close()
    return data, body.trailers, ""


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(WIRE_PIECES), min_size=1, max_size=12),
    st.lists(st.integers(1, 120), max_size=6),
)
def test_a_chunked_body_reads_alike_however_it_arrives(wire: list[bytes], cuts: list[int]) -> None:
    """Chunks that are joined because they came together say what each would have said alone."""

    async def compare() -> None:
        whole = b"".join(wire)
        expected = await outcome_of(whole, list(range(len(whole))))
        assert await outcome_of(whole, []) == expected
        assert await outcome_of(whole, cuts) == expected

    trio.run(compare)
