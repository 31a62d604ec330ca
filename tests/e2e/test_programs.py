"""Usual traffic, sent and served by programs we did not write, passes as it does without a mesh."""

import hashlib
import http.client
import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from websockets.sync.client import connect

from tests.e2e.program_mesh import PROGRAMS, ProgramMesh

pytestmark = pytest.mark.programs(*PROGRAMS)

GIGABYTE = 1_000_000_000
SLOW_RATE = "34M"  # bytes a second: a gigabyte takes half a minute
TRICKLE_BYTES = 180_000
TRICKLE_RATE = "10k"


@pytest.fixture(scope="module")
def mesh() -> Iterator[ProgramMesh]:
    """Two nodes with other people's servers behind the second."""
    with ProgramMesh() as mesh:
        trio.run(mesh.start)
        trio.run(mesh.wait_served)
        yield mesh


async def curl(mesh: ProgramMesh, *words: str, timeout_s: float = 60.0) -> str:
    result = await mesh.run("curl", "-sS", "-x", f"http://{mesh.proxy}", *words, timeout_s=timeout_s)
    assert result.code == 0, result.stderr
    return result.stdout


def file_of(mesh: ProgramMesh, size: int) -> tuple[Path, str]:
    """Return a file of `size` bytes, and their SHA-256."""
    path = mesh.directory / f"upload-{size}"
    block, digest = secrets.token_bytes(1_000_000), hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            part = block[: size - start]
            digest.update(part)
            file.write(part)
    return path, digest.hexdigest()


async def test_curl_puts_a_gigabyte_fast(mesh: ProgramMesh) -> None:
    path, digest = await trio.to_thread.run_sync(file_of, mesh, GIGABYTE)
    said = json.loads(await curl(mesh, "-T", str(path), "http://web.shop/upload", timeout_s=170.0))
    path.unlink()
    assert said == {"bytes": GIGABYTE, "sha256": digest}


async def test_what_takes_its_time_is_waited_for(mesh: ProgramMesh) -> None:
    """A gigabyte at a third of the pace, a trickle of 18 s, a minute's answer: all at once."""
    large, large_digest = await trio.to_thread.run_sync(file_of, mesh, GIGABYTE)
    small, small_digest = file_of(mesh, TRICKLE_BYTES)
    said: dict[str, Any] = {}

    async def put(name: str, path: Path, rate: str) -> None:
        words = ("--limit-rate", rate, "-T", str(path), "http://web.shop/upload")
        said[name] = json.loads(await curl(mesh, *words, timeout_s=150.0))

    async def get() -> None:
        said["slow"] = await curl(mesh, "-w", "%{http_code}", "http://web.shop/slow/60", timeout_s=150.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, "large", large, SLOW_RATE)
        nursery.start_soon(put, "small", small, TRICKLE_RATE)
        nursery.start_soon(get)
    large.unlink()
    assert said == {
        "large": {"bytes": GIGABYTE, "sha256": large_digest},
        "small": {"bytes": TRICKLE_BYTES, "sha256": small_digest},
        "slow": "slow\n200",
    }


async def test_curl_waits_for_a_100_continue(mesh: ProgramMesh) -> None:
    path, digest = file_of(mesh, 2_000_000)
    words = ("-v", "-H", "Expect: 100-continue", "--expect100-timeout", "30", "--data-binary", f"@{path}")
    result = await mesh.run("curl", "-sS", "-x", f"http://{mesh.proxy}", *words, "http://web.shop/post")
    assert json.loads(result.stdout) == {"bytes": 2_000_000, "sha256": digest}
    assert "HTTP/1.1 100 Continue" in result.stderr


async def test_curl_heads_and_gets_on_one_connection(mesh: ProgramMesh) -> None:
    get = ("-sS", "-x", f"http://{mesh.proxy}", "-o", "/dev/null", "-w", "%{num_connects} %{size_download}")
    out = await curl(mesh, "-I", "http://web.shop/bytes/70000", "--next", *get, "http://web.shop/bytes/70000")
    assert "content-length: 70000" in out.lower()
    assert out.endswith("0 70000")


async def test_curl_reads_trailers(mesh: ProgramMesh) -> None:
    out = await curl(mesh, "--raw", "-H", "TE: trailers", "http://web.shop/trailers")
    assert out.lower().endswith("0\r\nx-checksum: sha256:1234\r\n\r\n")


async def test_curl_reads_early_hints(mesh: ProgramMesh) -> None:
    out = await curl(mesh, "-i", "http://web.shop/hints")
    assert out.startswith("HTTP/1.1 103 ")
    assert out.endswith("hinted\n")


async def test_curl_speaks_http_1_0(mesh: ProgramMesh) -> None:
    assert await curl(mesh, "-0", "http://web.shop/slow/0") == "slow\n"


