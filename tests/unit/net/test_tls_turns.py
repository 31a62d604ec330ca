"""Work per turn under TLS: whatever a peer sends, in records however small, others run; and it ends."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gossipmesh.model import limits
from gossipmesh.net.tls import RECORD_BYTES, TlsError, TlsStream
from tests.unit.net.fairness import watched
from tests.unit.net.instant_sockets import Instant
from tests.unit.net.raw_tls import HANDSHAKE, KEY_UPDATE, KEY_UPDATE_REQUESTED, RawSender
from tests.unit.net.tls_pair import shaken

CALLS_MAX = limits.TURN_BYTES_MAX // limits.TURN_CALL_BYTES


@asynccontextmanager
async def taken_over(folder: Path) -> AsyncIterator[tuple[TlsStream, TlsStream, RawSender]]:
    """Yield a server's stream, and its client with a hand on the records it sends."""
    path = folder / "keys"
    async with shaken(key_log=path) as (server, client):
        yield server, client, RawSender(path)


def arrive(server: TlsStream, client: TlsStream, data: bytes, reads_bytes_max: int = 1 << 30) -> Instant:
    """Have all of `data` come to `server`."""
    server.socket = instant = Instant(server.socket, data, reads_bytes_max)
    client.socket.send(b"!")  # so that the kernel calls it readable
    return instant


async def everything(stream: TlsStream) -> bytes:
    """Read to the end of TCP, which came without close_notify."""
    pieces = []
    while True:
        try:
            pieces.append(await stream.receive())
        except ssl.SSLEOFError:
            return b"".join(pieces)


@pytest.mark.parametrize("reads_bytes_max", [1 << 30, 23, 1], ids=["at once", "a record", "a byte"])
async def test_records_of_one_byte_let_others_run_and_are_joined(
    tmp_path: Path, reads_bytes_max: int
) -> None:
    count = 20_000 if reads_bytes_max > 1 else 1_000
    async with taken_over(tmp_path) as (server, client, raw):
        flood = b"".join(raw.record(b"x") for _ in range(count))
        arrive(server, client, flood, reads_bytes_max)
        size = 0
        async with watched() as witness:
            while size < count:
                data = await server.receive()
                size += len(data)
                witness.worked(len(data))
        assert witness.gap_max <= 2 * CALLS_MAX


@pytest.mark.parametrize("message", [KEY_UPDATE, KEY_UPDATE_REQUESTED], ids=["told", "asked for"])
async def test_key_updates_alone_end_the_connection(tmp_path: Path, message: bytes) -> None:
    """OpenSSL works off all it has in one call: 65 KiB of them would take 70 ms."""
    async with taken_over(tmp_path) as (server, client, raw):
        arrive(server, client, b"".join(raw.key_update(message) for _ in range(2_000)))
        with pytest.raises(TlsError, match="records without data"):
            await server.receive()
        assert server._incoming.pending == 0


async def test_key_updates_between_data_let_others_run(tmp_path: Path) -> None:
    count = 3_000
    async with taken_over(tmp_path) as (server, client, raw):
        flood = b"".join(raw.key_update(KEY_UPDATE_REQUESTED) + raw.record(b"x") for _ in range(count))
        arrive(server, client, flood)
        size = 0
        async with watched() as witness:
            while size < count:
                data = await server.receive()
                size += len(data)
                witness.worked(2 * len(data))
        # A turn may end between the two records of a pair; counted is the pair, where its byte is read.
        assert witness.gap_max <= 2 * (CALLS_MAX + 1)


async def test_who_asks_for_new_keys_and_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async with taken_over(tmp_path) as (server, client, raw):
        flood = b"".join(raw.key_update(KEY_UPDATE_REQUESTED) + raw.record(b"x") for _ in range(2_000))
        sink = arrive(server, client, flood)
        sink.full = True
        with pytest.raises(TlsError, match="does not read the answers"):
            await everything(server)
        assert server._outgoing.pending <= 2 * limits.TLS_ANSWERS_BYTES_MAX


