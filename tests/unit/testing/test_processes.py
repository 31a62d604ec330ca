"""The keeper ends what it started, children of children too, and nothing else."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from gossipmesh.testing.processes import ProcessKeeper
from gossipmesh.testing.waiting import WaitedInVain, wait_until

SLEEP = [sys.executable, "-c", "import signal; signal.pause()"]
# Starts a child in a session of its own, prints its pid and stays: an agent with its engine.
PARENT = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys\n"
    "sleep = [sys.executable, '-c', 'import signal; signal.pause()']\n"
    "child = subprocess.Popen(sleep, start_new_session=True)\n"
    "print(child.pid, flush=True)\n"
    "signal.pause()",
]


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[ProcessKeeper]:
    keeper = ProcessKeeper(tmp_path)
    yield keeper
    keeper.close()


def test_an_orphan_in_its_own_session_is_ended_too(keeper: ProcessKeeper) -> None:
    parent = keeper.start("parent", PARENT, stdout_pipe=True)
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    assert keeper.signal(parent.pid, signal.SIGKILL)
    parent.wait(10)
    assert keeper.is_running(orphan)
    keeper.close()
    assert not keeper.is_running(orphan)
    assert keeper.marked_pids() == []


def test_a_stopped_process_is_ended(keeper: ProcessKeeper) -> None:
    process = keeper.start("stopped", SLEEP)
    assert keeper.signal(process.pid, signal.SIGSTOP)
    keeper.close()
    assert process.returncode == -signal.SIGKILL


def test_a_process_without_the_mark_is_never_signalled(keeper: ProcessKeeper) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        assert not keeper.signal(stranger.pid, signal.SIGKILL)
        keeper.close()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(10)


def test_a_pid_that_is_gone_is_not_an_error(keeper: ProcessKeeper) -> None:
    process = keeper.start("short", [sys.executable, "-c", ""])
    process.wait(10)
    assert not keeper.signal(process.pid, signal.SIGKILL)


async def test_a_command_says_how_it_ended(keeper: ProcessKeeper) -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    result = await keeper.command([sys.executable, "-c", script])
    assert (result.code, result.stdout, result.stderr) == (3, "out\n", "err\n")


async def test_a_command_that_hangs_is_ended(keeper: ProcessKeeper) -> None:
    result = await keeper.command(SLEEP, timeout_s=0.2)
    assert result.code == -signal.SIGKILL
    assert "not finished" in result.stderr
    assert keeper.marked_pids() == []


def test_output_goes_to_a_log_named_after_the_process(keeper: ProcessKeeper) -> None:
    process = keeper.start("chatty", [sys.executable, "-c", "print('hello')"])
    process.wait(10)
    assert keeper.log_path("chatty").read_text() == "hello\n"
    assert os.path.dirname(keeper.log_path("chatty")).endswith("logs")


async def test_waiting_tells_what_was_seen_last(autojump_clock: MockClock) -> None:
    async def never() -> str | None:
        return "node1 is still dead"

    with pytest.raises(WaitedInVain, match="everybody alive: not within 5 s; last seen: node1 is still dead"):
        await wait_until("everybody alive", never, timeout_s=5.0)


async def test_waiting_returns_the_time_it_took(autojump_clock: MockClock) -> None:
    start_s = trio.current_time()

    async def after_two_seconds() -> str | None:
        return None if trio.current_time() - start_s >= 2 else "too early"

    assert 2.0 <= await wait_until("two seconds", after_two_seconds, timeout_s=5.0) < 2.2
