"""Where the authority is: several addresses and names, tried in turn; one that moved is found again."""

import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gossipmesh.agent.admin.check_facts import why_none_answers
from gossipmesh.agent.identity.authority_client import AuthorityClient
from gossipmesh.agent.identity.enrolment import enrol, renew
from gossipmesh.agent.identity.identity_keeper import IdentityKeeper
from gossipmesh.agent.identity.identity_store import load_identity
from gossipmesh.control.server import AuthorityServer
from gossipmesh.control.tokens import TokenOrder
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address
from gossipmesh.net.entropy import random_bytes
from tests.unit.enrolment_kit import LOOPBACK, RunningAuthority, running_authority


class Names:
    """A resolver that knows what a test tells it."""

    def __init__(self, **known: list[Address]) -> None:
        self.known = known
        self.asked: list[str] = []

    async def __call__(
        self, host: str, port: int, _family: int, _limiter: trio.CapacityLimiter, _timeout_s: float
    ) -> list[Address]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError(0, "Name or service not known")
        return [Address(address.host, port) for address in self.known[host]]


@pytest.fixture
def nobody() -> Iterator[Address]:
    """An address that refuses connections, for as long as the test lasts."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield Address("127.0.0.1", held.getsockname()[1])


def token_for(running: RunningAuthority, path: Path, *places: str) -> Path:
    first, *more = places
    order = TokenOrder(first, "n1", ("shop/*",), 600, more)
    return running.write_token(path, running.issuer.create_token(order, running.now()))


async def test_addresses_are_tried_in_turn_and_names_resolved_at_each_use(
    tmp_path: Path, nobody: Address
) -> None:
    names = Names(authority=[Address("127.0.0.1", 0)])
    async with running_authority(tmp_path / "authority") as running:
        port = running.address.port
        places = (str(nobody), f"unknown:{port}", f"authority:{port}")
        token = token_for(running, tmp_path / "token", *places)
        identity = await enrol(tmp_path / "identity", token, client=AuthorityClient(names))
        assert identity.authorities == places
        kept = load_identity(tmp_path / "identity")
        assert kept is not None
        assert kept.authorities == places
        leaves = {name: keys.current for name, keys in identity.holding.keys.items()}
        await renew(identity, leaves, client=AuthorityClient(names))
    assert names.asked == ["unknown", "authority"] * 2


async def test_what_failed_at_each_address_is_told(tmp_path: Path, nobody: Address) -> None:
    running = RunningAuthority(tmp_path / "authority")
    token = token_for(running, tmp_path / "token", str(nobody), "unknown:1")
    with pytest.raises(OperatorError) as failure:
        await enrol(tmp_path / "identity", token, client=AuthorityClient(Names()))
    sentence = str(failure.value)
    assert "no authority answered, 2 addresses were tried" in sentence
    assert f"cannot reach the authority at {nobody} (Connection refused)" in sentence
    assert "unknown:1 does not resolve (Name or service not known)" in sentence


async def test_a_refusal_is_the_answer_and_a_busy_authority_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that was used is used at each address; one that is overrun, or cannot write, is passed over."""
    async with running_authority(tmp_path / "a") as first:
        here = str(first.address)
        token = token_for(first, tmp_path / "token", here, here)
        first.moved_s = 601
        with pytest.raises(OperatorError, match="this token expired"):
            await enrol(tmp_path / "identity", token)
        assert first.server.statistics.refused == 1
        first.moved_s = 0

        def full(*_: object, **__: object) -> None:
            monkeypatch.undo()
            raise OperatorError("No space left on device")

        monkeypatch.setattr("gossipmesh.control.audit.AuditLog.append", full)
        await enrol(tmp_path / "identity", token)


async def test_a_token_pins_the_trust_it_was_made_under(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        made = running.issuer.create_token(running.order("n1", ()), running.now())
        assert made.trust_version == 1
        token = running.write_token(tmp_path / "token", made, trust_sha256="00" * 32)
        with pytest.raises(OperatorError, match="its Trust is not the one of the token, version 1"):
            await enrol(tmp_path / "identity", token)


async def test_a_token_for_0_2_says_nothing_it_does_not_read(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        order = TokenOrder(running.address, "n1", (), 600, format=1)
        path = running.write_token(tmp_path / "token", running.issuer.create_token(order, running.now()))
        known = (
            "kind version trust_domain authority authority_instance root_certificate root_sha256 token_id "
            "node services secret expires"
        )
        assert set(json.loads(path.read_text())) == set(known.split())
        await enrol(tmp_path / "identity", path)
        for bad in (TokenOrder("a.example:1", "n1", (), 600, format=1), TokenOrder("here", "n1", (), 600)):
            with pytest.raises(OperatorError):
                running.issuer.create_token(bad, running.now())


async def test_nodes_renew_at_an_authority_that_moved_to_another_address_and_name(tmp_path: Path) -> None:
    """The token's address is dead; the configuration, and later Trust, name the new one."""
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrol(
            tmp_path / "identity", token_for(running, tmp_path / "t", str(running.address))
        )
    moved = AuthorityServer(
        running.authority, clock=running.now, entropy=random_bytes, report=running.log.append
    )
    async with trio.open_nursery() as nursery:
        address = await nursery.start(moved.run, LOOPBACK)
        keeper = IdentityKeeper(
            tmp_path / "identity",
            identity,
            wanted=list,
            on_renewed=lambda _: None,
            rng=random.Random(1),
            authorities=[f"localhost:{address.port}"],
        )
        leaves = {name: keys.current for name, keys in identity.holding.keys.items()}
        await keeper.ask_authority(leaves)
        assert moved.statistics.renewed == 1
        assert keeper.authorities == (f"localhost:{address.port}", str(running.address))
        assert await why_none_answers(keeper.authorities) is None
        nursery.cancel_scope.cancel()
    assert "Connection refused" in (await why_none_answers(keeper.authorities) or "")
    assert await why_none_answers(()) is None
