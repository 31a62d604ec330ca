"""Waiting for the machine's addresses: at boot an agent may start before the network.

An address that is configured and not there, or no route to find this node's own by, is told once and waited
for: a unit that ends instead is started again until its supervisor gives up. Nothing is bound, enrolled or
started before. Signals end the wait as they end any process.
"""

import logging
from collections.abc import Sequence
from typing import Final

import trio

from gossipmesh.agent.config import AgentConfig
from gossipmesh.agent.logs import fields
from gossipmesh.agent.seeds import Seeds
from gossipmesh.agent.state.restore import own_address
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.member import Address
from gossipmesh.net.address_news import has_address

log = logging.getLogger("gossipmesh.agent.addresses")

_LOOK_S: Final = 1.0


async def wait_for_addresses(config: AgentConfig, seeds: Seeds) -> None:
    """Return once every address in `config` is this machine's and this node's own can be told.

    Seeds by name are resolved first where this node's own address is the one used towards them.
    """
    told: set[str] = set()
    needs_route = config.gossip_advertise is None or config.mesh_advertise is None
    if needs_route:
        await seeds.look()
    while missing := missing_addresses(config, seeds.addresses):
        for key in [key for key in missing if key not in told]:
            told.add(key)
            log.warning("not ready, waiting for the network: %s", missing[key], extra=fields(key=key))
        await trio.sleep(_LOOK_S)
        if needs_route:
            await seeds.look()
    if told:
        log.info("the addresses waited for are there", extra=fields(keys=sorted(told)))


def missing_addresses(config: AgentConfig, towards: Sequence[Address]) -> dict[str, str]:
    """Return why each key's address cannot be used yet, by key; `towards` are the seeds."""
    missing = {
        f"spec.{section}.bind": f"this machine has no address {bind.host} (spec.{section}.bind) yet"
        for section, bind in config.binds().items()
        if not has_address(bind.host)
    }
    for section, bind, advertise in (
        ("gossip", config.gossip_bind, config.gossip_advertise),
        ("mesh", config.mesh_bind, config.mesh_advertise),
    ):
        try:
            own_address(bind, advertise, towards, section)
        except OperatorError as error:
            missing[f"spec.{section}.advertise"] = str(error)
    return missing


def configured_losses(config: AgentConfig, once_here: set[str]) -> dict[str, str]:
    """Return the hosts this machine has lost, by the key that names each; `once_here` grows by those it has.

    What `advertise` names may be another machine's, which translates addresses: it is lost if it was here.
    """
    named = {f"spec.{section}.bind": bind for section, bind in config.binds().items()}
    for section, bind, advertise in (
        ("gossip", config.gossip_bind, config.gossip_advertise),
        ("mesh", config.mesh_bind, config.mesh_advertise),
    ):
        if advertise is not None and advertise.host != bind.host:
            named[f"spec.{section}.advertise"] = advertise
    hosts = {key: address.host for key, address in named.items()}
    here = {host for host in hosts.values() if has_address(host)}
    once_here |= here
    return {
        key: host
        for key, host in hosts.items()
        if host not in here and (key.endswith(".bind") or host in once_here)
    }
