"""What is published of this node's services, and when."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing

from gossipmesh.agent.services import node_services as services
from gossipmesh.agent.services.node_services import LocalServices
from gossipmesh.agent.services.service_files import ServicesFolder
from gossipmesh.model.service import EndpointHealth, ServiceEntry
from gossipmesh.testing.waiting import wait_until

FILE = """
apiVersion: gossipmesh.dev/v1
kind: Service
metadata: {name: %s, namespace: shop}
spec: {address: "127.0.0.1:8080"}
"""


class Rig:
    """Services of a folder, and the conditions they are published under."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self.serves = True
        self.allowed = True
        self.identity, self.is_due = True, False
        self.published: list[tuple[tuple[str, EndpointHealth, bool], ...]] = []
        self.services = LocalServices(
            ServicesFolder(folder), self, publish=self._publish, on_change=lambda: None, nursery=nursery
        )

    async def seconds(self, count: int) -> None:
        """Look every second, as the agent does."""
        for _ in range(count):
            await self.services.scan()
            self.services.refresh()
            await trio.sleep(1)

    def write(self, name: str) -> None:
        (self.folder / f"{name}.yaml").write_text(FILE % name)

    def engine_serves(self) -> bool:
        return self.serves

    def service_allowed(self, service: str) -> bool:
        return self.allowed

    def service_has_identity(self, service: str) -> bool:
        return self.identity

    def service_identity_is_due(self, service: str) -> bool:
        return self.is_due

    def _publish(self, entries: Sequence[ServiceEntry]) -> None:
        self.published.append(tuple((e.registration, EndpointHealth(e.health), e.draining) for e in entries))


async def test_passing_needs_the_engine_and_the_certificate(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path, nursery)
        rig.write("cart")
        await rig.services.scan()
        assert rig.published == [(("cart", EndpointHealth.PASSING, False),)]
        rig.serves = False
        rig.services.refresh()
        rig.serves, rig.identity = True, False
        rig.services.refresh()
        assert rig.published[1:] == [(("cart", EndpointHealth.FAILING, False),)]
        rig.identity = True
        rig.services.set_draining()
        assert rig.published[-1] == (("cart", EndpointHealth.PASSING, True),)
        nursery.cancel_scope.cancel()


async def test_nothing_is_said_before_it_is_known_or_ten_seconds_passed(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path, nursery)
        rig.serves = False
        rig.write("cart")
        await rig.seconds(8)
        assert rig.published == []
        assert not rig.services.settled
        await rig.seconds(4)
        assert rig.published == [(("cart", EndpointHealth.FAILING, False),)]
        nursery.cancel_scope.cancel()


async def test_a_key_that_the_engine_has_not_confirmed_yet_is_waited_for(tmp_path: Path) -> None:
    """After a restart it shows it all the while, and nobody may be told otherwise for a moment."""
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path, nursery)
        rig.identity, rig.is_due = False, True
        rig.write("cart")
        await rig.services.scan()
        rig.services.refresh()
        assert rig.published == []
        rig.identity, rig.is_due = True, False
        rig.services.refresh()
        assert rig.published == [(("cart", EndpointHealth.PASSING, False),)]
        nursery.cancel_scope.cancel()


async def test_a_key_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    """A new node shows its keys once peers hold their pins; until then it says that it serves nothing."""
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path, nursery)
        rig.identity = False
        rig.write("cart")
        await rig.services.scan()
        assert rig.published == [(("cart", EndpointHealth.FAILING, False),)]
        assert rig.services.settled
        nursery.cancel_scope.cancel()


async def test_a_service_the_credential_does_not_allow_is_told_and_not_published(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path, nursery)
        rig.allowed = False
        rig.write("cart")
        await rig.services.scan()
        assert rig.published == [()]
        assert "--service shop/cart" in rig.services.problems()[0]
        nursery.cancel_scope.cancel()


async def test_a_file_that_comes_and_goes_is_followed(tmp_path: Path, autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path, nursery)
        await rig.seconds(1)
        rig.write("cart")
        await rig.seconds(2)
        (tmp_path / "cart.yaml").unlink()
        await rig.seconds(1)
        assert rig.published == [(), (("cart", EndpointHealth.PASSING, False),), ()]
        nursery.cancel_scope.cancel()


async def test_the_kernel_tells_of_a_change_once_the_folder_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_LOOK_S", 0.01)
    monkeypatch.setattr(services, "_LOOK_TOLD_S", 3_600)
    folder = tmp_path / "services.d"
    async with trio.open_nursery() as nursery:
        rig = Rig(folder, nursery)

        async def are_published(*names: str) -> None:
            async def missing() -> str | None:
                told = [name for name, _, _ in rig.published[-1]] if rig.published else []
                return None if told == list(names) else f"published are {told}"

            await wait_until(f"{names} are published", missing, 60, 0.01)

        nursery.start_soon(rig.services.run)
        folder.mkdir()
        rig.write("cart")
        await are_published("cart")
        rig.write("web")
        await are_published("cart", "web")
        (folder / "cart.yaml").unlink()
        await are_published("web")
        nursery.cancel_scope.cancel()


async def test_a_disk_that_takes_its_time_holds_nobody_but_the_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder on a file server that does not answer: everything else goes on, and the agent can end."""
    answered = threading.Event()
    looks = 0

    def hang(self: ServicesFolder) -> bool:
        nonlocal looks
        looks += 1
        answered.wait()
        return False

    monkeypatch.setattr(ServicesFolder, "scan", hang)
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path, nursery)
        nursery.start_soon(rig.services.scan)
        nursery.start_soon(rig.services.scan)
        while not looks:
            await trio.lowlevel.checkpoint()
        rig.services.refresh()
        assert rig.services.problems() == []
        nursery.cancel_scope.cancel()
    assert looks == 1
    answered.set()
