"""The enrolment server against strangers: everything is bounded, and it goes on serving."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from cryptography import x509

from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.control import server as server_module
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.roots import load_authority
from gossipmesh.control.rotation import Rotation
from gossipmesh.control.server import AuthorityServer
from gossipmesh.control.trust_changes import sign_trust
from gossipmesh.control.trust_folder import read_root_keys, write_trust
from gossipmesh.model.enrolment import REQUEST_BYTES_MAX, Refusal
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import DAY_S
from gossipmesh.model.member import Address
from gossipmesh.net.entropy import random_bytes
from gossipmesh.trust.svid import read_leaf_key_untrusted
from gossipmesh.trust.x509_leaf import read_leaf_untrusted
from tests.unit.enrolment_kit import LOOPBACK, RunningAuthority, running_authority


def client_context(running: RunningAuthority) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=running.authority.root_pem)
    context.check_hostname = False
    return context


async def talk(running: RunningAuthority, data: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Send bytes over TLS; return everything that comes back."""
    stream = await trio.open_tcp_stream(running.address.host, running.address.port)
    tls = trio.SSLStream(stream, context or client_context(running), https_compatible=True)
    received = b""
    try:
        with trio.fail_after(10):
            await tls.do_handshake()
            await tls.send_all(data)
            while chunk := await tls.receive_some(65_536):
                received += chunk
    finally:
        await trio.aclose_forcefully(tls)
    return received


