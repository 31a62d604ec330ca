"""The machine's addresses change under a running agent: what is told, when, and what is only said."""

import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from gossipmesh.agent import address_keeper, addresses
from gossipmesh.agent.address_keeper import AddressKeeper
from gossipmesh.agent.config import AgentConfig, parse_config_untrusted
from gossipmesh.gossip.base.settings import NodeAddresses
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.identity import NodeId
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeState

OLD, NEW, THIRD = "10.0.0.5", "10.0.0.9", "10.0.0.11"
PEER = Address("10.0.0.1", 7948)
FOUND = parse_config_untrusted(
    "apiVersion: gossipmesh.dev/v1\nkind: AgentConfig\nspec: {}\n", Path("agent.yaml")
)


def at(host: str) -> NodeAddresses:
    return NodeAddresses((Address(host, 7948),), (Address(host, 15008),))


class News:
    """The kernel's news, as a test gives them."""

    def __init__(self, why_not: str | None = None) -> None:
        self.why_not = why_not
        self.is_told = why_not is None
        self.changed = trio.Event()
        self.waits_s: list[float] = []

    async def wait(self, at_most_s: float) -> None:
        self.waits_s.append(at_most_s)
        with trio.move_on_after(at_most_s):
            await self.changed.wait()
        self.changed = trio.Event()

    def close(self) -> None:
        """Nothing is held."""


