"""Loopback addresses of one test process: agents on fixed ports, in tests that run side by side."""

import os


def own_host(number: int) -> str:
    """Return address `number` (0 to 62) of this process, which no other running one has."""
    pid = os.getpid()
    return f"127.{192 + number}.{pid >> 8 & 255}.{pid & 255}"
