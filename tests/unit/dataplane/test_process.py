"""The engine as its own process: what it imports, how it starts, how it ends."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import trio

from gossipmesh.dataplane.client import EngineClient, EngineUnavailable
from tests.unit.dataplane.engine_kit import until

ENGINE = [sys.executable, "-m", "gossipmesh.dataplane.reference"]
THIRD_PARTY = {"httptools", "msgpack", "msgspec", "trio"}
WHAT_TRIO_BRINGS = {"attr", "attrs", "idna", "outcome", "sniffio", "sortedcontainers"}


def test_engine_imports_little() -> None:
    """Memory counts on every VM; a new import here is a decision, not an accident."""
    program = (
        "import sys, json, gossipmesh.dataplane.reference.__main__;"
        "print(json.dumps([m for m in sys.modules if m.partition('.')[0] not in sys.stdlib_module_names]))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=30)
    modules = json.loads(answer.stdout)
    roots = {name.partition(".")[0] for name in modules}
    known = {"__main__", "gossipmesh", "cython_runtime", "_distutils_hack", "typing_extensions"}
    assert {
        root for root in roots if not root.startswith("_cython")
    } <= THIRD_PARTY | WHAT_TRIO_BRINGS | known
    own = {name.split(".")[1] for name in modules if name.startswith("gossipmesh.")}
    assert own == {"dataplane", "model", "net", "traffic", "trust", "wire"}
    trust = {name for name in modules if name.startswith("gossipmesh.trust.")}
    judge = ("der", "leaf_serial", "peer_identity", "peer_tables", "pins", "x509_leaf")
    assert trust == {f"gossipmesh.trust.{name}" for name in judge}


def test_decisions_are_answered_line_by_line() -> None:
    questions = '{"kind": "authorise"}\nnot json\n\n'
    answer = subprocess.run(
        [*ENGINE, "--decide"], input=questions, capture_output=True, text=True, check=True, timeout=30
    )
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(lines) == 2
    assert all("error" in line for line in lines)


def test_path_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    arguments = ["--socket", str(tmp_path / "no" / "such.sock"), "--access-log", str(tmp_path / "a.log")]
    answer = subprocess.run([*ENGINE, *arguments], capture_output=True, text=True, check=False, timeout=30)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: The engine cannot")
    assert answer.stderr.count("\n") == 1


async def attached(path: Path) -> EngineClient:
    """Attach once the engine listens; its socket has a name a moment before."""
    while True:
        try:
            return await EngineClient.attach(path, node_id=b"n" * 16, boot_id="boot")
        except EngineUnavailable:
            await trio.sleep(0.02)


async def test_process_serves_its_socket_and_ends_on_sigterm(tmp_path: Path) -> None:
    path, log = tmp_path / "engine.sock", tmp_path / "access.log"
    process = await trio.lowlevel.open_process([*ENGINE, "--socket", str(path), "--access-log", str(log)])
    try:
        with trio.fail_after(20):
            client = await attached(path)
            assert client.hello.pid == process.pid
            await client.aclose()
            log.rename(tmp_path / "rotated.log")
            process.send_signal(signal.SIGHUP)
            await until(log.exists)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        process.kill()
    assert not path.exists()
