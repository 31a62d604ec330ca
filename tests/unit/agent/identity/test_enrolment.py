"""Enrolment and renewal end to end: a real authority on loopback, real TLS, real files."""

import errno
import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio

from gossipmesh.agent.identity import enrolment
from gossipmesh.agent.identity.enrolment import enrol, renew
from gossipmesh.agent.identity.identity_store import (
    FILE_NAME,
    NodeIdentity,
    fresh_key,
    load_identity,
    stored_of,
)
from gossipmesh.agent.identity.key_turning import LeafKey
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.requests import RequestRefused
from gossipmesh.model.enrolment import EnrolRequest, Issued, RenewRequest
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import HOUR_S, WallSeconds
from gossipmesh.model.member import Address
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.tls import server_context
from tests.unit.enrolment_kit import RunningAuthority, running_authority

NODE = "spiffe://mesh.test/node/n1"
WORKLOADS = "spiffe://mesh.test/node/n1/workloads"
CART = "spiffe://mesh.test/ns/shop/svc/cart"
FRONT = "spiffe://mesh.test/ns/web/svc/front"


def leaves(identity: NodeIdentity, **more: LeafKey) -> dict[str, LeafKey]:
    """Return the current keys of an identity and others, by SPIFFE ID."""
    return {name: keys.current for name, keys in identity.holding.keys.items()} | more


