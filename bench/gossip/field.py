"""Where all three groups live, one after the other: a network namespace per node behind one router.

The same field for everybody: a host falls silent when the router drops its packets, and what a node
sends is what the router's end of its link received.
"""

import subprocess
from pathlib import Path
from typing import Final

from gossipmesh.testing.namespaces import NamespaceNetwork
from gossipmesh.testing.processes import ProcessKeeper

TABLE: Final = "gossipmesh_bench"
HEADER_BYTES: Final = 42  # Ethernet 14, IPv4 20, UDP 8: what a link carries beside a datagram's payload
TOOL_TIMEOUT_S: Final = 20.0


class Field:
    """N namespaces, named n1 to nN, and what the router does between them."""

    def __init__(self, keeper: ProcessKeeper, nodes_count: int) -> None:
        self.network = NamespaceNetwork()
        self.names = [f"n{number}" for number in range(1, nodes_count + 1)]
        for name in self.names:
            self.network.attach(self.number(name), keeper)

    @staticmethod
    def number(name: str) -> int:
        """Return the number of a node, the last byte of its address."""
        return int(name[1:])

    def host(self, name: str) -> str:
        """Return the address of a node."""
        return self.network.host(self.number(name))

    def prefix(self, name: str) -> list[str]:
        """Return what goes before a command line that runs on that node."""
        return self.network.prefix(self.number(name))

    def shut(self) -> None:
        """Refuse everything between nodes, so that all can start before any can join."""
        self._rules("meta l4proto tcp reject with tcp reset", "reject")

    def silence(self, name: str) -> None:
        """Drop, without a word, what this node sends and what is sent to it."""
        host = self.host(name)
        self._rules(f"ip saddr {host} counter drop", f"ip daddr {host} counter drop")

    def open(self) -> None:
        """Let everything pass."""
        nft(f"table inet {TABLE} {{\n}}\ndelete table inet {TABLE}\n")

    def _rules(self, *rules: str) -> None:
        self.open()
        lines = "\n".join(rules)
        nft(
            f"table inet {TABLE} {{\n chain forward {{\n"
            f"type filter hook forward priority 0; policy accept;\n{lines}\n}}\n}}\n"
        )

    def sent(self) -> dict[str, tuple[int, int]]:
        """Return bytes (Ethernet and up) and packets each node has sent since its link was made."""
        return read_links(Path("/proc/net/dev").read_text())


def read_links(text: str) -> dict[str, tuple[int, int]]:
    """Read /proc/net/dev: what the router received on each node's link, by node."""
    result = {}
    for line in text.splitlines():
        link, colon, rest = line.strip().partition(":")
        if colon and link.startswith("gm") and link[2:].isdigit():
            numbers = [int(word) for word in rest.split()]
            result[f"n{link[2:]}"] = (numbers[0], numbers[1])
    return result


def nft(rules: str) -> None:
    """Give nftables a list of rules, applied as one."""
    subprocess.run(
        ["nft", "-f", "-"], input=rules, text=True, check=True, timeout=TOOL_TIMEOUT_S, capture_output=True
    )
