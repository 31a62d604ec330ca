"""A workload that speaks something else: said at once, and what it was, whether it hangs up or waits."""

from pathlib import Path

import pytest
import trio
import trio.lowlevel

from tests.unit.dataplane.engine_kit import Peer, cart_pair, get, workload

WORDS = {
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", b"1.1: SSH-2.0-Open"),
    "smtp": (b"220 mail ESMTP\r\n", b"1.1: 220"),
    "redis": (b"-ERR unknown command\r\n", b"1.1: -ERR"),
    "mysql": (b"J\0\0\0\n8.0.36\0", b"1.1: J???"),
    "http 0.9": (b"<html>hello</html>", b"1.1: <html>hello<"),
    "http 2": (b"\0\0\x12\x04\0\0\0\0\0\0\x03", b"1.1: ???"),
    "tls": (b"\x15\x03\x03\0\x02\x02\x46", b"TLS where HTTP is expected"),
    "one byte": (b"x", b"1.1: x"),
}


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "hangs up"])
@pytest.mark.parametrize(("said", "told"), WORDS.values(), ids=WORDS)
async def test_an_answer_that_is_none_is_said_to_be(
    tmp_path: Path, said: bytes, told: bytes, waits: bool
) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        await stream.send_all(said)
        while waits and await stream.receive_some():
            pass

    async with workload(speak) as cart, cart_pair(tmp_path, cart) as (near, _far):
        status, head, body = await get(near.at("proxy"))
    assert status == 502
    assert b"x-gossipmesh-flag: UPE" in head
    assert b"answer is not HTTP" in body
    assert told in body


async def test_a_head_that_comes_byte_by_byte_is_one(tmp_path: Path) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        await Peer(stream).head()
        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n":
            await stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()

    async with workload(speak) as cart, cart_pair(tmp_path, cart) as (near, _far):
        assert (await get(near.at("proxy")))[0] == 200
