"""A program in the background ends by SIGTERM, and cleans up."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys, trio
from gossipmesh.testing.interrupts import end_like_ctrl_c
end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
async def main():
    try:
        print("ready", flush=True)
        await trio.sleep_forever()
    finally:
        print("cleaned up", flush=True)
try:
    trio.run(main)
except KeyboardInterrupt:
    sys.exit(7)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_who_was_started_with_interrupts_ignored_still_ends(number: signal.Signals) -> None:
    program = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    with program:
        try:
            assert program.stdout.readline() == "ready\n"
            program.send_signal(number)
            assert program.stdout.read() == "cleaned up\n"
            assert program.wait(30) == 7
        finally:
            program.kill()