async def test_curl_tunnels_to_an_http_service(mesh: ProgramMesh) -> None:
    """`-p` has curl send CONNECT for plain HTTP; what is inside is HTTP all the same."""
    assert await curl(mesh, "-p", "http://web.shop/slow/0") == "slow\n"
    assert await curl(mesh, "-p", "--proxy1.0", mesh.proxy, "http://web.shop/slow/0") == "slow\n"


async def test_wrk_sees_no_error(mesh: ProgramMesh) -> None:
    words = ("-t2", "-c32", "-d3s", "-H", "Host: web.shop", f"http://{mesh.proxy}/bytes/100")
    result = await mesh.run("wrk", *words)
    assert "requests in" in result.stdout
    assert "Non-2xx" not in result.stdout
    assert "Socket errors" not in result.stdout


@pytest.mark.parametrize("service", ["db", "cache"])
async def test_socat_tunnels_by_its_connect_of_http_1_0(mesh: ProgramMesh, service: str) -> None:
    host, _, port = mesh.proxy.rpartition(":")
    far = {"db": "5432", "cache": "6379"}[service]
    hello = {"db": bytes.fromhex("0000000804d2162f"), "cache": b"PING\r\n"}[
        service
    ]  # SSLRequest; inline PING
    words = ("-t", "5", "-", f"PROXY:{host}:{service}.shop:{far},proxyport={port}")
    result = await mesh.run("socat", *words, stdin=hello)
    assert result.stdout == {"db": "N", "cache": "+PONG\r\n"}[service]


async def test_openssl_tunnels_to_a_tls_server(mesh: ProgramMesh) -> None:
    words = ("-proxy", mesh.proxy, "-connect", "tls.shop:4433", "-ign_eof", "-quiet")
    result = await mesh.run("openssl", "s_client", *words, stdin=b"GET / HTTP/1.0\r\n\r\n")
    assert "HTTP/1.0 200 ok" in result.stdout
    assert "TLSv1.3" in result.stdout


def test_http_client_tunnels_to_tcp_and_to_http(mesh: ProgramMesh) -> None:
    host, _, port = mesh.proxy.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.set_tunnel("cache.shop", 6379)
    connection.connect()
    connection.sock.sendall(b"PING\r\n")
    assert connection.sock.recv(100) == b"+PONG\r\n"
    connection.close()
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.set_tunnel("web.shop", 80)
    for _ in range(2):
        connection.request("GET", "/slow/0")
        assert connection.getresponse().read() == b"slow\n"
    connection.close()


@pytest.mark.parametrize("by", ["connect", "upgrade"])
def test_websockets_pass(mesh: ProgramMesh, by: str) -> None:
    host, _, port = mesh.proxy.rpartition(":")
    if by == "connect":
        chat = connect("ws://chat.shop/", proxy=f"http://{mesh.proxy}", max_size=None)
    else:
        stream = socket.create_connection((host, int(port)))
        chat = connect("ws://chat.shop/", sock=stream, proxy=None, max_size=None)
    with chat:
        for message in ("hello", secrets.token_bytes(1_000_000), "x" * 70_000):
            chat.send(message)
            assert chat.recv(timeout=20) == message


async def psql(mesh: ProgramMesh, query: str) -> str:
    host, port = mesh.upstream("db")
    words = ("-h", host, "-p", str(port), "-U", "shop", "-d", "postgres", "-XAtq", "-c", query)
    result = await mesh.run("psql", *words)
    assert result.code == 0, result.stderr
    return result.stdout


async def test_psql_queries_through_an_explicit_port(mesh: ProgramMesh) -> None:
    assert await psql(mesh, "select 6*7") == "42\n"
    rows = await psql(mesh, "select i, repeat('x', 1000) from generate_series(1, 5000) i")
    assert len(rows.splitlines()) == 5_000
    await psql(mesh, "create table t(i int); insert into t select generate_series(1, 1000)")
    assert await psql(mesh, "select sum(i) from t") == "500500\n"


async def test_redis_cli_talks_through_an_explicit_port(mesh: ProgramMesh) -> None:
    host, port = mesh.upstream("cache")
    words = ("redis-cli", "-h", host, "-p", str(port))
    value = secrets.token_hex(500_000)
    assert (await mesh.run(*words, "-x", "set", "large", stdin=value.encode())).stdout == "OK\n"
    assert (await mesh.run(*words, "get", "large")).stdout == value + "\n"
    commands = "".join(f"SET k{n} {n}\r\n" for n in range(20_000)).encode()
    assert "replies: 20000" in (await mesh.run(*words, "--pipe", stdin=commands)).stdout
    assert (await mesh.run(*words, "dbsize")).stdout == "20001\n"
