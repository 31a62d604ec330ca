"""Keys turn on a real disk: what is shown is written, what the disk refuses is not shown."""

import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio

from gossipmesh.agent.identity import enrolment
from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.agent.identity.identity_keeper import IdentityKeeper, load_or_enrol
from gossipmesh.agent.identity.identity_store import FILE_NAME, NodeIdentity, load_identity
from gossipmesh.agent.identity.key_turning import HeldKeys
from gossipmesh.model.errors import OperatorError
from gossipmesh.net.clock import monotonic
from gossipmesh.net.secret_files import Reservation
from tests.unit.agent.identity.key_rig import FakeUse
from tests.unit.enrolment_kit import running_authority

NODE = "spiffe://mesh.test/node/n1"
WORKLOADS = f"{NODE}/workloads"
CART = "spiffe://mesh.test/ns/shop/svc/cart"


class Rig:
    """A keeper whose authority is dead, beside a mesh and an engine that are fakes."""

    def __init__(self, folder: Path, identity: NodeIdentity) -> None:
        self.folder = folder
        self.wanted: list[str] = []
        self.keeper = IdentityKeeper(
            folder / "identity",
            identity,
            wanted=lambda: self.wanted,
            on_renewed=lambda _: None,
            rng=random.Random(1),
        )
        self.use = FakeUse(self.keeper.keys)

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not condition():  # noqa: ASYNC110  a disk and a fake engine make it
                await trio.sleep(0.01)

    def held(self, name: str = NODE) -> HeldKeys:
        return self.keeper.keys.turning.holding.keys[name]

    def on_disk(self) -> NodeIdentity:
        identity = load_identity(self.folder / "identity")
        assert identity is not None
        return identity

    async def at_rest(self) -> None:
        await self.until(lambda: self.keeper.keys.turning.is_settled)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A node enrolled for shop/*, whose authority has died since."""
    async with running_authority(tmp_path / "authority") as authority:
        token = authority.token(tmp_path / "token", "n1", ("shop/*",))
        identity = await enrol(tmp_path / "identity", token)
    rig = Rig(tmp_path, identity)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.keeper.keys.run, rig.use)
        yield rig
        nursery.cancel_scope.cancel()


async def test_a_turn_without_an_authority_is_on_disk_published_and_shown(rig: Rig) -> None:
    await rig.at_rest()
    before, coming = rig.held().current, rig.held().next
    rig.keeper.keys.ask_turn(stolen=False)
    await rig.until(lambda: rig.use.confirmed[NODE] == coming.pin)
    await rig.at_rest()
    assert rig.on_disk().holding == rig.keeper.keys.turning.holding
    assert before.pin not in rig.use.sets[-1][NODE]
    assert rig.keeper.keys.turns_count == 1
    assert NODE not in rig.on_disk().svids, "nobody was there to certify it"


async def test_a_service_allowed_gets_its_key_without_an_authority(rig: Rig) -> None:
    await rig.at_rest()
    rig.wanted.extend(("shop/cart", "pay/ledger"))
    rig.keeper.services_changed()
    await rig.until(lambda: CART in rig.use.confirmed)
    assert set(rig.use.confirmed) == {NODE, WORKLOADS, CART}, "its token does not allow pay/ledger"
    assert rig.keeper.missing_services() == ["pay/ledger"]
    assert rig.on_disk().holding.keys[CART].is_used


async def test_what_the_disk_refuses_is_neither_published_nor_shown(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.at_rest()
    shown, sets_count = dict(rig.use.confirmed), len(rig.use.sets)
    refused = trio.Event()

    def refuse(self: Reservation, content: bytes) -> None:
        trio.from_thread.run_sync(refused.set)
        raise OperatorError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Reservation, "commit", refuse)
        rig.keeper.keys.ask_turn(stolen=False)
        with trio.fail_after(10):
            await refused.wait()
        await rig.until(lambda: rig.keeper.keys.failure is not None)
        assert rig.use.confirmed == shown
        assert len(rig.use.sets) == sets_count
    assert rig.keeper.keys.failure == "no space left on device"
    await rig.until(lambda: rig.use.confirmed != shown)
    assert rig.keeper.keys.failure is None


async def test_a_first_key_waits_until_peers_hold_its_pin(rig: Rig) -> None:
    await rig.at_rest()
    rig.use.peers = (1, 4)
    rig.wanted.append("shop/cart")
    rig.keeper.services_changed()
    await rig.until(lambda: CART in rig.use.sets[-1])
    assert CART not in rig.use.confirmed
    rig.use.peers = (2, 4)
    await rig.until(lambda: CART in rig.use.confirmed)


async def test_a_restart_goes_on_with_the_keys_that_were_shown(rig: Rig) -> None:
    await rig.at_rest()
    rig.use.engine = False
    rig.keeper.keys.ask_turn(stolen=False)
    await rig.until(lambda: rig.on_disk().holding.keys[NODE].former is not None)
    identity, _ = await load_or_enrol(rig.folder / "identity", None)
    again = Rig(rig.folder, identity)
    assert again.keeper.keys.usable()[NODE].pin in rig.use.sets[-1][NODE]
    assert again.held().former is not None
    assert again.held().former.pin == rig.use.confirmed[NODE]


async def test_before_a_turn_the_authority_certifies_the_coming_keys(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as authority, trio.open_nursery() as nursery:
        token = authority.token(tmp_path / "token", "n1", ())
        rig = Rig(tmp_path, await enrol(tmp_path / "identity", token))
        nursery.start_soon(rig.keeper.keys.run, rig.use)
        await rig.at_rest()
        coming = rig.held().next.pin
        rig.keeper.keys.ask_turn(stolen=False)
        await rig.until(lambda: rig.use.confirmed[NODE] == coming)
        await rig.at_rest()
        assert rig.on_disk().svids[NODE].key_pem == rig.held().current.key_pem
        nursery.cancel_scope.cancel()


async def test_an_identity_is_written_beside_the_loop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    commit = Reservation.commit

    def noted(self: Reservation, content: bytes) -> None:
        threads.append(threading.get_ident())
        commit(self, content)

    await rig.at_rest()
    monkeypatch.setattr(Reservation, "commit", noted)
    rig.keeper.keys.ask_turn(stolen=False)
    await rig.until(lambda: bool(threads))
    await rig.at_rest()
    assert threading.get_ident() not in threads
    assert os.listdir(rig.folder / "identity") == [FILE_NAME]


async def test_a_renewal_that_came_too_late_for_a_key_does_no_harm(rig: Rig) -> None:
    """Keys may turn while the authority signs the ones before."""
    await rig.at_rest()
    identity = rig.keeper.identity
    held = {one.pin: one for one in rig.held().all}
    for _ in range(2):
        rig.keeper.keys.ask_turn(stolen=True)
        await rig.until(lambda: not rig.keeper.keys.turning.is_settled)
        await rig.at_rest()
    holding = rig.keeper.keys.turning.holding
    await rig.keeper.keys.keep(enrolment.Renewal(identity, held))
    assert rig.keeper.keys.turning.holding == holding


async def test_under_an_authority_of_0_2_nothing_turns_until_it_is_upgraded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It renews no key but the one it enrolled, and would let the credential of whoever turned end."""
    await rig.at_rest()
    identity, turning = rig.keeper.identity, rig.keeper.keys.turning
    counted = msgspec.structs.replace(identity.credential_body, serial=7)
    shown = dict(rig.use.confirmed)
    monkeypatch.setattr(rig.keeper.keys, "identity", replace(identity, credential_body=counted))
    rig.keeper.keys.ask_turn(stolen=False)
    await rig.until(lambda: "of a build before 0.3" in turning.waits_for(monotonic()))
    assert (rig.keeper.keys.turns_count, rig.use.confirmed) == (0, shown)
    monkeypatch.setattr(rig.keeper.keys, "identity", identity)
    rig.keeper.keys.ask_turn(stolen=False)
    await rig.until(lambda: rig.use.confirmed != shown)


async def test_a_service_needs_a_certificate_while_a_member_judges_by_nothing_else(rig: Rig) -> None:
    await rig.at_rest()
    rig.use.certified = True
    rig.wanted.append("shop/cart")
    rig.keeper.services_changed()
    await rig.until(lambda: CART in rig.use.sets[-1])
    assert CART not in rig.use.confirmed
    assert rig.keeper.missing_services() == ["shop/cart"]
    rig.use.certified = False
    await rig.until(lambda: CART in rig.use.confirmed)
