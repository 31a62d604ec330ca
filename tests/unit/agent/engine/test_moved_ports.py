"""A port of the engine's that is configured otherwise: the next agent takes it over from the engine."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from gossipmesh.agent.app import run_agent
from gossipmesh.agent.engine.listeners import Listeners
from gossipmesh.agent.engine.port_holder import engine_holding
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address
from gossipmesh.net.streams import listen
from tests.unit.agent.own_host import own_host
from tests.unit.agent.test_app import PORTS, Node, a_node, running
from tests.unit.free_port import free_port

ANY = "0.0.0.0"
HOST = own_host(2)


def rebind(node: Node, **binds: str) -> None:
    """Write other addresses into the node's configuration."""
    path = node.folder / "agent.yaml"
    document = json.loads(path.read_text())
    for name, bind in binds.items():
        document["spec"][name] = {"bind": bind, **({"advertise": f"{HOST}:1"} if name == "mesh" else {})}
    path.write_text(json.dumps(document))


def accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["mesh", "proxy", "readiness"])
@pytest.mark.parametrize("before_host", [ANY, HOST], ids=["all", "one"])
async def test_one_address_instead_of_all_and_the_reverse(
    tmp_path: Path, name: str, before_host: str
) -> None:
    """The same engine serves there at once, with nobody's help."""
    port = free_port()
    after_host = HOST if before_host == ANY else ANY
    async with a_node(tmp_path, HOST) as node:
        rebind(node, **{name: f"{before_host}:{port}"})
        async with running(node) as before:
            pass
        rebind(node, **{name: f"{after_host}:{port}"})
        async with running(node) as after:
            assert after["engine"]["pid"] == before["engine"]["pid"]
            assert accepts(HOST, port)
            assert accepts(own_host(3), port) is (after_host == ANY)


async def test_two_listeners_change_places(tmp_path: Path) -> None:
    one, other = free_port(), free_port()
    async with a_node(tmp_path, HOST) as node:
        rebind(node, mesh=f"{HOST}:{one}", proxy=f"{ANY}:{other}")
        async with running(node) as before:
            pass
        rebind(node, mesh=f"{ANY}:{other}", proxy=f"{HOST}:{one}")
        async with running(node) as after:
            assert after["engine"]["pid"] == before["engine"]["pid"]


async def test_a_port_that_is_free_of_the_engine_and_taken_by_another_is_put_back(tmp_path: Path) -> None:
    """The engine serves on where it did; the sentence names what is in the way."""
    port, taken = free_port(), free_port()
    async with a_node(tmp_path, HOST) as node:
        rebind(node, mesh=f"{ANY}:{port}")
        async with running(node):
            pass
        rebind(node, mesh=f"{HOST}:{port}", proxy=f"{HOST}:{taken}")
        with socket.create_server((HOST, taken)), pytest.raises(OperatorError, match=r"spec\.proxy\.bind"):
            await run_agent(node.config())
        assert accepts(own_host(3), port)
        rebind(node, proxy=f"{HOST}:{PORTS['proxy']}")
        async with running(node):
            assert accepts(HOST, port)


async def test_a_port_another_nodes_engine_holds_is_named_with_its_process(tmp_path: Path) -> None:
    async with a_node(tmp_path, HOST) as node:
        async with running(node) as status:
            pass
        pid = status["engine"]["pid"]
        assert engine_holding(Address(HOST, PORTS["mesh"])) == pid
        assert engine_holding(Address("0.0.0.0", PORTS["mesh"])) is not None
        # Another mesh's engines may listen on the same port: each on its own address.
        assert engine_holding(Address("127.71.9.77", PORTS["mesh"])) is None
        rebind(node, metrics=f"{HOST}:{PORTS['mesh']}", mesh=f"{HOST}:{free_port()}")
        with pytest.raises(OperatorError) as taken:
            await run_agent(node.config())
        assert f"by a gossipmesh engine (process {pid})" in str(taken.value)
        assert f"`kill {pid}`" in str(taken.value)


async def test_nothing_is_asked_of_an_engine_whose_ports_are_in_nobodys_way() -> None:
    """A listener that moves to a port of its own is replaced when the new one is handed over."""
    old = listen(Address(HOST, 0))
    listeners = Listeners({"mesh": old})

    async def hand_over(_: Mapping[str, socket.socket]) -> None:
        raise AssertionError("nothing stands in the way")

    try:
        await listeners.take_fixed({"mesh": Address(HOST, free_port())}, hand_over)
        assert listeners.sockets["mesh"].getsockname() != old.getsockname()
        await trio.lowlevel.checkpoint()
    finally:
        listeners.close_unused()
        listeners.sockets["mesh"].close()


async def test_an_engine_that_keeps_its_ports_ends_the_start_in_its_own_words() -> None:
    port = free_port()
    listeners = Listeners({"mesh": listen(Address(ANY, port))})

    async def hand_over(_: Mapping[str, socket.socket]) -> None:
        await trio.lowlevel.checkpoint()
        raise OperatorError("the engine (process 7) does not let go of its ports")

    with pytest.raises(OperatorError, match="process 7"):
        await listeners.take_fixed({"mesh": Address(HOST, port)}, hand_over)
    listeners.close_unused()
