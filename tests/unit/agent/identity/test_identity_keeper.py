"""Certificates are renewed in time, and an authority that is away is a warning and nothing more."""

import itertools
import logging
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from gossipmesh.agent.identity import enrolment, identity_keeper
from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.agent.identity.identity_keeper import IdentityKeeper, half_life, horizon, load_or_enrol
from gossipmesh.agent.identity.identity_store import NodeIdentity
from gossipmesh.agent.identity.key_turning import LeafKey
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import DAY_S, HOUR_S
from gossipmesh.net.clock import wall_seconds
from gossipmesh.trust.svid import serial_of_chain
from tests.unit.agent.identity.key_rig import FakeUse
from tests.unit.enrolment_kit import RunningAuthority, running_authority


@pytest.fixture(autouse=True)
def propagating() -> Iterator[None]:
    """Let caplog see what the agent logs, whatever another test has set."""
    log = logging.getLogger("gossipmesh")
    before, log.propagate = log.propagate, True
    yield
    log.propagate = before


async def _enrolled(folder: Path) -> NodeIdentity:
    async with running_authority(folder / "authority") as authority:
        return await enrol(folder / "identity", authority.token(folder / "token", "n1", ("shop/cart",)))


async def test_a_registered_service_gets_a_key_at_once_and_a_certificate_after_it(tmp_path: Path) -> None:
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
        nursery.start_soon(keeper.keys.run, FakeUse())
        wanted.append("shop/cart")
        assert keeper.missing_services() == ["shop/cart"]
        keeper.services_changed()
        with trio.fail_after(10):
            await renewed.wait()
            while keeper.missing_services():  # noqa: ASYNC110  a disk makes it
                await trio.sleep(0.01)
        kept, _ = await load_or_enrol(tmp_path / "identity", None)
        assert "spiffe://mesh.test/ns/shop/svc/cart" in kept.svids
        nursery.cancel_scope.cancel()


def test_a_dead_authority_is_tried_again_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = trio.run(_enrolled, tmp_path)
    asked: list[float] = []

    async def away(identity: NodeIdentity, leaves: Mapping[str, LeafKey], **_: object) -> enrolment.Renewal:
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

    async def renew(identity: NodeIdentity, leaves: Mapping[str, LeafKey], **_: object) -> enrolment.Renewal:
        asked.append(trio.current_time())
        return enrolment.Renewal(identity, {})

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


def _told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


async def _joined(folder: Path, authority: RunningAuthority) -> bytes:
    """Enrol n1 for shop/cart in `folder`/identity; return the identity's file."""
    await enrol(folder / "identity", authority.token(folder / "token", "n1", ("shop/cart",)))
    return (folder / "identity" / "identity.json").read_bytes()


async def test_a_token_for_the_node_that_is_enrolled_is_left_unspent_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_authority(tmp_path / "authority") as authority:
        held = await _joined(tmp_path, authority)
        again = authority.token(tmp_path / "again", "n1", ("shop/cart",))
        caplog.set_level("INFO", "gossipmesh")
        identity, enrolled = await load_or_enrol(tmp_path / "identity", again)
        assert (identity.name, enrolled) == ("n1", False)
        assert (tmp_path / "identity" / "identity.json").read_bytes() == held
        ((level, message),) = _told(caplog)
        assert level == "INFO"
        assert message == (
            "n1 is enrolled already, its token is not redeemed and the file may be removed; to enrol it "
            f"anew, stop the agent, run `rm -r {tmp_path}/identity` and start it again with a token that is "
            "not spent"
        )
        assert (await enrol(tmp_path / "elsewhere", again)).name == "n1", "the token was not spent"


