"""The peers of the mTLS pair: nginx as backend, wrk as load, two HAProxy processes with mTLS between.

Each is started from a temporary folder on addresses of its own in 127.72.0.0/16 and ended by pid.
"""

import contextlib
import datetime
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BACKEND = ("127.72.0.1", 18080)
FRONT = ("127.72.0.2", 18081)
BACK = ("127.72.0.3", 18082)
LOAD_CORE = 1
PROXY_CORE = 0


def missing_tools() -> list[str]:
    """Return the peers that are not installed."""
    path = "/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
    return [tool for tool in ("haproxy", "nginx", "wrk", "taskset") if shutil.which(tool, path=path) is None]


def version_of(tool: str) -> str:
    """Return the first line a tool prints of its version."""
    flag = "-v"
    result = subprocess.run([tool, flag], capture_output=True, text=True, check=False)
    return (result.stdout + result.stderr).strip().splitlines()[0]


@contextlib.contextmanager
def backend(folder: Path, address: tuple[str, int] = BACKEND) -> Iterator[tuple[str, int]]:
    """Run nginx, one worker, answering 66 bytes without touching a disk."""
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;\n"
        "events { worker_connections 1024; }\n"
        "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 3600;\n"
        f"  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;\n"
        f"  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"  server {{ listen {address[0]}:{address[1]}; location / {{ return 200 '{'x' * 66}'; }} }} }}\n"
    )
    with running(["nginx", "-c", str(folder / "nginx.conf")], LOAD_CORE, address):
        yield address


@contextlib.contextmanager
def haproxy_pair(folder: Path) -> Iterator[list[int]]:
    """Run two HAProxy processes, TLS 1.3 with client certificates between them; yield their pids."""
    write_certificates(folder)
    tls = f"crt {folder}/both.pem ca-file {folder}/ca.pem verify required"
    common = "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  http-reuse always\n"
    common += "  timeout connect 1s\n  timeout client 1h\n  timeout server 1h\n"
    (folder / "front.cfg").write_text(
        f"{common}listen front\n  bind {FRONT[0]}:{FRONT[1]}\n"
        f"  server peer {BACK[0]}:{BACK[1]} ssl {tls} verifyhost mesh.test sni str(mesh.test) "
        "ssl-min-ver TLSv1.3\n"
    )
    (folder / "back.cfg").write_text(
        f"{common}listen back\n  bind {BACK[0]}:{BACK[1]} ssl {tls} ssl-min-ver TLSv1.3\n"
        f"  server workload {BACKEND[0]}:{BACKEND[1]}\n"
    )
    back = ["haproxy", "-db", "-f", str(folder / "back.cfg")]
    front = ["haproxy", "-db", "-f", str(folder / "front.cfg")]
    with running(back, PROXY_CORE, BACK) as back_pid, running(front, PROXY_CORE, FRONT) as front_pid:
        yield [back_pid, front_pid]


@contextlib.contextmanager
def running(command: list[str], core: int, address: tuple[str, int]) -> Iterator[int]:
    """Start a process pinned to a core, wait until it listens, end it afterwards."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_listening(address, process)
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=10)
        if process.stderr is not None:
            process.stderr.close()


def wait_listening(address: tuple[str, int], process: subprocess.Popen[str], timeout_s: float = 10) -> None:
    """Return once something accepts on `address`."""
    deadline = time.perf_counter() + timeout_s
    while time.perf_counter() < deadline:
        try:
            socket.create_connection(address, timeout=1).close()
            return
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.02)
        if process.poll() is not None:
            detail = process.stderr.read() if process.stderr is not None else ""
            raise RuntimeError(
                f"a peer ended at once with code {process.returncode}: {detail.strip()[-400:]}"
            )
    raise RuntimeError(f"nothing listens on {address} after {timeout_s} s")


def wrk(url: str, seconds: int, connections: int, headers: tuple[str, ...] = ()) -> tuple[int, float, int]:
    """Load `url`; return (requests answered, p99 latency in ms, requests failed)."""
    options = [word for header in headers for word in ("-H", header)]
    command = [
        "taskset",
        "-c",
        str(LOAD_CORE),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
    ]
    result = subprocess.run([*command, *options, url], capture_output=True, text=True, check=True)
    text = result.stdout
    requests = re.search(r"(\d+) requests in", text)
    latency = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if requests is None or latency is None:
        raise RuntimeError(f"wrk printed something else: {text[:400]}")
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}[latency[2]]
    failed = sum(int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    failed += sum(
        int(count) for line in re.findall(r"Socket errors:.*", text) for count in re.findall(r"\d+", line)
    )
    return int(requests[1]), float(latency[1]) * scale, failed


def write_certificates(folder: Path) -> None:
    """Write a P-256 root and one leaf that serves as client and server."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench root")])
    leaf_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mesh.test")])

    def build(subject: x509.Name, key: ec.EllipticCurvePrivateKey, is_ca: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        names = x509.SubjectAlternativeName([x509.DNSName("mesh.test")])
        return builder.add_extension(names, critical=False).sign(ca_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    key_pem = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "ca.pem").write_bytes(build(ca_name, ca_key, True).public_bytes(pem))
    leaf = build(leaf_name, leaf_key, False).public_bytes(pem)
    both = folder / "both.pem"
    both.touch(mode=0o600)
    both.write_bytes(leaf + key_pem)
