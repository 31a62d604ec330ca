"""Where a mesh under test lives: on loopback addresses, or each node in a network namespace of its own.

Loopback needs no rights. Partitions do: the runner starts itself again inside a private network
namespace, gives each node a namespace behind a routed virtual link, and lets nftables drop what passes
between two sides. All of it vanishes with the last process inside; the machine's own network is never
touched.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.layout import AUTHORITY_NODE
from gossipmesh.testing.processes import ProcessKeeper

INSIDE_VARIABLE: Final = "GOSSIPMESH_PRIVATE_NETWORK"
MOUNTS_VARIABLE: Final = "GOSSIPMESH_PRIVATE_MOUNTS"
TABLE: Final = "gossipmesh_chaos"
PREFIX: Final = "10.71.0"
GATEWAY_NUMBER: Final = 254
TOOLS: Final = ("unshare", "nsenter", "ip", "nft")
TOOL_TIMEOUT_S: Final = 20.0
SUBNETS_MAX: Final = 64


class Network(Protocol):
    """How nodes are addressed, and how a command is started on one of them."""

    def host(self, number: int) -> str:
        """Return the address of node `number`."""
        ...

    def local(self, number: int) -> str:
        """Return where node `number`'s own ports and workloads listen."""
        ...

    def attach(self, number: int, keeper: ProcessKeeper) -> None:
        """Make node `number`'s address usable."""
        ...

    def prefix(self, number: int) -> list[str]:
        """Return what goes before a command line so that it runs on node `number`."""
        ...

    def close(self) -> None:
        """Give back what was claimed."""
        ...


class LoopbackNetwork:
    """Every node on an address of its own in 127.71.`subnet`.0/24; needs no rights.

    The first subnet no other mesh under test holds; held, by a name in the kernel that goes with this
    process, until `close`.
    """

    def __init__(self) -> None:
        self._claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for self._subnet in range(SUBNETS_MAX):
            try:
                self._claim.bind(f"\0gossipmesh-test-127.71.{self._subnet}")
            except OSError:
                continue
            return
        self._claim.close()
        raise OperatorError(f"{SUBNETS_MAX} meshes under test run on this machine; end one of them first")

    def close(self) -> None:
        """Let another mesh have the subnet."""
        self._claim.close()

    def host(self, number: int) -> str:
        """Return 127.71.SUBNET.NUMBER."""
        return f"127.71.{self._subnet}.{number}"

    def local(self, number: int) -> str:
        """Return its address: there is no loopback of its own."""
        return self.host(number)

    def attach(self, number: int, keeper: ProcessKeeper) -> None:
        """Do nothing: all of 127.0.0.0/8 is there already."""

    def prefix(self, number: int) -> list[str]:
        """Return nothing: the node's processes share the machine's network."""
        return []


