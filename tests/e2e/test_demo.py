"""The promised command, as a user runs it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import trio

from gossipmesh.testing.waiting import wait_until

GOSSIPMESH = [sys.executable, "-m", "gossipmesh.cli.main"]
STEPS = ["start", "90/10", "50/50", "kill -9", "new endpoint", "dead endpoint", "TLS keys"]
STEPS += ["from its disk", "refused"]


def test_demo_prints_one_object_and_every_step_holds() -> None:
    result = subprocess.run([*GOSSIPMESH, "demo", "--json"], capture_output=True, text=True, timeout=150)
    told = json.loads(result.stdout)
    assert told.keys() == {"ok", "steps", "requests"}
    failed = [step for step in told["steps"] if not step["ok"]]
    assert not failed, failed
    assert len(told["steps"]) == len(STEPS)
    for step, word in zip(told["steps"], STEPS, strict=True):
        assert step.keys() == {"name", "ok", "seconds", "evidence"}
        assert word in step["name"]
    assert told["requests"]["failed"] == 0, told["requests"]
    assert told["requests"]["sent"] == sum(told["requests"]["by_status"].values()) > 500
    assert told["ok"] is True
    assert (result.returncode, result.stderr) == (0, "")


def test_ctrl_c_ends_the_demo_and_everything_it_started() -> None:
    """Also in the middle of its start, with an authority and half of the agents running."""
    with subprocess.Popen(
        [*GOSSIPMESH, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background of a shell has them, and all they start, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as demo:
        marks: set[str] = set()

        async def agent_runs() -> str | None:
            found = {mark for pid in descendants(demo.pid) if (mark := mark_of(pid)) is not None}
            marks.update(found)
            return None if len(descendants(demo.pid)) >= 4 and marks else f"marks {found}"

        trio.run(wait_until, "the demo has started processes", agent_runs, 60.0)
        demo.send_signal(signal.SIGINT)
        _, stderr = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert stderr.strip() == ""
    left = [pid for pid in all_pids() if mark_of(pid) in marks]
    assert left == []


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


def mark_of(pid: int) -> str | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((word.decode() for word in environment if word.startswith(b"GOSSIPMESH_TEST_RUN=")), None)
