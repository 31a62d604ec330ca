"""The programs that others wrote: nginx as backend, HAProxy as a pair, and who is missing.

Each is started from a folder of its own on loopback addresses of its own and ended by pid.
"""

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.mesh_pair.certificates import HOST_NAME, Authority, write_pem
from bench.mesh_pair.places import (
    BACKEND,
    CART,
    FAR_PORT,
    FAR_TCP_PORT,
    NEAR_HTTP_PORT,
    NEAR_TCP_PORT,
    WEB,
    Cores,
    Target,
    far,
    near,
)
from bench.processes import running

BIG_FILE_BYTES: Final = 67_108_864
_NUMBER: Final = 3
_PATH: Final = "/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_PROGRAMS: Final = ("haproxy", "nginx", "taskset", "wrk")


def missing_programs() -> list[str]:
    """Return the programs that are not installed, sorted."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    return missing if importlib.util.find_spec("envoy") is not None else sorted(["envoy", *missing])


def version_of(command: list[str]) -> str:
    """Return the version that a program's own words hold."""
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return version_in(told.stdout + told.stderr)


def version_in(text: str) -> str:
    """Return the first version number in `text`, `unknown` when there is none."""
    found = re.search(r"\b\d+\.\d+\.\d+[\w.~+-]*", text)
    return "unknown" if found is None else found[0]


@contextlib.contextmanager
def backend(folder: Path, cores: Cores) -> Iterator[None]:
    """Run nginx, one worker: 66 bytes at `/` without a disk, and a big file at `/big`."""
    with (folder / "big").open("wb") as file:
        file.truncate(BIG_FILE_BYTES)
    temporary = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"user {pwd.getpwuid(os.geteuid()).pw_name};\n"  # the worker reads our temporary folder
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 3600; sendfile on;\n"
        f"{temporary}"
        f"  server {{ listen {BACKEND} backlog=4096;\n"
        f"    location /big {{ root {folder}; }}\n"
        f"    location / {{ return 200 '{'x' * 66}'; }} }} }}\n"
    )
    with running(["nginx", "-c", str(folder / "nginx.conf")], cores.load, BACKEND):
        yield


@contextlib.contextmanager
def haproxy_pair(folder: Path, authority: Authority, cores: Cores) -> Iterator[Target]:
    """Run two HAProxy processes, TLS 1.3 with client certificates and without tickets between them."""
    web, cart = write_pem(folder, authority, "web", WEB), write_pem(folder, authority, "cart", CART)
    (folder / "near.cfg").write_text(_COMMON + _near_config(folder, web))
    (folder / "far.cfg").write_text(_COMMON + _far_config(folder, cart))
    far_words = ["haproxy", "-db", "-f", str(folder / "far.cfg")]
    near_words = ["haproxy", "-db", "-f", str(folder / "near.cfg")]
    http, tcp = near(_NUMBER, NEAR_HTTP_PORT), near(_NUMBER, NEAR_TCP_PORT)
    with (
        running(far_words, cores.proxies, far(_NUMBER, FAR_PORT)[0]) as far_pid,
        running(near_words, cores.proxies, http) as near_pid,
    ):
        yield Target("haproxy", version_of(["haproxy", "-v"]), http, tcp, (near_pid, far_pid))


_COMMON: Final = """global
  nbthread 1
  maxconn 4096
  tune.ssl.cachesize 0
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
  ssl-default-server-options ssl-min-ver TLSv1.3 no-tls-tickets
defaults
  timeout connect 1s
  timeout client 1h
  timeout server 1h
"""


def _near_config(folder: Path, pem: Path) -> str:
    tls = f"ssl crt {pem} ca-file {folder}/ca.pem verify required verifyhost {HOST_NAME} no-ssl-reuse"
    text = ""
    for mode, port, far_port in (("http", NEAR_HTTP_PORT, FAR_PORT), ("tcp", NEAR_TCP_PORT, FAR_TCP_PORT)):
        text += f"listen near_{mode}\n  mode {mode}\n  bind {near(_NUMBER, port)}\n  balance random(2)\n"
        text += "  http-reuse always\n" if mode == "http" else ""
        for number, address in enumerate(far(_NUMBER, far_port)):
            text += f"  server s{number} {address} {tls} sni str({HOST_NAME})\n"
    return text


def _far_config(folder: Path, pem: Path) -> str:
    text = ""
    for mode, port in (("http", FAR_PORT), ("tcp", FAR_TCP_PORT)):
        text += f"listen far_{mode}\n  mode {mode}\n"
        for address in far(_NUMBER, port):
            text += f"  bind {address} ssl crt {pem} ca-file {folder}/ca.pem verify required\n"
        text += "  http-reuse always\n" if mode == "http" else ""
        text += f"  server workload {BACKEND}\n"
    return text