async def test_new_keys_lose_nothing_either_way(tmp_path: Path) -> None:
    async with taken_over(tmp_path) as (server, client, raw):
        sent = [bytes([number % 251]) * (number * 37 % 16_000 + 1) for number in range(200)]
        stream = b"".join(raw.record(data) + raw.key_update(KEY_UPDATE_REQUESTED) for data in sent)
        arrive(server, client, stream, 10_007)
        assert await everything(server) == b"".join(sent)


async def test_empty_records_end_the_connection(tmp_path: Path) -> None:
    async with taken_over(tmp_path) as (server, client, raw):
        arrive(server, client, b"".join(raw.record(b"") for _ in range(2_000)))
        with pytest.raises(OSError):
            await server.receive()


async def test_session_tickets_without_end_are_not_taken(tmp_path: Path) -> None:
    """A server may send as many as it likes; ours sends none."""
    async with taken_over(tmp_path) as (server, client, raw):
        ticket = bytes(4) + bytes(4) + b"\x01\0" + b"\0\x10" + bytes(16) + b"\0\0"
        message = b"\x04" + len(ticket).to_bytes(3, "big") + ticket
        arrive(server, client, b"".join(raw.record(message, HANDSHAKE) for _ in range(2_000)))
        with pytest.raises(OSError):  # a client sends none at all
            await server.receive()


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 65_536, 16_777_216])
async def test_a_message_of_any_size_is_sealed_in_turns_and_piece_by_piece(size: int) -> None:
    async with shaken() as (server, _client):
        sink = server.socket = Instant(server.socket)
        async with watched() as witness:
            before = witness.runs_count
            await server.send_all(bytes(size))
            runs = witness.runs_count - before
        records = -(-size // RECORD_BYTES)
        assert sink.sent_bytes == size + 22 * records
        assert sink.sent_bytes_max < 65_536  # no buffer of the whole message
        assert runs >= size // (2 * limits.TURN_BYTES_MAX)


async def test_what_came_before_our_end_is_kept_in_order_and_others_run(tmp_path: Path) -> None:
    async with taken_over(tmp_path) as (server, client, raw):
        letters = [bytes([97 + number % 26]) for number in range(1_700)]
        arrive(server, client, b"".join(raw.record(letter) for letter in letters))
        got = await server.receive()
        async with watched() as witness:
            await server.send_eof()
            assert witness.runs_count >= 1_700 // (2 * CALLS_MAX)
        while len(got) < len(letters):
            got += await server.receive()
        assert got == b"".join(letters)


async def test_both_ends_say_they_are_done_at_once() -> None:
    """The peer's close_notify is met while we say ours; its TCP stays open."""
    async with shaken() as (server, client):
        await client.send_all(b"last")
        await client.send_eof()
        assert await server.receive() == b"last"
        await server.send_eof()
        with trio.fail_after(10):
            assert await server.receive() == b""
            assert await client.receive() == b""


async def test_an_end_met_while_ending_is_not_forgotten(tmp_path: Path) -> None:
    async with taken_over(tmp_path) as (server, client, raw):
        client.socket.send(raw.record(b"one") + raw.record(b"two") + raw.record(b"\x01\0", 21))
        with trio.fail_after(10):
            await server._fill()
            await server.send_eof()
            assert await server.receive() == b"onetwo"
            assert await server.receive() == b""
            assert await server.receive() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"\0" * 3_000,
        b"\x17\x03\x03\x00\x01\0" * 100,
        b"\x16\x03\x01\x00\x01\x01" * 20_000,
    ],
    ids=["no TLS", "a record of 65,535 bytes", "data first", "a hello in fragments of a byte"],
)
async def test_what_cannot_become_a_handshake_fails_when_it_is_seen(data: bytes) -> None:
    async with shaken() as (server, _client):
        context = server._tls.context
        ours, theirs = socket.socketpair()
        fresh = TlsStream(Instant(ours, data), context, server_name=None, server_side=True)
        theirs.close()
        async with watched() as witness:
            with pytest.raises(TlsError):
                await fresh.handshake()
            assert witness.runs_count >= (len(data) // 6 // (2 * CALLS_MAX) if len(data) > 100_000 else 0)
        fresh.close()
