"""The load driver against a real workload: everything is counted, nothing crashes it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from gossipmesh.testing.load import Client, NoAnswer, Outcome, Tally, Target, ask_once
from gossipmesh.testing.load_control import add_up
from tests.unit.free_port import free_port


def start_workload(*words: str) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-m", "gossipmesh.testing.workload", "--node", "n1", *words]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


@pytest.fixture
def chain() -> Iterator[tuple[int, list["subprocess.Popen[str]"]]]:
    """cart -> db, as in the mesh but without one; yields cart's port and both processes."""
    db, cart = free_port(), free_port()
    processes = [
        start_workload("--name", "db", "--version", "v1", "--tcp", f"127.0.0.1:{db}"),
        start_workload(
            *("--name", "cart", "--version", "v2", "--http", f"127.0.0.1:{cart}"),
            *("--upstream", f"tcp://127.0.0.1:{db}"),
        ),
    ]
    yield cart, processes
    for process in processes:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def run_load(*words: str, stop_with: signal.Signals | None = None) -> dict[str, Any]:
    arguments = [sys.executable, "-m", "gossipmesh.testing.load", *words]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if stop_with is not None:
            assert json.loads(process.stdout.readline())["type"] == "progress"
            process.send_signal(stop_with)
        output = process.stdout.read()
        assert process.wait(30) == 0
    summary: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert summary["type"] == "summary"
    return summary


def test_answers_and_failures_are_counted_side_by_side(
    chain: tuple[int, list["subprocess.Popen[str]"]],
) -> None:
    port, _ = chain
    nobody = free_port()
    summary = run_load(
        *("--target", f"n1,127.0.0.1:{port},cart.shop", "--target", f"n2,127.0.0.1:{nobody},x.shop/a"),
        *("--rate", "50", "--for", "1"),
    )
    assert summary["sent"] == summary["answered"] > 20
    assert summary["by_version"] == {"cart.shop": {"cart:v2": summary["by_node"]["n1"]["ok"]}}
    assert summary["by_server"]["cart.shop"].keys() == {"n1"}
    assert summary["failed"] == summary["by_node"]["n2"]["failed"] == len(summary["failures"])
    assert summary["by_status"].keys() == {"200", "0"}
    assert all(failure["error"].startswith("connect:") for failure in summary["failures"])


def test_a_failing_upstream_is_a_failed_request_with_its_status(
    chain: tuple[int, list["subprocess.Popen[str]"]],
) -> None:
    port, (db, _) = chain
    db.kill()
    db.wait(10)
    summary = run_load("--target", f"n1,127.0.0.1:{port},cart.shop", "--rate", "40", "--for", "0.5")
    assert summary["by_status"].keys() == {"502"}
    assert summary["failed"] == summary["sent"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_summary(
    chain: tuple[int, list["subprocess.Popen[str]"]], number: signal.Signals
) -> None:
    port, _ = chain
    summary = run_load("--target", f"n1,127.0.0.1:{port},cart.shop", "--rate", "20", stop_with=number)
    assert summary["failed"] == 0
    assert summary["sent"] == summary["answered"]


async def serve_once(listener: trio.SocketListener, answers: list[bytes]) -> None:
    """Answer one request on each connection with the next of `answers`, then close it."""
    for answer in answers:
        stream = await listener.accept()
        await stream.receive_some(65536)
        await stream.send_all(answer)
        await stream.aclose()


BODY = b'{"service": "cart", "version": "v1", "node": "n1"}'
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


async def test_a_stale_connection_is_tried_once_more_on_a_new_one() -> None:
    """The peer closed a kept connection between two requests: no answer was lost, none was made twice."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    client, tally = Client(Target("n1", "127.0.0.1", port, "cart.shop")), Tally()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_once, listener, [GOOD, GOOD])
        for _ in range(2):
            outcome = Outcome(0.0, "n1", "cart.shop")
            await client.get(outcome, tally)
            assert (outcome.status, outcome.version, outcome.served_by) == (200, "cart:v1", "n1")
    assert tally.reconnects == 1
    await client.close_idle()
    await listener.aclose()


async def test_one_request_by_itself_is_answered_or_says_why_not() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    target = Target("n1", "127.0.0.1", listener.socket.getsockname()[1], "cart.shop")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_once, listener, [GOOD, b""])
        answered, broken = await ask_once(target), await ask_once(target)
    await listener.aclose()
    assert (answered.served_by, answered.error) == ("n1", "")
    assert (broken.status, broken.error) == (0, "closed before an answer")
    assert (await ask_once(target)).error


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"]
)
async def test_an_answer_that_is_not_whole_is_no_answer(answer: bytes) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    client = Client(Target("n1", "127.0.0.1", port, "cart.shop"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_once, listener, [answer])
        with pytest.raises(NoAnswer):
            await client.get(Outcome(0.0, "n1", "cart.shop"), Tally())
    await listener.aclose()


def test_failures_are_kept_in_full_and_gaps_between_successes_measured() -> None:
    tally = Tally()
    for at_s, status in ((1.0, 200), (1.5, 503), (4.0, 200), (4.1, 200)):
        tally.sent += 1
        tally.add(Outcome(at_s, "n1", "cart.shop", status, version="cart:v1"), at_s)
    summary = tally.summary()
    assert summary["success_gap_s_max"] == {"n1": 3.0}
    assert [failure["status"] for failure in summary["failures"]] == [503]
    both = add_up([summary, summary])
    assert (both["sent"], both["failed"], both["by_status"]) == (8, 2, {"200": 6, "503": 2})
    assert len(both["failures"]) == 2
