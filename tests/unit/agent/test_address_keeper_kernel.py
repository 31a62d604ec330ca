"""The same with a real kernel: which address is taken in its place is the kernel's routes' to say."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

INSIDE = """
import json, subprocess, sys, trio, trio.testing
from pathlib import Path
from gossipmesh.agent.address_keeper import AddressKeeper
from gossipmesh.agent.config import parse_config_untrusted
from gossipmesh.gossip.base.settings import NodeAddresses
from gossipmesh.model.identity import NodeId
from gossipmesh.model.member import Address
from gossipmesh.model.records import NodeState

story = json.loads(sys.argv[1])
told = NodeAddresses(*((Address(story["at"], port),) for port in (7948, 15008)))
wildcard = "[::]" if ":" in story["at"] else "0.0.0.0"
text = "apiVersion: gossipmesh.dev/v1\\nkind: AgentConfig\\nspec:\\n"
for section, port in (("gossip", 7948), ("mesh", 15008)):
    text += f'  {section}: {{bind: "{wildcard}:{port}"}}\\n'
config = parse_config_untrusted(text, Path("agent.yaml"))

def ip(words):
    subprocess.run(["ip", *words.split()], check=True)

def publish(found):
    global told
    told = found

async def main():
    ip("link set lo up")
    for words in story["before"]:
        ip(words)
    keeper = AddressKeeper(
        config,
        state=lambda: NodeState(NodeId(bytes(16)), 1, 1, 1, "n", told.gossip, told.mesh, 0, "", 1, 1, ()),
        towards=lambda: [Address(story["peer"], 7948)],
        publish=publish,
    )
    seen = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await trio.testing.wait_all_tasks_blocked()
        for words, expected in story["then"]:
            ip(words)
            with trio.move_on_after(8):
                while [told.gossip[0].host, bool(keeper.lost)] != expected:
                    await trio.sleep(0.02)
            keeper.look()  # at once, whatever the kernel has told: it stays so
            seen.append([told.gossip[0].host, bool(keeper.lost)])
        nursery.cancel_scope.cancel()
    print(json.dumps({"seen": seen, "published": keeper.published_count}))

trio.run(main)
"""
ETH0 = ["link add eth0 type veth peer name far0", "link set eth0 up", "link set far0 up"]
ETH1 = ["link add eth1 type veth peer name far1", "link set eth1 up", "link set far1 up"]
HERE, LOST = False, True
STORIES: dict[str, dict[str, Any]] = {
    "another address of the same network": {
        "at": "10.9.0.5",
        "peer": "10.9.0.1",
        "before": [*ETH0, "address add 10.9.0.5/24 dev eth0"],
        "then": [
            ("address del 10.9.0.5/24 dev eth0", ["10.9.0.5", LOST]),
            ("address add 10.9.0.9/24 dev eth0", ["10.9.0.9", HERE]),
        ],
        "published": 1,
    },
    "two addresses, of which each goes in turn": {
        "at": "10.9.0.5",
        "peer": "10.9.0.1",
        "before": [*ETH0, "address add 10.9.0.5/24 dev eth0", "address add 10.9.0.9/32 dev eth0"],
        "then": [
            ("address del 10.9.0.9/32 dev eth0", ["10.9.0.5", HERE]),
            ("address add 10.9.0.9/25 dev eth0", ["10.9.0.5", HERE]),
            ("address del 10.9.0.5/24 dev eth0", ["10.9.0.9", HERE]),
        ],
        "published": 1,
    },
    "an address of another interface, and one of a bridge that leads nowhere": {
        "at": "10.9.0.5",
        "peer": "10.8.0.1",
        "before": [
            *ETH0,
            *ETH1,
            "link add docker0 type veth peer name far2",
            "link set docker0 up",
            "link set far2 up",
            "address add 172.17.0.1/16 dev docker0",
            "address add 10.9.0.5/24 dev eth0",
            "route add 10.8.0.0/16 via 10.9.0.1",
        ],
        "then": [
            ("address del 10.9.0.5/24 dev eth0", ["10.9.0.5", LOST]),
            ("address add 169.254.7.7/16 dev eth1", ["10.9.0.5", LOST]),
            ("route add default dev eth1", ["10.9.0.5", LOST]),
            ("address del 169.254.7.7/16 dev eth1", ["10.9.0.5", LOST]),
            ("address add 10.8.0.7/24 dev eth1", ["10.8.0.7", HERE]),
        ],
        "published": 1,
    },
    "IPv6, after it was found to be nobody else's": {
        "at": "fd09::5",
        "peer": "fd09::1",
        "before": [*ETH0, "-6 address add fd09::5/64 dev eth0 nodad"],
        "then": [
            ("-6 address del fd09::5/64 dev eth0", ["fd09::5", LOST]),
            ("-6 address add fd09::9/64 dev eth0", ["fd09::9", HERE]),
        ],
        "published": 1,
    },
}


@pytest.mark.namespace
@pytest.mark.parametrize("name", STORIES)
def test_the_address_that_leads_to_others_is_taken(name: str) -> None:
    story = STORIES[name]
    words = ["unshare", "--net", "--", sys.executable, "-c", INSIDE, json.dumps(story)]
    result = subprocess.run(
        words, capture_output=True, text=True, timeout=90, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    assert result.returncode == 0, result.stderr[-2_000:]
    seen = json.loads(result.stdout)
    assert seen == {"seen": [expected for _, expected in story["then"]], "published": story["published"]}
