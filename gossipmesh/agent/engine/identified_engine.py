"""This node's engine under this node's identity: what it may serve, what it shows, and who answers as whom.

It ends at the parts it ties together: the engine's process is the supervisor's, the certificates are the
identity keeper's, what is trusted stands in Trust.
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, Protocol

from gossipmesh.agent.config import AgentConfig
from gossipmesh.agent.engine.engine_process import EngineDriver
from gossipmesh.agent.engine.engine_supervisor import EngineSettings, EngineSupervisor
from gossipmesh.agent.engine.pin_index import credential_entry, listed_pins
from gossipmesh.agent.engine.sockets import reachable
from gossipmesh.agent.gate import Gate
from gossipmesh.agent.identity.dropped import is_dropped
from gossipmesh.agent.identity.identity_keeper import IdentityKeeper
from gossipmesh.dataplane.protocol import EngineEvent, Identity
from gossipmesh.model.documents import revoked_serials
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import (
    SHORT_ID_BYTES,
    NodeId,
    node_id_of,
    node_name_of_spiffe_id,
    parse_spiffe_id,
    pattern_allows,
    service_spiffe_id,
    workloads_spiffe_id,
)
from gossipmesh.model.member import Address
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.net.engine_probe import EngineAnswer, Trusted, ask_engine
from gossipmesh.net.entropy import random_bytes
from gossipmesh.trust.carrier import carrier_root_pem
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.peer_identity import Dialled, PeerFacts
from gossipmesh.trust.peer_tables import CredentialTable
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted

log = logging.getLogger("gossipmesh.agent")

_PROBE_TIMEOUT_S: Final = 1.0


class KnownKeys(Protocol):
    """What this reads of the gossip core."""

    @property
    def own_node_id(self) -> NodeId:
        """Return our id."""

    def keys_of(self, node_id: bytes) -> MemberKeys | None:
        """Return what a member's TLS keys are judged by; None when it is none."""


