"""An agent on a slow disk: `python -m gossipmesh.testing.slow_disk SECONDS agent --config FILE`.

Stands for `gossipmesh` in a mesh under test (`Mesh.start`). It is the very agent, in a process where each
durable write of its records takes so much longer; nothing in the product knows of it.
"""

import os
import sys
import threading
from typing import Any

from gossipmesh.agent.__main__ import main


def slow_down(seconds: float) -> None:
    """Let every `fdatasync` of this process take `seconds` longer, in the thread that asks for it."""
    sync = os.fdatasync

    def slow(descriptor: Any) -> None:
        threading.Event().wait(seconds)
        sync(descriptor)

    os.fdatasync = slow  # type: ignore[assignment]


if __name__ == "__main__":
    slow_down(float(sys.argv[1]))
    sys.exit(main([sys.argv[sys.argv.index("--config") + 1]]))
