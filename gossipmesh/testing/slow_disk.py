"""An agent on a slow disk: `python -m gossipmesh.testing.slow_disk SECONDS agent --config FILE`.

Stands for `gossipmesh` in a mesh under test (`Mesh.start`). It is the very agent, in a process where each
durable write of its records takes so much longer; nothing in the product knows of it.
"""

import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from gossipmesh.agent.__main__ import main


def slow_down(seconds: float) -> None:
    """Let every `fdatasync` of this process take `seconds` longer, in the thread that asks for it."""
    sync = os.fdatasync

    def slow(descriptor: Any) -> None:
        threading.Event().wait(seconds)
        sync(descriptor)

    os.fdatasync = slow  # type: ignore[assignment]


def run(words: Sequence[str]) -> int:
    """Run the agent that `words` name, on a disk as slow as they say; return its exit code."""
    try:
        seconds, agent, option, file = words
        if (agent, option) != ("agent", "--config"):
            raise ValueError
        slow_down(float(seconds))
    except ValueError:
        told = " ".join(words) or "nothing"
        raise SystemExit(f"slow_disk: takes SECONDS agent --config FILE, not {told}") from None
    return main([file])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