class Machine:
    """A machine with addresses, the one preferred last being the one packets leave from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: AgentConfig = FOUND) -> None:
        self.hosts = [OLD]
        self.told = at(OLD)
        self.published: list[tuple[float, NodeAddresses]] = []
        self.news = News()
        self.keeper = AddressKeeper(
            config,
            state=lambda: NodeState(NodeId(bytes(16)), 1, 1, 1, "n", *self._told(), 0, "", 1, 1, ()),
            towards=lambda: [PEER],
            publish=self._publish,
            listen=lambda: self.news,  # type: ignore[arg-type,return-value]
        )
        monkeypatch.setattr(addresses, "has_address", self._is_here)
        monkeypatch.setattr(address_keeper, "has_address", self._is_here)
        monkeypatch.setattr(address_keeper, "own_address", self._own_address)

    def _told(self) -> tuple[Any, Any]:
        return self.told.gossip, self.told.mesh

    def _publish(self, found: NodeAddresses) -> None:
        self.told = found
        self.published.append((trio.current_time(), found))

    def _is_here(self, host: str) -> bool:
        return host in (*self.hosts, "0.0.0.0", "127.0.0.1")

    def _own_address(self, bind: Address, _: None, towards: Sequence[Address], key: str) -> Address:
        assert list(towards) == [PEER]
        if not self.hosts:
            raise OperatorError("no route")
        return Address(self.hosts[-1], bind.port)

    async def change(self, *hosts: str) -> None:
        """Have these addresses from now on, and be told of it by the kernel."""
        self.hosts = list(hosts)
        self.news.changed.set()
        await trio.testing.wait_all_tasks_blocked()


Follow = Callable[[Machine], Any]


@pytest.fixture
async def follow(nursery: trio.Nursery) -> Follow:
    async def started(machine: Machine) -> None:
        nursery.start_soon(machine.keeper.run)
        await trio.testing.wait_all_tasks_blocked()

    return started


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO", "gossipmesh")
    monkeypatch.setattr(logging.getLogger("gossipmesh"), "propagate", True)


def said(caplog: pytest.LogCaptureFixture, level: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == level]


async def test_a_new_address_that_comes_first_is_told_when_the_old_one_goes(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object, follow: Follow
) -> None:
    machine = Machine(monkeypatch)
    await follow(machine)
    await machine.change(OLD, NEW)
    assert machine.published == []
    await machine.change(NEW)
    assert [found for _, found in machine.published] == [at(NEW)]
    assert machine.keeper.lost == {}


async def test_between_two_addresses_it_is_lost_and_looked_for(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(monkeypatch)
    await follow(machine)
    await machine.change()
    assert machine.keeper.lost == {"spec.gossip.bind": OLD, "spec.mesh.bind": OLD}
    assert machine.published == []
    assert len(said(caplog, "WARNING")) == 2, "once for each listener"
    machine.hosts = [NEW]  # its route came after the kernel's news of it
    await trio.sleep(1)
    assert [found for _, found in machine.published] == [at(NEW)]
    assert machine.keeper.lost == {}
    assert f"others find this node at {NEW}:7948, {NEW}:15008" in said(caplog, "WARNING")[-1]


async def test_one_of_two_addresses_that_is_not_told_may_go(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object, follow: Follow
) -> None:
    machine = Machine(monkeypatch)
    await follow(machine)
    await machine.change(OLD, NEW)
    await machine.change(OLD)
    assert (machine.published, machine.keeper.lost) == ([], {})


async def test_an_address_that_comes_back_is_told_to_nobody(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(monkeypatch)
    await follow(machine)
    await machine.change()
    await machine.change(OLD)
    assert (machine.published, machine.keeper.lost) == ([], {})
    assert any("is there again" in line for line in said(caplog, "INFO"))


async def test_an_address_that_flaps_is_told_once_in_three_seconds_and_counted(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object, follow: Follow
) -> None:
    machine = Machine(monkeypatch)
    await follow(machine)
    began = trio.current_time()
    for turn in range(20):
        await machine.change((NEW, THIRD)[turn % 2])
        await trio.sleep(0.5)
    times = [at_s - began for at_s, _ in machine.published]
    assert all(later - earlier >= 3 for earlier, later in itertools.pairwise(times))
    assert 3 <= len(times) <= 4
    assert machine.keeper.published_count == len(times)
    assert machine.keeper.held_back_count >= len(times)
    await trio.sleep(10)
    assert machine.told == at(THIRD), "what it is at in the end is told in the end"


@pytest.mark.parametrize("bind", ["0.0.0.0", OLD])
async def test_what_the_configuration_names_is_told_and_never_replaced(
    bind: str,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: object,
    follow: Follow,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = msgspec.structs.replace(
        FOUND,
        gossip_bind=Address(bind, 7948),
        gossip_advertise=Address(OLD, 7948),
        mesh_bind=Address(bind, 15008),
        mesh_advertise=Address(OLD, 15008),
    )
    machine = Machine(monkeypatch, config)
    await follow(machine)
    await machine.change(NEW)
    key = "advertise" if bind == "0.0.0.0" else "bind"
    assert machine.keeper.lost == {f"spec.gossip.{key}": OLD, f"spec.mesh.{key}": OLD}
    await trio.sleep(60)
    assert machine.published == []
    errors = said(caplog, "ERROR")
    assert len(errors) == 2, "each is said once"
    assert f"this machine has lost {OLD}, which spec.gossip.{key} names" in errors[0]
    assert "change the key and restart the agent" in errors[0]


async def test_a_listener_that_is_not_configured_follows_though_the_other_is(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object, follow: Follow
) -> None:
    config = msgspec.structs.replace(FOUND, gossip_advertise=Address("192.0.2.1", 7948))
    machine = Machine(monkeypatch, config)
    machine.told = NodeAddresses((Address("192.0.2.1", 7948),), at(OLD).mesh)
    await follow(machine)
    await machine.change(NEW)
    assert machine.told == NodeAddresses((Address("192.0.2.1", 7948),), at(NEW).mesh)
    assert machine.keeper.lost == {}, "another machine's address is not this one's to lose"


async def test_without_the_kernels_news_it_says_so_and_looks_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(monkeypatch)
    machine.news = News("Address family not supported by protocol")
    await follow(machine)
    assert "they are looked at every 3 s" in said(caplog, "WARNING")[0]
    machine.hosts = [NEW]
    await trio.sleep(3.1)
    assert [found for _, found in machine.published] == [at(NEW)]
