"""Boot before the network: the agent waits for its addresses, says so once, and goes on."""

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio

from gossipmesh.agent import addresses
from gossipmesh.agent.addresses import configured_losses, missing_addresses, wait_for_addresses
from gossipmesh.agent.config import AgentConfig, parse_config_untrusted
from gossipmesh.agent.seeds import SeedName, Seeds
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address

ABSENT = "192.0.2.77"  # RFC 5737: no machine has it
TEXT = """
apiVersion: gossipmesh.dev/v1
kind: AgentConfig
spec:
  gossip: {bind: "127.0.0.1:7948"}
  mesh: {bind: "127.0.0.1:15008"}
"""


def config(**changed: Address | None) -> AgentConfig:
    return msgspec.structs.replace(parse_config_untrusted(TEXT, Path("agent.yaml")), **changed)


def seeds(*given: SeedName, **found: str) -> Seeds:
    """Return seeds by name; `found` says where each is."""

    async def lookup(host: str, port: int, *_: object) -> list[Address]:
        if host not in found:
            raise OSError(0, "no such name")
        return [Address(found[host], port)]

    return Seeds(given, Address("0.0.0.0", 7948), rng=random.Random(1), lookup=lookup)


def test_what_is_here_is_not_missing() -> None:
    assert missing_addresses(config(), ()) == {}


@pytest.mark.parametrize("section", ["gossip", "mesh", "proxy", "api", "metrics", "readiness"])
@pytest.mark.parametrize("host", [ABSENT, "2001:db8::77"])
def test_each_listener_is_waited_for(section: str, host: str) -> None:
    missing = missing_addresses(config(**{f"{section}_bind": Address(host, 9)}), ())
    assert missing == {
        f"spec.{section}.bind": f"this machine has no address {host} (spec.{section}.bind) yet"
    }


def test_a_port_in_use_is_not_waited_for() -> None:
    """It is told at once by whoever binds it: somebody else has to be stopped."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert missing_addresses(config(proxy_bind=Address("127.0.0.1", taken.getsockname()[1])), ()) == {}


@pytest.mark.parametrize("section", ["gossip", "mesh"])
def test_without_a_route_its_own_address_is_waited_for(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_route(*_: object) -> Address:
        raise OperatorError(f"no route; set spec.{section}.advertise")

    monkeypatch.setattr(addresses, "own_address", lambda *words: no_route() if words[3] == section else None)
    assert list(missing_addresses(config(), ())) == [f"spec.{section}.advertise"]


async def test_each_is_told_once_and_the_wait_ends_when_all_are_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    looks = [{"a": "no a", "b": "no b"}] * 3 + [{"b": "no b", "c": "no c"}] * 3_600 + [{}]
    monkeypatch.setattr(addresses, "missing_addresses", lambda *_: looks.pop(0))
    caplog.set_level("INFO", "gossipmesh")
    monkeypatch.setattr(addresses.log.parent, "propagate", True)
    started = trio.current_time()
    await wait_for_addresses(config(), seeds())
    assert trio.current_time() - started == pytest.approx(3_603)
    assert [record.getMessage() for record in caplog.records] == [
        "not ready, waiting for the network: no a",
        "not ready, waiting for the network: no b",
        "not ready, waiting for the network: no c",
        "the addresses waited for are there",
    ]


async def test_its_own_address_is_the_one_used_towards_a_seed_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no route leads anywhere else, say, the one to the seed does."""
    towards: list[tuple[Address, ...]] = []

    def missing(_: AgentConfig, known: tuple[Address, ...]) -> dict[str, str]:
        towards.append(known)
        return {}

    monkeypatch.setattr(addresses, "missing_addresses", missing)
    named = seeds(SeedName("seed", 7948), seed="10.0.0.1")
    await wait_for_addresses(config(), named)
    await wait_for_addresses(config(mesh_advertise=None), named)
    assert towards == [(), (Address("10.0.0.1", 7948),)], "who knows its address waits for no resolver"


async def test_it_costs_no_line_when_nothing_is_missing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses.log.parent, "propagate", True)
    await wait_for_addresses(config(), seeds())
    assert caplog.records == []


INSIDE = """
import json, subprocess, sys
# Before any interface is up the kernel binds whatever it is asked to.
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
child = subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE, text=True)
lines = []
for line in child.stderr:
    lines.append(line)
    if "waiting for the network" in line and len(lines) == 1:
        subprocess.run(["ip", "address", "add", "10.99.0.7/32", "dev", "lo"], check=True)
print(json.dumps([child.wait(), lines]))
"""


@pytest.mark.namespace
def test_a_real_agent_starts_before_the_network_and_goes_on_with_it(tmp_path: Path) -> None:
    """In a namespace of its own, where nothing has the address until it is added."""
    spec: dict[str, object] = {"stateDir": "state"}
    for number, name in enumerate(("gossip", "mesh", "proxy", "api", "metrics", "readiness"), 17_000):
        spec[name] = {"bind": f"10.99.0.7:{number}"}
    path = tmp_path / "agent.yaml"
    path.write_text(json.dumps({"apiVersion": "gossipmesh.dev/v1", "kind": "AgentConfig", "spec": spec}))
    words = [sys.executable, "-P", "-m", "gossipmesh.agent", str(path)]
    result = subprocess.run(
        ["unshare", "--net", "--", sys.executable, "-c", INSIDE, *words],
        capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C"}, check=True,
    )  # fmt: skip
    code, lines = json.loads(result.stdout)
    assert "waiting for the network: this machine has no address 10.99.0.7" in lines[0]
    assert "the addresses waited for are there" in lines[-2]
    # It has bound what it needs and asks for what it lacks: a token.
    assert "token" in lines[-1]
    assert code == 1


def test_an_address_that_went_is_lost_by_the_key_that_names_it() -> None:
    assert configured_losses(config(), set()) == {}
    gone = config(mesh_bind=Address(ABSENT, 15008), api_bind=Address(ABSENT, 15000))
    assert configured_losses(gone, set()) == {"spec.mesh.bind": ABSENT, "spec.api.bind": ABSENT}
    wildcard = config(gossip_bind=Address("0.0.0.0", 7948), gossip_advertise=None)
    assert configured_losses(wildcard, set()) == {}, "what was found is no key's"


def test_what_is_advertised_may_be_another_machines_unless_this_one_had_it() -> None:
    behind = config(gossip_bind=Address("0.0.0.0", 7948), gossip_advertise=Address(ABSENT, 7948))
    once_here: set[str] = set()
    assert configured_losses(behind, once_here) == {}
    assert ABSENT not in once_here
    assert configured_losses(behind, {ABSENT}) == {"spec.gossip.advertise": ABSENT}
