"""Certificates are renewed in time, and an authority that is away is a warning and nothing more."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from gossipmesh.agent import enrolment, identity_keeper
from gossipmesh.agent.enrolment import enrol
from gossipmesh.agent.identity_keeper import IdentityKeeper, half_life, horizon, load_or_enrol
from gossipmesh.agent.identity_store import NodeIdentity
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import DAY_S, HOUR_S
from gossipmesh.net.clock import wall_seconds
from tests.unit.enrolment_kit import running_authority


async def _enrolled(folder: Path) -> NodeIdentity:
    async with running_authority(folder / "authority") as authority:
        return await enrol(folder / "identity", authority.token(folder / "token", "n1", ("shop/cart",)))


async def test_a_registered_service_without_a_certificate_gets_one(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as authority, trio.open_nursery() as nursery:
        token = authority.token(tmp_path / "token", "n1", ("shop/*",))
        identity, enrolled = await load_or_enrol(tmp_path / "identity", token)
        assert enrolled
        wanted: list[str] = []
        renewed = trio.Event()
        keeper = IdentityKeeper(
            tmp_path / "identity",
            identity,
            wanted=lambda: wanted,
            on_renewed=lambda _: renewed.set(),
            rng=random.Random(1),
        )
        nursery.start_soon(keeper.run)
        wanted.append("shop/cart")
        assert keeper.missing_services() == ["shop/cart"]
        keeper.services_changed()
        with trio.fail_after(10):
            await renewed.wait()
        assert keeper.missing_services() == []
        assert (await load_or_enrol(tmp_path / "identity", None))[
            0
        ].svids.keys() == keeper.identity.svids.keys()
        nursery.cancel_scope.cancel()


def test_a_dead_authority_is_tried_again_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = trio.run(_enrolled, tmp_path)
    asked: list[float] = []

    async def away(directory: Path, identity: NodeIdentity, services: Sequence[str]) -> NodeIdentity:
        asked.append(trio.current_time())
        raise OperatorError("the authority does not answer")

    async def a_day() -> None:
        with trio.move_on_after(DAY_S):
            await keeper.run()

    monkeypatch.setattr(enrolment, "renew", away)
    keeper = IdentityKeeper(
        tmp_path / "identity", identity, wanted=list, on_renewed=lambda _: None, rng=random.Random(1)
    )
    trio.run(a_day, clock=trio.testing.MockClock(autojump_threshold=0))
    waits = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert waits[:5] == sorted(waits[:5])
    assert 5 <= waits[0] < 6
    assert max(waits) <= 330
    assert keeper.failure == "the authority does not answer"
    assert keeper.failures_count == len(asked)
    assert keeper.identity is identity


def test_a_machine_that_slept_renews_as_soon_as_it_is_awake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's clock stands still while a machine sleeps; the certificates' does not."""
    identity = trio.run(_enrolled, tmp_path)
    began = wall_seconds()
    slept_s = 0
    asked: list[float] = []

    async def renew(directory: Path, identity: NodeIdentity, services: Sequence[str]) -> NodeIdentity:
        asked.append(trio.current_time())
        return identity

    async def a_sleep() -> None:
        nonlocal slept_s
        start = trio.current_time()
        monkeypatch.setattr(
            identity_keeper, "wall_seconds", lambda: int(began + trio.current_time() - start) + slept_s
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            await trio.sleep(600)
            assert asked == []
            slept_s = half_life(identity) - began + HOUR_S
            await trio.sleep(61)
            nursery.cancel_scope.cancel()

    monkeypatch.setattr(enrolment, "renew", renew)
    keeper = IdentityKeeper(
        tmp_path / "identity", identity, wanted=list, on_renewed=lambda _: None, rng=random.Random(1)
    )
    trio.run(a_sleep, clock=trio.testing.MockClock(autojump_threshold=0))
    assert asked


async def test_half_life_is_between_issue_and_end(tmp_path: Path) -> None:
    identity = await _enrolled(tmp_path)
    assert wall_seconds() < half_life(identity) < horizon(identity)