class NamespaceNetwork:
    """Every node in a network namespace of its own, routed through this process's private one."""

    def __init__(self) -> None:
        if not is_inside():
            raise OperatorError("namespaces are made inside a private network only: enter it first")
        self._holders: dict[int, int] = {}
        run_tool("sysctl", "-qw", "net.ipv4.ip_forward=1")
        run_tool("ip", "address", "replace", f"{self.host(AUTHORITY_NODE)}/32", "dev", "lo")

    def host(self, number: int) -> str:
        """Return 10.71.0.NUMBER."""
        return f"{PREFIX}.{number}"

    def local(self, number: int) -> str:
        """Return its address, which the load's drivers reach from outside as well."""
        return self.host(number)

    def attach(self, number: int, keeper: ProcessKeeper) -> None:
        """Create the node's namespace, held open by a sleeping process, and link it to ours."""
        # `cat` on a pipe that stays open holds the namespace and ends with this process.
        arguments = ["unshare", "--net", "sh", "-c", "echo ready; exec cat"]
        holder = keeper.start(f"namespace{number}", arguments, stdin_pipe=True, stdout_pipe=True)
        if holder.stdout is None or holder.stdout.readline() != b"ready\n":
            raise OperatorError(f"could not create the network namespace of node {number}; run as root")
        link, host, gateway = f"gm{number}", self.host(number), self.host(GATEWAY_NUMBER)
        _drop_link(link)
        run_tool("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        run_tool("ip", "address", "add", f"{gateway}/32", "dev", link)
        run_tool("ip", "link", "set", link, "up")
        run_tool("ip", "route", "add", f"{host}/32", "dev", link)
        self._holders[number] = holder.pid
        for words in (
            "link set lo up",
            "link set eth0 up",
            f"address add {host}/32 dev eth0",
            f"route add {gateway}/32 dev eth0",
            f"route add default via {gateway} src {host}",
        ):
            run_tool(*self.prefix(number), "ip", *words.split())

    def prefix(self, number: int) -> list[str]:
        """Return the words that start a command inside the node's namespace."""
        if number not in self._holders:
            return []  # the authority and the load driver live in ours, the router's
        return ["nsenter", f"--net=/proc/{self._holders[number]}/ns/net", "--"]

    def close(self) -> None:
        """Do nothing: the namespaces go with their last processes."""

    def partition(self, one: Iterable[int], other: Iterable[int]) -> None:
        """Drop, without a word, whatever passes between the two sides from now on."""
        left = ", ".join(self.host(number) for number in one)
        right = ", ".join(self.host(number) for number in other)
        ways = (left, right), (right, left)
        self.drop(TABLE, [f"ip saddr {{ {a} }} ip daddr {{ {b} }}" for a, b in ways])

    def drop(self, table: str, matches: Iterable[str]) -> None:
        """Drop what any of nftables' expressions matches, until `let_pass` of that table."""
        rules = "".join(f"    {match} counter drop\n" for match in matches)
        run_tool(
            "nft",
            "-f",
            "-",
            stdin=(
                f"table inet {table} {{\n  chain forward {{\n"
                f"    type filter hook forward priority 0; policy accept;\n{rules}  }}\n}}\n"
            ),
        )

    def heal(self) -> int:
        """Let everything pass again; returns how many packets the partition dropped."""
        return self.let_pass(TABLE)

    def let_pass(self, table: str) -> int:
        """Drop no more what a table matched; returns how many packets it dropped."""
        listing = json.loads(run_tool("nft", "-j", "list", "table", "inet", table))
        dropped = sum(
            expression["counter"]["packets"]
            for item in listing["nftables"]
            for expression in item.get("rule", {}).get("expr", [])
            if "counter" in expression
        )
        run_tool("nft", "delete", "table", "inet", table)
        return int(dropped)


def is_inside() -> bool:
    """Tell whether this process runs in a private network made by `enter_private_network`."""
    return os.environ.get(INSIDE_VARIABLE) == "1"


def enter_private_network(arguments: Sequence[str]) -> None:
    """Start `python ARGUMENTS` again inside a private network namespace; return when already inside.

    Raises:
        OperatorError: not root, or a tool is missing.
    """
    if is_inside():
        run_tool("ip", "link", "set", "lo", "up")
        return
    if os.geteuid() != 0:
        raise OperatorError("partitions need a private network namespace, which needs root: run as root")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise OperatorError(
            f"partitions need {', '.join(missing)}: install util-linux, iproute2 and nftables"
        )
    sys.stdout.flush()
    words = ["unshare", "--net", "--", sys.executable, *arguments]
    os.execvpe(words[0], words, {**os.environ, INSIDE_VARIABLE: "1"})  # noqa: S606


def enter_private_mounts(arguments: Sequence[str]) -> None:
    """Start `python ARGUMENTS` again with mounts of its own, which go with it; return when it has them.

    Raises:
        OperatorError: not root, or a tool is missing.
    """
    if os.environ.get(MOUNTS_VARIABLE) == "1":
        return
    if os.geteuid() != 0:
        raise OperatorError("a disk of its own needs a private mount namespace and root: run as root")
    if shutil.which("unshare") is None:
        raise OperatorError("a private mount namespace needs unshare: install util-linux")
    sys.stdout.flush()
    words = ["unshare", "--mount", "--", sys.executable, *arguments]
    os.execvpe(words[0], words, {**os.environ, MOUNTS_VARIABLE: "1"})  # noqa: S606


def _drop_link(link: str) -> None:
    """Remove what a mesh before this one left: a namespace that has ended is cleared away a moment later."""
    subprocess.run(["ip", "link", "del", link], capture_output=True, timeout=TOOL_TIMEOUT_S, check=False)


def run_tool(*words: str, stdin: str = "") -> str:
    """Run a network tool; OperatorError with its own words when it fails."""
    result = subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False
    )
    if result.returncode != 0:
        raise OperatorError(f"`{' '.join(words)}` failed: {result.stderr.strip() or result.returncode}")
    return result.stdout