async def test_enrol_load_renew(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        token = running.token(tmp_path / "token", "n1", ("shop/cart", "web/*"))
        enrolled = await enrol(tmp_path / "identity", token)
        kept = load_identity(tmp_path / "identity")
        assert kept is not None
        assert stored_of(kept) == stored_of(enrolled)
        assert list(enrolled.svids) == [NODE, WORKLOADS, CART]
        assert not any(keys.is_used for keys in enrolled.holding.keys.values())
        assert enrolled.authorities == (str(running.address),)

        front = fresh_key(FRONT)
        renewal = await renew(enrolled, leaves(enrolled, **{FRONT: front}))
        assert renewal.identity.credential == enrolled.credential, "signed again when it is ten days old"
        assert renewal.identity.holding == enrolled.holding
        assert renewal.keys.keys() == {front.pin, *(key.pin for key in leaves(enrolled).values())}
        assert renewal.keys[front.pin].not_before < wall_seconds() < renewal.keys[front.pin].not_after
        assert (running.server.statistics.enrolled, running.server.statistics.renewed) == (1, 1)
    assert os.listdir(tmp_path / "identity") == [FILE_NAME]


async def test_keys_never_reach_the_authority(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
    kept = b"".join(path.read_bytes() for path in (tmp_path / "authority").rglob("*") if path.is_file())
    line = identity.node_svid.key_pem.splitlines()[1]
    assert line not in kept
    assert json.loads((tmp_path / "identity" / FILE_NAME).read_text())["signing_seed"].encode() not in kept


async def test_a_token_used_twice_is_refused_and_the_second_node_stays_as_it_was(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        token = running.token(tmp_path / "token")
        await enrol(tmp_path / "one", token)
        with pytest.raises(OperatorError, match=r"refuses: this token was used already .* create a new one"):
            await enrol(tmp_path / "two", token)
        assert load_identity(tmp_path / "two") is None
        assert any("[token-used]" in line for line in running.log)


async def test_an_expired_token_is_refused(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        token = running.token(tmp_path / "token")
        running.moved_s = 601
        with pytest.raises(OperatorError, match="this token expired 1 s ago"):
            await enrol(tmp_path / "identity", token)


async def test_a_token_of_another_instance_under_the_same_root_is_refused(
    tmp_path: Path,
) -> None:
    async with running_authority(tmp_path / "authority") as running:
        made = running.issuer.create_token(running.order("n1", ()), running.now())
        token = running.write_token(tmp_path / "token", made, authority_instance="0123456789abcdef")
        with pytest.raises(OperatorError, match="made by another authority"):
            await enrol(tmp_path / "identity", token)


async def test_another_authoritys_server_gets_nothing(tmp_path: Path) -> None:
    """The token is for A; the address leads to B, which has another root."""
    async with running_authority(tmp_path / "a") as ours, running_authority(tmp_path / "b") as theirs:
        made = ours.issuer.create_token(ours.order("n1", ()), ours.now())
        token = ours.write_token(tmp_path / "token", made, authority=str(theirs.address))
        with pytest.raises(OperatorError, match="is not the authority this node trusts"):
            await enrol(tmp_path / "identity", token)
        assert theirs.server.statistics.refused == 0
        await enrol(tmp_path / "identity", ours.write_token(tmp_path / "token", made))


async def test_a_node_cannot_pass_for_the_authority(tmp_path: Path) -> None:
    """A server with a perfectly good SVID of the mesh, which is not the authority's."""
    async with running_authority(tmp_path / "authority") as running, trio.open_nursery() as nursery:
        node = await enrol(tmp_path / "node", running.token(tmp_path / "token", "mallory"))
        context = server_context(node.node_svid, node.bundle_pem)
        context.verify_mode = ssl.CERT_NONE
        received: list[bytes] = []

        async def listen(stream: trio.SocketStream) -> None:
            tls = trio.SSLStream(stream, context, server_side=True)
            try:
                received.append(bytes(await tls.receive_some(10)))
            except trio.BrokenResourceError:
                received.append(b"")

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, listen, listeners)
        made = running.issuer.create_token(running.order("n1", ()), running.now())
        token = running.write_token(tmp_path / "token", made, authority=f"127.0.0.1:{port}")
        with pytest.raises(OperatorError, match=r"it is spiffe://mesh\.test/node/mallory"):
            await enrol(tmp_path / "identity", token)
        nursery.cancel_scope.cancel()
    assert received in ([], [b""])


async def test_new_keys_are_certified_without_a_token(tmp_path: Path) -> None:
    """The proof is the Ed25519 key's, so TLS keys may be others each time."""
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
        coming = {name: keys.next for name, keys in identity.holding.keys.items()}
        renewal = await renew(identity, coming)
    assert renewal.keys.keys() == {key.pin for key in coming.values()}


async def test_a_service_beyond_the_token_is_left_out_and_the_rest_renewed(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrol(tmp_path / "identity", running.token(tmp_path / "token", "n1", ("shop/*",)))
        renewal = await renew(identity, leaves(identity, **{FRONT: fresh_key(FRONT)}))
        assert renewal.left_out == (FRONT,)
        assert renewal.keys.keys() == {key.pin for key in leaves(identity).values()}
        assert running.log[-1].endswith(f"without {FRONT}: it may not be these")


@pytest.mark.parametrize("left_out", [(), (NODE,), (WORKLOADS,), ("spiffe://mesh.test/node/n2",)])
async def test_an_answer_that_lacks_what_it_does_not_leave_out_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: tuple[str, ...]
) -> None:
    """Nor one without the node itself."""
    renew_here = Issuer.renew

    def leave_out(self: Issuer, request: RenewRequest, now: WallSeconds, peer: str = "") -> Issued:
        issued = renew_here(self, request, now, peer)
        return msgspec.structs.replace(issued, svids=issued.svids[1:], left_out=left_out)

    monkeypatch.setattr(Issuer, "renew", leave_out)
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
        with pytest.raises(OperatorError, match="not for the names that were asked for"):
            await renew(identity, leaves(identity))


async def test_a_dead_authority_is_a_sentence_and_costs_nothing(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
        second = running.token(tmp_path / "second", "n2")
    before = (tmp_path / "identity" / FILE_NAME).read_bytes()
    with pytest.raises(OperatorError, match=r"cannot reach the authority at 127\.0\.0\.1"):
        await renew(identity, leaves(identity))
    with pytest.raises(OperatorError, match="cannot reach the authority"):
        await enrol(tmp_path / "other", second)
    assert (tmp_path / "identity" / FILE_NAME).read_bytes() == before
    assert load_identity(tmp_path / "other") is None


async def test_a_server_that_hangs_is_given_up_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    running = RunningAuthority(tmp_path / "authority")
    running.address = Address("127.0.0.1", listeners[0].socket.getsockname()[1])
    with pytest.raises(OperatorError, match="did not answer within 15 s"):
        await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
    await listeners[0].aclose()


async def test_an_authority_that_takes_no_serial_is_asked_again_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 0.2 refuses a request with a field it does not know."""
    renew_here = Issuer.renew
    serials: list[object] = []

    def refuse(self: Issuer, request: RenewRequest, now: WallSeconds, peer: str = "") -> Issued:
        serials.append(request.serial)
        if request.serial is not msgspec.UNSET:
            raise RequestRefused("malformed", "Object contains unknown field `serial`")
        return renew_here(self, request, now, peer)

    monkeypatch.setattr(Issuer, "renew", refuse)
    async with running_authority(tmp_path / "authority") as running:
        enrolled = await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
        renewal = await renew(enrolled, leaves(enrolled))
    renewed = renewal.identity
    assert [key.pin for key in leaves(enrolled).values() if key.pin not in renewal.keys] == [
        enrolled.holding.keys[WORKLOADS].current.pin
    ]
    assert renewed.credential_body.serial == enrolled.credential_body.serial + 1
    assert serials == [max(enrolled.credential_body.serial + 1, serials[0]), msgspec.UNSET]


async def test_an_answer_that_takes_the_node_back_is_not_kept(tmp_path: Path) -> None:
    """An authority restored from a backup that answers what it signed before."""
    async with running_authority(tmp_path / "authority") as running:
        old = await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
        ahead = msgspec.structs.replace(old.credential_body, serial=old.credential_body.serial + 1)
        with pytest.raises(OperatorError, match=r"its credential is of generation \d+, serial .*is kept"):
            await renew(replace(old, credential_body=ahead), leaves(old))


async def test_trust_with_a_certificate_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
        broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"
        trust = msgspec.structs.replace(running.authority.trust, intermediates=(broken,))
        with pytest.raises(OperatorError, match=r"cannot prepare .*no base64.*old identity is kept"):
            await renew(identity, leaves(identity), trust=trust)


async def test_an_agent_out_of_descriptors_is_told_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making a context takes a descriptor; what the keeper does not expect would end the agent."""

    def refuse(*_: object) -> ssl.SSLContext:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with running_authority(tmp_path / "authority") as authority:
        identity = await enrol(tmp_path / "identity", authority.token(tmp_path / "token"))
        monkeypatch.setattr(enrolment, "anonymous_context", refuse)
        with pytest.raises(OperatorError, match=r"Too many open files.*the old identity is kept"):
            await renew(identity, leaves(identity))
    kept = load_identity(tmp_path / "identity")
    assert kept is not None
    assert kept.credential == identity.credential


async def test_an_authority_of_the_build_before_enrols_the_node_without_its_workloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol_here = Issuer.enrol

    def refuse(self: Issuer, request: EnrolRequest, now: WallSeconds, peer: str = "") -> Issued:
        if len(request.requests) > 1:
            raise RequestRefused("malformed", "no identity this mesh issues")
        return enrol_here(self, request, now, peer)

    monkeypatch.setattr(Issuer, "enrol", refuse)
    async with running_authority(tmp_path / "authority") as running:
        enrolled = await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
    assert list(enrolled.svids) == [NODE]
    assert list(enrolled.holding.keys) == [NODE, WORKLOADS]


async def test_a_clock_far_off_is_told(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
        running.moved_s = 2 * HOUR_S
        with pytest.raises(OperatorError, match=r"the node's clock is -7[12]\d\d s away"):
            await renew(identity, leaves(identity))


def test_a_token_file_must_be_private_and_whole(tmp_path: Path) -> None:
    running = RunningAuthority(tmp_path / "authority")
    running.address = Address("127.0.0.1", 9)
    token = running.token(tmp_path / "token")
    token.chmod(0o644)
    with pytest.raises(OperatorError, match=r"chmod 600 .*token"):
        trio.run(enrol, tmp_path / "identity", token)
    token.chmod(0o600)
    good = json.loads(token.read_text())
    for change in (
        {"root_sha256": "00"},
        {"version": 9},
        {"node": "../n1"},
        {"when": "x"},
        {"authority": "here"},
    ):
        token.write_text(json.dumps({**good, **change}))
        with pytest.raises(OperatorError, match="not a usable join token"):
            trio.run(enrol, tmp_path / "identity", token)
    with pytest.raises(OperatorError, match="cannot read"):
        trio.run(enrol, tmp_path / "identity", tmp_path / "missing")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB: less than an identity reserves."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.namespace
async def test_a_full_disk_does_not_cost_the_token(tmp_path: Path, small_disk: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        token = running.token(tmp_path / "token")
        with pytest.raises(OperatorError, match="No space left on device; nothing was changed"):
            await enrol(small_disk / "identity", token)
        assert os.listdir(small_disk / "identity") == []
        assert running.server.statistics.enrolled == 0
        await enrol(tmp_path / "identity", token)