async def test_what_only_the_token_says_is_named_as_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who gave a new token for one more service, or for an authority that moved, waits for it to happen."""
    async with running_authority(tmp_path / "authority") as authority:
        await _joined(tmp_path, authority)
        order = authority.order("n1", ("shop/cart", "shop/web", "pay/*"))
        token = authority.issuer.create_token(order, authority.now())
        path = authority.write_token(tmp_path / "more", token, authority="10.0.0.9:8443")
        await load_or_enrol(tmp_path / "identity", path)
        ((level, message),) = _told(caplog)
        assert level == "WARNING"
        assert (
            "is ignored: that it may serve pay/*, shop/web, that the authority is at 10.0.0.9:8443,"
            in message
        )


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"node": "n2"}, "a token for spiffe://mesh.test/node/n2: nothing was started"),
        ({"trust_domain": "other.test"}, "a token for spiffe://other.test/node/n1: nothing was started"),
    ],
)
async def test_a_token_for_another_name_ends_the_start(
    tmp_path: Path, other: dict[str, str], named: str
) -> None:
    async with running_authority(tmp_path / "authority") as authority:
        held = await _joined(tmp_path, authority)
        token = authority.issuer.create_token(authority.order("n1", ()), authority.now())
        path = authority.write_token(tmp_path / "other", token, **other)
        with pytest.raises(OperatorError) as caught:
            await load_or_enrol(tmp_path / "identity", path)
        said = str(caught.value)
        assert f"{tmp_path}/identity holds the identity of spiffe://mesh.test/node/n1, and {path} is" in said
        assert named in said
        assert f"run `rm -r {tmp_path}/identity`" in said
        assert (tmp_path / "identity" / "identity.json").read_bytes() == held


async def test_a_token_of_another_authority_of_the_same_names_ends_the_start(tmp_path: Path) -> None:
    """An authority that was made anew has another root: the old identity is of another mesh."""
    async with running_authority(tmp_path / "authority") as authority:
        await _joined(tmp_path, authority)
        async with running_authority(tmp_path / "anew") as anew:
            with pytest.raises(OperatorError, match=r"of another authority, at 127\.0\.0\.1:"):
                await load_or_enrol(tmp_path / "identity", anew.token(tmp_path / "other", "n1"))


async def test_a_token_that_cannot_be_used_keeps_no_enrolled_node_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_authority(tmp_path / "authority") as authority:
        await _joined(tmp_path, authority)
        caplog.set_level("INFO", "gossipmesh")
        await load_or_enrol(tmp_path / "identity", tmp_path / "removed after joining")
        assert not _told(caplog)
        (tmp_path / "junk").write_text("junk")
        (tmp_path / "junk").chmod(0o600)
        await load_or_enrol(tmp_path / "identity", tmp_path / "junk")
        (tmp_path / "token").chmod(0o644)
        await load_or_enrol(tmp_path / "identity", tmp_path / "token")
        levels, messages = zip(*_told(caplog), strict=True)
        assert levels == ("WARNING", "WARNING")
        assert "is not a usable join token" in messages[0]
        assert "is open to other users" in messages[1]


def test_a_renewal_that_failed_is_tried_again_at_once_when_trust_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was away while the authority was given another intermediate does not know it before."""
    identity = trio.run(_enrolled, tmp_path)
    asked: list[float] = []

    async def unknown(
        identity: NodeIdentity, leaves: Mapping[str, LeafKey], **_: object
    ) -> enrolment.Renewal:
        asked.append(trio.current_time())
        if len(asked) == 1:
            raise OperatorError("the authority shows a certificate that no intermediate in Trust signed")
        return enrolment.Renewal(identity, {})

    async def come_back() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            keeper.trust_changed()
            await trio.sleep(30)
            assert asked == []
            monkeypatch.setattr(identity_keeper, "wall_seconds", lambda: wall_seconds() + DAY_S)
            await trio.sleep(32)
            assert len(asked) == 1
            keeper.trust_changed()
            await trio.sleep(0.5)
            assert len(asked) == 2
            nursery.cancel_scope.cancel()

    monkeypatch.setattr(enrolment, "renew", unknown)
    keeper = IdentityKeeper(
        tmp_path / "identity", identity, wanted=list, on_renewed=lambda _: None, rng=random.Random(1)
    )
    trio.run(come_back, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_certificate_that_trust_revokes_is_asked_for_anew_at_once(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as authority, trio.open_nursery() as nursery:
        identity, _ = await load_or_enrol(
            tmp_path / "identity", authority.token(tmp_path / "token", "n1", ("shop/cart",))
        )
        trust = authority.authority.trust
        renewed = trio.Event()
        keeper = IdentityKeeper(
            tmp_path / "identity",
            identity,
            wanted=list,
            on_renewed=lambda _: renewed.set(),
            rng=random.Random(1),
            trust=lambda: trust,
        )
        nursery.start_soon(keeper.run)
        await trio.testing.wait_all_tasks_blocked()
        keeper.trust_changed()
        await trio.testing.wait_all_tasks_blocked()
        assert not renewed.is_set(), "nothing of it is revoked"
        revoked = serial_of_chain(identity.node_svid.chain_pem)
        trust = msgspec.structs.replace(trust, revoked_leaves={f"{revoked:x}": wall_seconds() + DAY_S})
        keeper.trust_changed()
        with trio.fail_after(10):
            await renewed.wait()
        assert serial_of_chain(keeper.identity.node_svid.chain_pem) > revoked
        nursery.cancel_scope.cancel()
