"""The peers: Debian's Serf and PyPI's kinship, each with its LAN preset, encrypted, one process a node.

kinship is installed into an environment of its own under the user's cache, never into this project's.
"""

import base64
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import IO, Final

from bench.gossip.field import Field
from bench.gossip.group import Group
from bench.gossip.observe import Stamper, read_kinship_line, read_serf_line
from gossipmesh.net.entropy import random_bytes

SERF_PORT: Final = 7946
KINSHIP_PORT: Final = 7947
KINSHIP_VERSION: Final = "0.4.0"
INSTALL_TIMEOUT_S: Final = 120.0
NODE_SCRIPT: Final = Path(__file__).with_name("kinship_node.py")


class SerfGroup(Group):
    """N agents of `serf`, default LAN profile."""

    name = "serf"
    read_line = staticmethod(read_serf_line)

    def __init__(self, field: Field, directory: Path) -> None:
        super().__init__(field, directory)
        self._key = base64.b64encode(random_bytes(32)).decode()
        self._stamper = Stamper()
        self._agents: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def version(self) -> str:
        """Return what `serf version` and the package say."""
        return f"serf {debian_version('serf')} (Debian)"

    def launch(self, name: str) -> None:
        """Start one agent that tries its seed every second."""
        words = ["serf", "agent", f"-node={name}", f"-bind={self.field.host(name)}:{SERF_PORT}"]
        words += [f"-encrypt={self._key}", "-rpc-addr=127.0.0.1:7373"]
        if name != self.names[0]:
            words += [f"-retry-join={self.field.host(self.names[0])}:{SERF_PORT}", "-retry-interval=1s"]
        agent = self.keeper.start(name, [*self.field.prefix(name), *words], stdout_pipe=True)
        self._agents[name] = agent
        if agent.stdout is not None:
            pipe: IO[bytes] = agent.stdout
            self._stamper.add(pipe, self.log_path(name))

    def pids(self, name: str) -> list[int]:
        """Return the agent: `nsenter` becomes it."""
        return [self._agents[name].pid]

    def log_path(self, name: str) -> Path:
        """Return the stamped lines."""
        return self.directory / f"{name}.stamped"

    def close(self) -> None:
        """End the agents, then the thread that reads them."""
        self.keeper.close()
        self._stamper.close()


class KinshipGroup(Group):
    """N kinship nodes, LAN preset, caps on inbound streams raised."""

    name = "kinship"
    read_line = staticmethod(read_kinship_line)

    def __init__(self, field: Field, directory: Path) -> None:
        super().__init__(field, directory)
        self._key = base64.b64encode(random_bytes(32)).decode()
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def version(self) -> str:
        """Return the installed version."""
        return f"kinship {KINSHIP_VERSION} (PyPI)"

    def launch(self, name: str) -> None:
        """Start one node that tries its seed every second."""
        bind = f"{self.field.host(name)}:{KINSHIP_PORT}"
        seeds = [] if name == self.names[0] else [f"{self.field.host(self.names[0])}:{KINSHIP_PORT}"]
        words = [
            "env",
            f"KINSHIP_KEY={self._key}",
            str(kinship_python()),
            str(NODE_SCRIPT),
            name,
            bind,
            *seeds,
        ]
        self._nodes[name] = self.run(name, name, words)

    def pids(self, name: str) -> list[int]:
        """Return the node: `nsenter` and `env` become it."""
        return [self._nodes[name].pid]

    def log_path(self, name: str) -> Path:
        """Return what the node prints."""
        return self.keeper.log_path(name)


def cache_directory() -> Path:
    """Return where kinship's environment is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "gossipmesh-bench" / f"kinship-{KINSHIP_VERSION}"


def kinship_python() -> Path:
    """Return the Python that has kinship."""
    return cache_directory() / "bin" / "python"


def install_kinship() -> str | None:
    """Install kinship unless it is there; return why it cannot be used, or None."""
    if not _imports_kinship():
        try:
            venv.create(cache_directory(), with_pip=True, clear=True)
            words = [str(kinship_python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run(
                [*words, f"kinship=={KINSHIP_VERSION}"],
                check=True,
                timeout=INSTALL_TIMEOUT_S,
                stdout=sys.stderr,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"kinship {KINSHIP_VERSION} could not be installed: {error}"
    return None if _imports_kinship() else f"kinship {KINSHIP_VERSION} is installed and cannot be imported"


def _imports_kinship() -> bool:
    python = kinship_python()
    if not python.exists():
        return False
    found = subprocess.run([str(python), "-c", "import kinship"], capture_output=True, check=False)
    return found.returncode == 0


def serf_problem() -> str | None:
    """Return why Serf cannot be used, or None."""
    return None if shutil.which("serf") else "serf is not installed (apt-get install serf)"


def debian_version(package: str) -> str:
    """Return the version of an installed Debian package, or `unknown`."""
    words = ["dpkg-query", "-W", "-f=${Version}", package]
    try:
        found = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
