"""Two nodes for programs we did not write: `node1` calls, `node2` serves HTTP, TLS and databases."""

import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

from gossipmesh.testing import layout
from gossipmesh.testing.layout import MeshLayout, NodeLayout
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.processes import CommandResult
from gossipmesh.testing.waiting import wait_until

CALLER, SERVER = "node1", "node2"
PORTS = {"front": 8079, "web": 8080, "chat": 8081, "tls": 4433, "db": 5432, "cache": 6379}
HTTP_SERVICES = ("front", "web", "chat")
UPSTREAM_PORTS = {"db": 15432, "cache": 16379, "web": 18080}
PROGRAMS = ("curl", "socat", "psql", "pg_ctlcluster", "redis-cli", "redis-server", "wrk", "openssl")


class ProgramMesh(Mesh):
    """A mesh whose workloads are programs of others."""

    def __init__(self) -> None:
        super().__init__(MeshLayout((NodeLayout(CALLER, 1, ()), NodeLayout(SERVER, 2, ()))))

    async def create_token(self, name: str, path: Path, *words: str) -> None:
        """Allow the node every service of `PORTS`."""
        patterns = [word for service in PORTS for word in ("--service", f"{layout.NAMESPACE}/{service}")]
        await super().create_token(name, path, *patterns, *words)

    @property
    def proxy(self) -> str:
        """Return where the caller's node takes requests for any service."""
        return f"{self.nodes[CALLER].host}:{layout.PROXY_PORT}"

    def upstream(self, service: str) -> tuple[str, int]:
        """Return the caller's explicit port of a service."""
        return self.nodes[CALLER].host, UPSTREAM_PORTS[service]

    async def start(self) -> None:
        """Start the nodes, the programs behind them, and wait until every endpoint passes."""
        await super().start()
        here = Path(__file__).parent
        python = sys.executable
        self._serve(CALLER, "front", [python, str(here / "plain_server.py"), "{}"])
        self._serve(SERVER, "web", [python, str(here / "plain_server.py"), "{}"])
        self._serve(SERVER, "chat", [python, str(here / "chat_server.py"), "{}"])
        host = self.nodes[SERVER].host
        self._serve(
            SERVER, "tls", ["openssl", "s_server", "-accept", "{}", "-www", "-quiet", *self._certificate()]
        )
        self._serve(SERVER, "db", self._postgres(host))
        redis = [
            "redis-server",
            "--bind",
            host,
            "--port",
            str(PORTS["cache"]),
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self._serve(SERVER, "cache", [*redis, "--dir", str(self.directory)])
        await self.wait_passing(len(PORTS))

    def _serve(self, node: str, service: str, command: list[str]) -> None:
        host = self.nodes[node].host
        address = f"{host}:{PORTS[service]}"
        self.keeper.start(f"{node}-{service}", [word.replace("{}", address) for word in command])
        bind = [{"service": name, "bind": f"{host}:{port}"} for name, port in UPSTREAM_PORTS.items()]
        spec: dict[str, Any] = {
            "address": address,
            "protocol": "http" if service in HTTP_SERVICES else "tcp",
            "checks": [{"tcp": address, "interval": layout.CHECK_INTERVAL, "timeout": "1s"}],
            "upstreams": bind if service == "front" else [],
        }
        document = {
            "apiVersion": "gossipmesh.dev/v1",
            "kind": "Service",
            "metadata": {"name": service, "namespace": layout.NAMESPACE},
            "spec": spec,
        }
        layout.write_document(self.nodes[node].services_directory / f"{service}.yaml", document)

    def _certificate(self) -> list[str]:
        key, certificate = self.directory / "tls.key", self.directory / "tls.pem"
        words = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=tls.shop",
        ]
        subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        return ["-key", str(key), "-cert", str(certificate)]

    def _postgres(self, host: str) -> list[str]:
        """Make a database and return how to serve it; PostgreSQL refuses to run as root."""
        bindir = max(Path("/usr/lib/postgresql").glob("*/bin"))  # where Debian puts each version
        data = self.directory / "postgres"
        data.mkdir()
        as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(data, user.pw_uid, user.pw_gid)
            self.directory.chmod(0o755)
            as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        make = [*as_user, f"{bindir}/initdb", "-D", str(data), "-U", "shop", "-A", "trust", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd="/")
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all all all trust\n")
        settings = [f"-c{name}={value}" for name, value in {
            "listen_addresses": host, "port": PORTS["db"], "unix_socket_directories": data, "fsync": "off",
        }.items()]  # fmt: skip
        return [*as_user, f"{bindir}/postgres", "-D", str(data), *settings]

    async def run(self, *words: str, stdin: bytes = b"", timeout_s: float = 60.0) -> CommandResult:
        """Run a program to its end."""
        return await self.keeper.command(list(words), stdin=stdin, timeout_s=timeout_s)

    async def wait_served(self) -> None:
        """Wait until the caller's engine has the routes of every service."""
        for service in HTTP_SERVICES:

            async def answered(name: str = service) -> str | None:
                words = ("-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", f"http://{self.proxy}")
                result = await self.run("curl", *words, f"http://{name}.{layout.NAMESPACE}/")
                return None if result.stdout in ("200", "426") else result.stdout + result.stderr

            await wait_until(f"{service} answers", answered, 20.0)