def post(target: str, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (target.encode(), len(body), body)


REQUESTS: list[tuple[str, bytes, int, str]] = [
    ("no such path", post("/admin", b"{}"), 404, "not-found"),
    ("no POST", b"GET /v1/enrol HTTP/1.1\r\nhost: a\r\n\r\n", 405, "method"),
    ("no JSON", post("/v1/enrol", b"\xff{"), 400, "malformed"),
    ("an empty body", post("/v1/renew", b""), 400, "malformed"),
    ("an unknown field", post("/v1/enrol", b'{"admin": true}'), 400, "malformed"),
    ("deep nesting", post("/v1/enrol", b"[" * 50_000), 400, "malformed"),
    ("a body beyond the limit", post("/v1/enrol", b" " * (REQUEST_BYTES_MAX + 1)), 400, "malformed"),
    ("a head beyond the limit", b"GET /" + b"a" * 40_000, 400, "malformed"),
    ("no HTTP", b"\x16\x03\x01 not http\r\n\r\n", 400, "malformed"),
    ("two lengths", b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400, "malformed"),
]


@pytest.mark.parametrize(
    ("data", "status", "code"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS]
)
async def test_answers_nonsense_with_a_code_and_goes_on(
    tmp_path: Path, data: bytes, status: int, code: str
) -> None:
    async with running_authority(tmp_path / "authority") as running:
        head, _, body = (await talk(running, data)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d" % status)
        assert msgspec.json.decode(body, type=Refusal).code == code
        await enrol(tmp_path / "identity", running.token(tmp_path / "token"))


async def test_what_a_stranger_writes_is_one_line_of_the_log(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        claim = "x\nenrolled spiffe://mesh.test/node/admin\x1b[2K"
        request = {"authority_instance": claim, "token_id": "", "secret": "", "signing_key": ""}
        request |= {"exchange_key": "", "requests": []}
        await talk(running, post("/v1/enrol", msgspec.json.encode(request)))
        spiffe_id = "spiffe://mesh.test/" + "a" * 5_000
        request = {"spiffe_id": spiffe_id, "requests": [], "issued": 0}
        await talk(running, post("/v1/renew", msgspec.json.encode(request)))
    refused = [line for line in running.log if line.startswith("refused ")]
    assert len(refused) == 2
    assert all(line.isprintable() and len(line) < 500 for line in refused)


async def test_connections_that_come_to_nothing_are_counted_and_forgotten(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        for data in (b"", b"not tls at all\r\n\r\n"):
            stream = await trio.open_tcp_stream(running.address.host, running.address.port)
            await stream.send_all(data)
            await stream.aclose()
        await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
        with trio.fail_after(10):
            while running.server.statistics.broken < 2:
                await trio.lowlevel.checkpoint()
        assert [line.split()[0] for line in running.log] == ["listening", "enrolled"]


async def test_speaks_nothing_older_than_tls_1_3(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        context = client_context(running)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(trio.BrokenResourceError):
            await talk(running, b"", context)


@asynccontextmanager
async def besieged(running: RunningAuthority, count: int, say: bytes = b"") -> AsyncIterator[None]:
    """Hold so many connections that begin nothing, or begin and go on with nothing."""
    streams = []
    try:
        for _ in range(count):
            stream = await trio.open_tcp_stream(running.address.host, running.address.port)
            streams.append(stream)
            if say:
                await stream.send_all(say)
        yield
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("say", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
async def test_who_says_nothing_makes_way_for_who_enrols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: bytes
) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 8)
    async with running_authority(tmp_path / "authority") as running, besieged(running, 40, say):
        for number in range(5):
            await enrol(tmp_path / f"i{number}", running.token(tmp_path / f"t{number}", f"n{number}"))
        assert running.server.statistics.enrolled == 5
        counts = running.server.reception.counts
        assert counts["authority_evicted_unfinished"] >= 36
        assert not any("refused" in event for event in counts)
        assert len(running.log) < 40, "evictions are told seldom"


async def test_a_request_that_never_comes_whole_makes_way_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake done, half a head, and silence."""
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 4)
    async with running_authority(tmp_path / "authority") as running:
        held = []
        for _ in range(6):
            stream = await trio.open_tcp_stream(running.address.host, running.address.port)
            tls = trio.SSLStream(stream, client_context(running), https_compatible=True)
            await tls.do_handshake()
            await tls.send_all(b"POST /v1/enrol HTTP/1.1\r\nhost:")
            held.append(tls)
        await enrol(tmp_path / "identity", running.token(tmp_path / "token"))
        for tls in held:
            await trio.aclose_forcefully(tls)
        assert running.server.statistics.enrolled == 1


@pytest.mark.parametrize("limit", ["HANDSHAKE_TIMEOUT_S", "REQUEST_TIMEOUT_S"])
async def test_each_part_of_a_connection_has_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(server_module, limit, 0.01 if limit == "HANDSHAKE_TIMEOUT_S" else 0.5)
    async with running_authority(tmp_path / "authority") as running:
        stream = await trio.open_tcp_stream(running.address.host, running.address.port)
        with trio.fail_after(10):
            if limit == "REQUEST_TIMEOUT_S":
                tls = trio.SSLStream(stream, client_context(running), https_compatible=True)
                await tls.do_handshake()
                assert await tls.receive_some(1) == b""
            else:
                assert await stream.receive_some(1) == b""
        await trio.aclose_forcefully(stream)
        with trio.fail_after(10):
            while running.server.statistics.broken == 0:
                await trio.lowlevel.checkpoint()


async def test_its_own_svid_is_renewed_while_it_serves(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:

        async def serial() -> bytes:
            stream = await trio.open_tcp_stream(running.address.host, running.address.port)
            context = client_context(running)
            context.verify_mode = ssl.CERT_NONE
            tls = trio.SSLStream(stream, context, https_compatible=True)
            await tls.do_handshake()
            der = tls.getpeercert(binary_form=True)
            await trio.aclose_forcefully(tls)
            assert isinstance(der, bytes)
            assert read_leaf_untrusted(der).spiffe_id == "spiffe://mesh.test/authority"
            return der

        first = await serial()
        assert await serial() == first
        running.moved_s = DAY_S // 2 + 1
        assert await serial() != first


async def test_both_kinds_of_addresses_are_served_at_the_wildcard(tmp_path: Path) -> None:
    """`--bind '[::]:8443'`; an IPv4 peer is on record as such."""
    running = RunningAuthority(tmp_path / "authority")
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(running.server.run, Address("::", 0))
        for number, host in enumerate(("127.0.0.1", "::1")):
            running.address = Address(host, bound.port)
            await enrol(tmp_path / f"i{number}", running.token(tmp_path / f"t{number}", f"n{number}"))
        nursery.cancel_scope.cancel()
    peers = [deed.peer for deed in running.ledger.log.deeds() if deed.what == "enrolled"]
    assert peers == ["127.0.0.1", "::1"]


async def test_a_server_takes_up_a_newer_trust_and_another_intermediate(tmp_path: Path) -> None:
    """Tokens pin the newest Trust; leaves, and the server's own, are the new intermediate's."""
    folder = tmp_path / "authority"
    async with running_authority(folder) as running:
        await enrol(tmp_path / "i1", running.token(tmp_path / "t1", "n1"))
        for step in ("name", "use"):
            turning = Rotation("intermediate", load_authority(folder))
            if step == "name":
                key = read_leaf_key_untrusted((folder / "root.key").read_bytes())
                turning.name(key, running.now(), random_bytes)
                document = turning.named()
                signed = sign_trust(running.authority.trust, document, read_root_keys(folder, ()))
                write_trust(folder, signed, document.version)
            else:
                turning.use()
            now = load_authority(folder)
            issuer = Issuer(now, running.ledger, random_bytes)
            made = issuer.create_token(running.order(f"of-{step}", ()), running.now())
            token = running.write_token(tmp_path / step, made)
            identity = await enrol(tmp_path / f"i-{step}", token)
            chain = x509.load_pem_x509_certificates(identity.node_svid.chain_pem)
            assert chain[1] == now.intermediate
        assert now.intermediate != running.authority.intermediate
        assert sum("Trust is at version 2" in line for line in running.log) == 2


async def test_a_server_whose_log_does_not_hold_does_not_start(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        for number in range(2):
            await enrol(tmp_path / f"i{number}", running.token(tmp_path / f"t{number}", f"n{number}"))
    path = tmp_path / "authority" / "log" / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"n0", b"n9"))
    again = AuthorityServer(
        running.authority, clock=running.now, entropy=random_bytes, report=running.log.append
    )
    with pytest.raises(OperatorError, match="does not hold"):
        await again.run(LOOPBACK)


async def test_an_address_in_use_is_a_sentence(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "a") as running:
        other = RunningAuthority(tmp_path / "b")
        with pytest.raises(OperatorError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
            await other.server.run(running.address)


async def test_two_servers_on_one_folder_are_one_too_many(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        loaded = load_authority(tmp_path / "authority")
        second = AuthorityServer(loaded, clock=running.now, entropy=random_bytes, report=running.log.append)
        with pytest.raises(OperatorError, match="another `gossipmesh authority serve` runs"):
            await second.run(LOOPBACK)


async def test_an_intermediate_that_ran_out_issues_nothing(tmp_path: Path) -> None:
    running = RunningAuthority(tmp_path / "authority")
    running.moved_s = 3_000 * DAY_S
    with pytest.raises(OperatorError, match="has run out"):
        await running.server.run(LOOPBACK)
