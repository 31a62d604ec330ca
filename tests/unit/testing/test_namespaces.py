"""Networks for meshes under test: addresses, what partitions need, and that they really cut."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing import namespaces

# Two nodes in namespaces; a TCP connection between them before, during and after a partition.
SCRIPT = """
import socket, sys
from pathlib import Path
from gossipmesh.testing.namespaces import NamespaceNetwork, enter_private_network
from gossipmesh.testing.processes import ProcessKeeper
enter_private_network(sys.argv)
keeper, network = ProcessKeeper(Path(sys.argv[1])), NamespaceNetwork()
try:
    for number in (1, 2):
        network.attach(number, keeper)
    serve = "import socket; s=socket.create_server(('10.71.0.2', 9000)); print('up', flush=True)"
    serve += "\\nwhile True: s.accept()"
    server = keeper.start("server", [*network.prefix(2), sys.executable, "-c", serve], stdout_pipe=True)
    assert server.stdout.readline() == b"up\\n"
    def reaches():
        connect = "import socket; socket.create_connection(('10.71.0.2', 9000), 1.0)"
        client = keeper.start("client", [*network.prefix(1), sys.executable, "-c", connect])
        return client.wait(20) == 0
    before = reaches()
    network.partition([1], [2])
    during = reaches()
    dropped = network.heal()
    print(before, during, dropped > 0, reaches())
finally:
    keeper.close()
"""


def test_two_meshes_on_one_machine_get_addresses_of_their_own() -> None:
    first, second = namespaces.LoopbackNetwork(), namespaces.LoopbackNetwork()
    assert first.host(3).startswith("127.71.")
    assert first.host(3) != second.host(3)
    held = second.host(3)
    second.close()
    third = namespaces.LoopbackNetwork()
    assert third.host(3) == held
    first.close()
    third.close()


def test_without_root_a_partition_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(namespaces.INSIDE_VARIABLE, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(OperatorError, match="needs root"):
        namespaces.enter_private_network(["x.py"])


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(namespaces.INSIDE_VARIABLE, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "nft" else f"/bin/{tool}")
    with pytest.raises(OperatorError, match="need nft"):
        namespaces.enter_private_network(["x.py"])


@pytest.mark.namespace
def test_a_partition_cuts_and_heals_and_leaves_nothing(tmp_path: Path) -> None:
    script = tmp_path / "cut.py"
    script.write_text(SCRIPT)
    outside = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "True False True True\n", result.stderr
    after = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    assert after == outside


AGAIN = """
import sys
from pathlib import Path
from gossipmesh.testing.namespaces import NamespaceNetwork, enter_private_network, run_tool
from gossipmesh.testing.processes import ProcessKeeper
enter_private_network(sys.argv)
for turn in range(3):
    keeper, network = ProcessKeeper(Path(sys.argv[1])), NamespaceNetwork()
    try:
        network.attach(1, keeper)
        run_tool(*network.prefix(1), "ip", "route", "get", network.host(250))
    finally:
        keeper.close()
print("three meshes")
"""


@pytest.mark.namespace
def test_one_mesh_after_the_other_finds_the_private_network_free(tmp_path: Path) -> None:
    """Several runs of a scenario are one process: what the last one left is out of the way."""
    script = tmp_path / "again.py"
    script.write_text(AGAIN)
    words = [sys.executable, str(script), str(tmp_path)]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "three meshes\n", result.stderr[-2_000:]
