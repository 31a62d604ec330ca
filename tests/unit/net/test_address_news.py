"""The kernel tells of addresses that come and go, or it is said that it does not."""

import json
import subprocess
import sys

import pytest
import trio

from gossipmesh.net import address_news
from gossipmesh.net.address_news import AddressNews

INSIDE = """
import json, subprocess, trio
from gossipmesh.net.address_news import AddressNews

def ip(*words):
    subprocess.run(["ip", *words], check=True)

async def main():
    ip("link", "set", "lo", "up")
    news, told = AddressNews(), []
    await news.wait(0.1)  # of the loopback device itself
    for words in (
        ("address", "add", "10.99.0.7/32", "dev", "lo"),
        ("address", "add", "fd99::7/128", "dev", "lo"),
        ("address", "del", "10.99.0.7/32", "dev", "lo"),
    ):
        ip(*words)
        with trio.move_on_after(20) as late:
            await news.wait(60)
        told.append(not late.cancelled_caught)
    with trio.move_on_after(1) as quiet:
        await news.wait(60)
    told.append(not quiet.cancelled_caught)
    news.close()
    print(json.dumps([news.why_not, told]))

trio.run(main)
"""


@pytest.mark.namespace
def test_the_kernel_tells_of_each_address_that_comes_or_goes_and_of_nothing_else() -> None:
    words = ["unshare", "--net", "--", sys.executable, "-c", INSIDE]
    result = subprocess.run(words, capture_output=True, text=True, timeout=90, check=False)
    assert result.returncode == 0, result.stderr[-2_000:]
    assert json.loads(result.stdout) == [None, [True, True, True, False]]


async def test_where_there_is_no_netlink_the_reason_is_kept_and_time_passes(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    def refused(*_: object) -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(address_news.socket, "socket", refused)
    news = AddressNews()
    assert not news.is_told
    assert "not supported" in (news.why_not or "")
    began = trio.current_time()
    await news.wait(3)
    assert trio.current_time() - began == pytest.approx(3)
    news.close()


class Messages:
    """A netlink socket that holds some messages: the port ids of their senders, or an error."""

    def __init__(self, *waiting: int | OSError) -> None:
        self.waiting = list(waiting)

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        if not self.waiting:
            raise BlockingIOError
        found = self.waiting.pop(0)
        if isinstance(found, OSError):
            raise found
        return b"", (found, 1)


def test_only_the_kernels_messages_are_news_and_what_had_no_room_is_news() -> None:
    news = AddressNews()
    read = news._read
    assert not read(Messages())  # type: ignore[arg-type]
    assert not read(Messages(4_711))  # type: ignore[arg-type]
    assert read(Messages(4_711, 0))  # type: ignore[arg-type]
    assert read(Messages(OSError(105, "No buffer space available"), 4_711))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="Bad file"):
        read(Messages(OSError(9, "Bad file descriptor")))  # type: ignore[arg-type]
    news.close()