class IdentifiedEngine:
    """The engine's supervisor, and what the identity says to it and of it (services.Conditions)."""

    def __init__(
        self,
        config: AgentConfig,
        documents: TrustedDocuments,
        keeper: IdentityKeeper,
        keys: KnownKeys,
        gate: Gate,
        *,
        on_event: Callable[[EngineEvent], None],
        on_change: Callable[[], None],
        on_shown: Callable[[], None],
    ) -> None:
        """Make the supervisor; it runs nothing before it is told to.

        `on_change`: it serves, or no more. `on_shown`: it has confirmed other identities, or keys.
        """
        self._keeper = keeper
        self._gate = gate
        self._documents = documents
        self._keys = keys
        self._own_port = reachable(config.mesh_bind)
        folder = config.state_dir
        settings = EngineSettings(
            node_id=keys.own_node_id,
            boot_id=random_bytes(8).hex(),
            drain_timeout_s=config.engine.drain_timeout_s,
        )
        driver = EngineDriver(config.engine, folder, config.access_log, folder / "engine.log")
        self.supervisor = EngineSupervisor(
            settings, driver, on_event=on_event, on_change=on_change, on_shown=on_shown, probe=self._probe_own
        )

    def engine_serves(self) -> bool:
        """Tell whether the engine has acked a snapshot and answers, and this node may be called."""
        return self.supervisor.serving and not self._gate.withholds

    def service_allowed(self, service: str) -> bool:
        """Tell whether this node's credential covers `service`."""
        patterns = self._keeper.identity.credential_body.service_patterns
        return any(pattern_allows(pattern, service) for pattern in patterns)

    def service_has_identity(self, service: str) -> bool:
        """Tell whether the engine shows a key of `service`."""
        wanted = service_spiffe_id(self._keeper.identity.trust_domain, service)
        return any(one.spiffe_id == wanted for one in self.supervisor.shown)

    def service_identity_is_due(self, service: str) -> bool:
        """Tell whether a key of `service` is in use that the engine has not confirmed yet."""
        wanted = service_spiffe_id(self._keeper.identity.trust_domain, service)
        return wanted in self._keeper.keys.usable() and not self.service_has_identity(service)

    def workloads_identity(self) -> str | None:
        """Return the identity of processes of no service; None while the engine shows no key of it.

        After a start of the agent nothing is confirmed for a moment, and an engine goes on as it was.
        """
        identity, shown = self._keeper.identity, self.supervisor.shown
        wanted = workloads_spiffe_id(identity.trust_domain, identity.name)
        names = [one.spiffe_id for one in shown] if shown else list(self._keeper.keys.usable())
        return wanted if wanted in names else None

    def show_keys(self) -> None:
        """Have the engine show the keys in use, and trust the roots of Trust.

        A certificate by whom Trust names no more proves nothing: its key is shown by the carrier.
        """
        identity, usable, trust = self._keeper.identity, self._keeper.keys.usable(), self._documents.trust
        if identity.spiffe_id not in usable:
            return  # an engine without its node's own name is none
        identities = [
            Identity(
                name,
                b"" if is_dropped(key, trust) else key.chain_pem,
                key.key_pem,
                identity.carrier_pem(name, key),
            )
            for name, key in usable.items()
        ]
        root_pem = carrier_root_pem(identity.trust_domain)
        self.supervisor.want_identities(identities, self._bundle_pem(), root_pem)

    def shown_pins(self) -> dict[str, bytes]:
        """Return what the engine has confirmed, the pin by SPIFFE ID."""
        held = self._keeper.keys.turning.holding.keys
        pins = {key.key_pem: key.pin for keys in held.values() for key in keys.all}
        shown = self.supervisor.shown
        return {one.spiffe_id: pins[one.key_pem] for one in shown if one.key_pem in pins}

    async def probe(self, addresses: Sequence[Address], spiffe_id: str) -> EngineAnswer:
        """Shake hands with a node's engine as a peer would, within a second."""
        identity = self._keeper.identity
        server_name = f"{node_name_of_spiffe_id(spiffe_id)}.node.{identity.trust_domain}"
        try:
            dialled, trusted = self._known_of(spiffe_id)
            return await ask_engine(
                *(addresses, server_name, dialled),
                *(identity.node_svid_under(self._documents.trust), trusted, _PROBE_TIMEOUT_S),
            )
        except (OSError, ValueError, MalformedInput) as error:
            log.error("an engine could not be probed for want of a usable certificate: %s", error)
            return EngineAnswer.SILENT

    def _known_of(self, spiffe_id: str) -> tuple[Dialled, Trusted]:
        """Return what is known of a node that is asked, and of who may vouch for it."""
        identity, trust = self._keeper.identity, self._documents.trust
        node_id = node_id_of(spiffe_id)
        keys = self._keys.keys_of(node_id)
        path = parse_spiffe_id(spiffe_id)[1]
        entry = {} if keys is None else {node_id[0]: credential_entry(keys)}
        facts = PeerFacts(
            identity.trust_domain,
            _certificates(self._bundle_pem()),
            None if trust is None else _certificates("".join(trust.intermediates).encode()),
            credentials=CredentialTable(entry),
            revoked_leaves=frozenset() if trust is None else revoked_serials(trust),
        )
        dialled = Dialled(spiffe_id, node_id[:SHORT_ID_BYTES], listed_pins(keys, path))
        return dialled, Trusted(facts, self._bundle_pem(), carrier_root_pem(identity.trust_domain))

    async def _probe_own(self) -> bool:
        answer = await self.probe([self._own_port], self._keeper.identity.spiffe_id)
        return answer is EngineAnswer.ANSWERED

    def _bundle_pem(self) -> bytes:
        trust = self._documents.trust
        return b"" if trust is None else "".join(trust.root_certificates).encode()


@lru_cache(maxsize=8)  # roots and intermediates, before and after a change of Trust
def _certificates(pem: bytes) -> frozenset[bytes]:
    return frozenset(certificates_in_pem_untrusted(pem))
