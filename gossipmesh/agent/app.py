"""The agent: its parts, how they are tied together, and what runs. Read this first.

`run_agent` takes the folder and the ports, gets the node's identity, makes the parts and starts one
nursery: gossip (shell), engine (supervisor), snapshots (feed), services (files and checks), identity
(renewal), and the servers people ask. Parts know nothing of each other: what one has to tell another
goes through the small methods of `Agent`.

Whatever ends the agent in error leaves the engine serving, and so does a planned restart, which the
others are told of first; only leaving the mesh ends both, and that another machine is this node.
"""

import logging
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Final

import trio

from gossipmesh import __version__
from gossipmesh.agent.address_keeper import AddressKeeper
from gossipmesh.agent.addresses import wait_for_addresses
from gossipmesh.agent.admin.admin_api import AdminApi, listen_local
from gossipmesh.agent.admin.http_server import Handler, HttpServer
from gossipmesh.agent.admin.metrics_endpoint import MetricsEndpoint
from gossipmesh.agent.admin.policy_alarms import watch_alarms
from gossipmesh.agent.clock_alarm import tell_clock
from gossipmesh.agent.config import AgentConfig
from gossipmesh.agent.engine.catalog_feed import CatalogFeed
from gossipmesh.agent.engine.engine_counts import EngineCounts, services_of
from gossipmesh.agent.engine.engine_words import EngineWords
from gossipmesh.agent.engine.identified_engine import IdentifiedEngine
from gossipmesh.agent.engine.key_use import AgentKeyUse
from gossipmesh.agent.engine.listeners import Listeners
from gossipmesh.agent.engine.peer_facts import PeerFacts
from gossipmesh.agent.engine.sockets import Sockets, engine_binds
from gossipmesh.agent.first_cause import first_cause
from gossipmesh.agent.gate import Gate
from gossipmesh.agent.gossip_shell import GossipShell
from gossipmesh.agent.identity.identity_keeper import IdentityKeeper, load_or_enrol
from gossipmesh.agent.identity.identity_store import NodeIdentity
from gossipmesh.agent.identity.renewed import RenewedIdentity
from gossipmesh.agent.logs import fields
from gossipmesh.agent.lost_datagrams import tell_datagrams
from gossipmesh.agent.open_report import OpenReporter
from gossipmesh.agent.outage_words import tell_outage
from gossipmesh.agent.reload import Reloader
from gossipmesh.agent.replaced import replaced_by
from gossipmesh.agent.seeds import Seeds
from gossipmesh.agent.services.node_services import LocalServices
from gossipmesh.agent.services.service_files import ServicesFolder
from gossipmesh.agent.signals import Wishes, watch_signals
from gossipmesh.agent.state.flight_recorder import build_name
from gossipmesh.agent.state.floors_file import CopiedStore, FloorsFile
from gossipmesh.agent.state.make_node import make_node, restored_state
from gossipmesh.agent.state.restore import remember_enrolment, restore_documents
from gossipmesh.agent.state.state_store import FolderLock, StateStore
from gossipmesh.dataplane.protocol import Demand, Ejection, EngineEvent, Statistics
from gossipmesh.gossip.base.effects import (
    ClockBelowRecords,
    ClockOff,
    DatagramsLost,
    EndpointsRetained,
    EnrolledAgain,
    Event,
    ForeignKeySet,
    IdentityCopied,
    Isolated,
    KeysChanged,
    MemberChanged,
    Opened,
    PolicyApplied,
    PolicyRefused,
    Revoked,
    ServicesChanged,
    TrustChanged,
    ViewRepaired,
    WayChanged,
)
from gossipmesh.gossip.base.settings import NodeAddresses
from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.checkpoint import take_checkpoint
from gossipmesh.gossip.replay.recorder import FlightRecorder
from gossipmesh.model.errors import MalformedInput, NodeReplaced, OperatorError
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.records import IdentityPins
from gossipmesh.model.service import ServiceEntry
from gossipmesh.net.clock import monotonic, wall_seconds
from gossipmesh.net.collector import give_back
from gossipmesh.net.entropy import seeded_random
from gossipmesh.telemetry.counters import Counters
from gossipmesh.telemetry.traffic import UNKNOWN
from gossipmesh.trust.keys import Verifier

log = logging.getLogger("gossipmesh.agent")

_DRAINING_HEARD_S: Final = 1.0  # gossip's ticks and the peers' compilers, with room to spare
_LAST_WORD_HEARD_S: Final = 0.6  # three ticks: the last word is said thrice
_RESTARTING_S: Final = 30  # a start takes a second or two; who is not back by then is worth a look
_ANSWER_S: Final = 0.2  # so that whoever asked to leave hears that it was done
_MEMBERS_ASKED_FOR_A_ROUTE: Final = 16
_UNHEARD_NS: Final = 10 * SECOND_NS  # each member is sent something by somebody every two
_VERDICTS_MAX: Final = 2_048  # some 150 bytes each; what comes twice comes soon
_GIVE_BACK_S: Final = 5  # once the hold has ended: while others join as well, everybody is short of CPU
_GONE: Final = (MemberStatus.DEAD, MemberStatus.LEFT)


async def run_agent(config: AgentConfig) -> None:
    """Run one agent until it has left the mesh or is told to stop.

    Raises:
        OperatorError: it cannot start, or cannot go on (a full disk, a copied identity); one sentence.
    """
    try:
        with ExitStack() as stack:
            lock = FolderLock(config.state_dir)
            stack.callback(lock.release)
            store = StateStore(config.state_dir)
            stack.callback(store.close)
            seeds = Seeds(config.every_seed(), config.gossip_bind, rng=seeded_random())
            await wait_for_addresses(config, seeds)
            sockets = Sockets(config, stack)
            identity, enrolled_now = await load_or_enrol(
                config.state_dir / "identity", config.token_file, sockets.require_engine_ports
            )
            floors = FloorsFile(config.state_dir, identity.credential_body.node_id)
            floors.reconcile(store, enrolled_now=enrolled_now)
            remember_enrolment(store, identity.enrolled, wall_seconds())
            floors.write(store)
            async with trio.open_nursery() as nursery:
                agent = Agent(config, identity, store, sockets, seeds, nursery, enrolled_now=enrolled_now)
                stack.callback(agent.close)
                await agent.start()
    except BaseExceptionGroup as group:
        raise first_cause(group) from None


class Agent:
    """The parts, and what each has to tell the others."""

    def __init__(
        self,
        config: AgentConfig,
        identity: NodeIdentity,
        store: StateStore,
        sockets: Sockets,
        seeds: Seeds,
        nursery: trio.Nursery,
        *,
        enrolled_now: bool,
    ) -> None:
        """Make the parts; nothing runs and nothing is said before `start`.

        Raises:
            OperatorError: the identity or the state on disk cannot be used.
        """
        self.started_at = monotonic()
        self.policy_refusals = Counters()
        self._config = config
        self._sockets = sockets
        self.seeds = seeds
        self._nursery = nursery
        self._leaving = self._ready_told = False
        self._ended, self._failed = trio.Event(), trio.Event()
        self._failure: OperatorError | None = None
        self._repaired_peers = 0
        self._settled_s = 0
        self._counts = EngineCounts()
        self._listeners = Listeners({})
        verifier = Verifier(_VERDICTS_MAX)
        self.documents = restore_documents(identity, store, verifier)
        self.identity = self._make_keeper(identity)
        self.build = build_name()
        self.recorder = FlightRecorder(checkpoint=take_checkpoint) if config.flight_recorder else None
        self.node = self._make_node(identity, store, verifier, enrolled_now=enrolled_now)
        self.gate = Gate(self.node)
        self.inputs = self.node if self.recorder is None else self.recorder.inputs
        self._identified = self._make_engine()
        self.engine = self._identified.supervisor
        self.shell = GossipShell(
            self.inputs,
            sockets.udp,
            CopiedStore(store, FloorsFile(config.state_dir, self.node.own_node_id)),
            on_event=self._gossip_told,
            probe_engine=self._identified.probe,
            nursery=nursery,
            each_second=self._keep_house,
        )
        self._renewed = RenewedIdentity(self.documents, lambda step: self.shell.step(step, self.inputs))
        self.addresses = self._make_addresses()
        self.services = LocalServices(
            ServicesFolder(config.services_dir),
            self._identified,
            publish=self._publish,
            on_change=self._services_changed,
            nursery=nursery,
        )
        self.feed = self._make_feed(identity)
        self._engine_words = EngineWords(lambda: self.engine.features, self._say_engine_lacks)
        self._reloader = Reloader(config, scan=self.services.scan, reopen=self.engine.reopen_log)

    async def start(self) -> None:
        """Take over a running engine or prepare for a new one, then start everything.

        Raises:
            OperatorError: one of the engine's ports cannot be had, or the disk is full.
        """
        nursery, config = self._nursery, self._config
        admin = AdminApi(self, leave=self.leave, restart=self.restart)
        local_api = listen_local(config.state_dir / "agent.sock", admin.handle_local)
        nursery.start_soon(self.engine.run)
        found = await self.engine.wait_found()
        if found is None:
            self.services.nothing_serves()
        self._listeners = Listeners({} if found is None else found.listeners)
        try:
            await self._listeners.take_fixed(engine_binds(config), self.engine.hand_over)
        except OperatorError:
            self._listeners.close_unused()
            local_api.close()
            raise
        running = None if found is None else found.snapshot_version
        self.feed.restore(running, joins=self.gate.is_closed)
        if self.feed.keeps_serving:
            self.gate.found_serving()
        self._identified.show_keys()
        await self.services.scan()
        self._give_listeners()
        self._listeners.close_unused()
        self.shell.step(lambda now: self.inputs.start(self.seeds.addresses, now))
        nursery.start_soon(self.shell.run, self._sockets.streams)
        await self.shell.writer.wait_told()
        nursery.start_soon(self.addresses.run)
        nursery.start_soon(self.seeds.run, self._seeds_changed, self._is_alone)
        nursery.start_soon(self.feed.run)
        nursery.start_soon(self.identity.run)
        nursery.start_soon(self.identity.keys.run, self._make_key_use())
        nursery.start_soon(OpenReporter(self.gate, self.identity.report_open, seeded_random()).run)
        nursery.start_soon(watch_alarms, self.documents, self.shell.writer)
        nursery.start_soon(self.services.run)
        nursery.start_soon(self._reloader.run)
        nursery.start_soon(local_api.run)
        nursery.start_soon(_http(self._sockets.api, admin.handle_remote).run)
        nursery.start_soon(_http(self._sockets.metrics, MetricsEndpoint(self, self._counts).handle).run)
        wishes = Wishes(self._stop, lambda: nursery.start_soon(self.restart), self._reloader.ask)
        nursery.start_soon(watch_signals, wishes)
        nursery.start_soon(self._end_when_told)
        nursery.start_soon(self._end_when_failed)
        self.feed.changed(urgent=True)
        self._release_when_repaired()
        log.info("started", extra=fields(node=self.identity.identity.name, version=__version__))

    def close(self) -> None:
        """Close what outlives the nursery; the engine keeps its own duplicates of the listeners."""
        self.engine.close()
        if self._ended.is_set():
            (self._config.state_dir / "agent.sock").unlink(missing_ok=True)

    async def leave(self) -> None:
        """Drain, tell the mesh, end the engine; returns when all of it is done."""
        if self._leaving:
            await self._ended.wait()
            return
        self._leaving = True
        log.info("draining, then leaving the mesh")
        self.services.set_draining()
        self.shell.step(self.inputs.set_draining)
        await trio.sleep(_DRAINING_HEARD_S)
        await self.engine.drain(self._config.engine.drain_timeout_s)
        self.shell.step(self.inputs.leave)
        await trio.sleep(_LAST_WORD_HEARD_S)
        log.info("left the mesh")
        self._ended.set()

    async def restart(self) -> None:
        """Tell the mesh that this agent will be back, then end it; the engine serves on for its successor.

        Returns when others were told. Leaving, begun before or meanwhile, goes first.
        """
        if not self._leaving:
            log.info("telling the mesh of a restart", extra=fields(within_s=_RESTARTING_S))
            self.shell.step(lambda now: self.inputs.set_restarting(_RESTARTING_S, now))
            await trio.sleep(_LAST_WORD_HEARD_S)
        if self._leaving:
            await self._ended.wait()
            return
        log.info("ending for a restart; the engine serves on")
        self._ended.set()

    # What views ask

    def engine_port_problems(self) -> list[str]:
        """Return which explicit upstream ports could not be had, one sentence each."""
        return sorted(self._listeners.problems.values())

    def shown_pins(self) -> dict[str, bytes]:
        """Return which key the engine shows for each identity, by its pin."""
        return self._identified.shown_pins()

    @property
    def config(self) -> AgentConfig:
        """Return what this agent was started with."""
        return self._config

    def other_seeds(self) -> list[Address]:
        """Return the seeds that should answer: one list of seeds serves all nodes, these included."""
        own = self._own_addresses()
        return [seed for seed in self.seeds.addresses if seed not in own]

    def unresolved_seeds(self) -> dict[str, str]:
        """Return why a seed's host name does not resolve, by seed."""
        return self.seeds.unresolved

    def _others(self) -> list[Address]:
        """Return where others may be: seeds, and some of the members that were there of late."""
        members = islice(self.node.each_member(), _MEMBERS_ASKED_FOR_A_ROUTE)
        found = [view.state.gossip_addresses[0] for view in members if view.node_id != self.node.own_node_id]
        return [*self.other_seeds(), *found]

    def _own_addresses(self) -> set[Address]:
        return {self._config.gossip_bind, *self.node.own_state.gossip_addresses}

    # What the parts tell

    def _gossip_told(self, event: Event) -> None:
        """Called within a step of the core: reads it, never steps it."""
        if isinstance(event, MemberChanged):
            previous = None if event.previous is None else event.previous.label
            told = fields(member=event.name, previous=previous)
            if event.status is not event.previous:
                log.info("member is %s", event.status.label, extra=told)
            self.feed.endpoints_changed(event.endpoints, urgent=event.status in _GONE)
            self.feed.keys_changed(event.node_id, self.node.keys_of(event.node_id))
        elif isinstance(event, KeysChanged):
            self.feed.keys_changed(event.node_id, event.keys)
        elif isinstance(event, ServicesChanged):
            self.feed.endpoints_changed(event.endpoints)
        elif isinstance(event, PolicyApplied):
            log.info("policy in force", extra=fields(scope=event.scope, policy_version=event.version))
            self.feed.changed(urgent=True)
        elif isinstance(event, PolicyRefused):
            named = event.scope if self.documents.has_signer(event.scope) else UNKNOWN
            self.policy_refusals.add(named, event.code)
            told = fields(scope=event.scope, policy_version=event.version, code=event.code)
            log.warning("policy refused: %s", event.reason, extra=told)
        elif isinstance(event, TrustChanged):
            log.info("trust in force", extra=fields(trust_version=event.version))
            self._identified.show_keys()
            self._nursery.start_soon(self._follow_trust)
        elif isinstance(event, ViewRepaired):
            self._repaired_peers = event.peers_count
            self._release_when_repaired()
        elif isinstance(event, Isolated):
            self.feed.isolated(event.is_isolated)
            tell_outage(event)
        elif isinstance(event, Opened):
            self._opened(event)
        elif isinstance(event, EndpointsRetained):
            tell_outage(event)
        elif isinstance(event, WayChanged | DatagramsLost):
            tell_datagrams(event, self._config.gossip_bind)
        elif isinstance(event, ForeignKeySet):
            text = (
                "TLS keys that this node does not know were published in its name, signed with its own key: "
                "that key is stolen, or an old copy of its state folder runs; enrol this node again"
            )
            log.error(text, extra=fields(identities=list(event.paths)))
        elif isinstance(event, ClockOff | ClockBelowRecords):
            tell_clock(event)
        elif isinstance(event, IdentityCopied | EnrolledAgain | Revoked):
            name, folder = self.identity.identity.name, self._config.state_dir / "identity"
            self._failure = replaced_by(event, name, self.node.incarnation[0], folder)
            self._failed.set()

    def _engine_told(self, event: EngineEvent) -> None:
        self._counts.add(event)
        if isinstance(event, Demand):
            if not self.feed.demand(event.service):
                self.engine.tell_unknown(event.service)
        elif isinstance(event, Statistics):
            for service in services_of(event):
                self.feed.touch(service)
        elif isinstance(event, Ejection):
            move = "out of use" if event.ejected else "back in use"
            told = fields(upstream=event.upstream, node=event.node, reason=event.reason)
            log.info("endpoint %s", move, extra=told)

    def _engine_changed(self) -> None:
        log.info("engine %s", "serves" if self.engine.serving else "does not serve")
        self.services.refresh()
        self._tell_ready()

    def _tell_ready(self) -> None:
        if self.engine.serving and not self.gate.withholds and not self._ready_told:
            self._ready_told = True
            log.info("ready", extra=fields(node=self.identity.identity.name, gossip=self._config.gossip_bind))

    def _engine_shows(self) -> None:
        """Called when the engine has confirmed keys: what they are of may be served."""
        self.identity.keys.look()
        self.services.refresh()
        self.feed.look_around()

    def _publish_keys(self, entries: Sequence[IdentityPins]) -> None:
        self.shell.step(lambda now: self.inputs.turn_keys(entries, now))

    def _opened(self, event: Opened) -> None:
        self.gate.take(event)
        self.feed.opened()
        self._nursery.start_soon(self._offer_when_open)

    async def _offer_when_open(self) -> None:
        """Offer this node's endpoints: that steps the core, which may not be done within a step."""
        self.services.refresh()
        self._tell_ready()

    def _services_changed(self) -> None:
        self._give_listeners()
        self.feed.changed()
        self.identity.services_changed()

    def _publish(self, entries: Sequence[ServiceEntry]) -> None:
        try:
            self.shell.step(lambda now: self.inputs.publish_services(entries, now))
        except MalformedInput as error:
            log.error("the services could not be published: %s", error)
        self.feed.changed(urgent=True)
        self._release_when_repaired()

    def _identity_renewed(self, identity: NodeIdentity) -> None:
        self._identified.show_keys()
        self._renewed.take(identity.trust_envelopes, identity.credential)
        self.services.refresh()

    async def _follow_trust(self) -> None:
        """Go on with what waited for this Trust: as `_offer_when_open`."""
        self._renewed.go_on()
        self.identity.trust_changed()

    def _give_listeners(self) -> None:
        self._listeners.set_upstreams(self.services.upstream_listeners())
        self.engine.want_listeners(self._listeners.sockets)

    def _release_when_repaired(self) -> None:
        """End the hold after a start once enough of the mesh has told us what it knows."""
        if not self.feed.holding or not self.services.settled:
            return
        tally = self.node.tally()
        others_count, there_count = tally.members_count - 1, tally.attended_count - 1  # without ourselves
        alone = not others_count and not self._expects_others()
        if alone or (there_count > 0 and self._repaired_peers >= min(self.feed.peers_needed, there_count)):
            self.feed.release(f"{self._repaired_peers} peers have told what they know")

    def _expects_others(self) -> bool:
        return self.seeds.name_others(self._own_addresses())

    def _say_engine_lacks(self, features: tuple[str, ...]) -> None:
        self.shell.step(lambda now: self.inputs.set_engine_lacks(features, now))

    def _seeds_changed(self, seeds: Sequence[Address]) -> None:
        self.shell.step(lambda now: self.inputs.seeds_changed(seeds, now))

    def _is_alone(self) -> bool:
        return not self.node.hears_anybody(_UNHEARD_NS)

    def _tell_addresses(self, addresses: NodeAddresses) -> None:
        """Tell others where we are now, and see where they are: all of a site may have moved at once."""
        self.shell.step(self.inputs.addresses_changed, addresses)
        self.seeds.hurry()

    def _keep_house(self) -> None:
        """Called every second, between steps of the core."""
        self.services.refresh()
        self.feed.look_around()
        self._engine_words.look()
        if self.gate.look():
            self.feed.changed()
        self._release_when_repaired()
        if not self.feed.holding and self._settled_s < _GIVE_BACK_S:
            self._settled_s += 1
            if self._settled_s == _GIVE_BACK_S:
                # What joining and starting took for a while is free again.
                self._nursery.start_soon(_give_back)
        if self._listeners.problems:
            self._give_listeners()

    # Tasks

    def _stop(self) -> None:
        """Leave the mesh, or end at once when told a second time."""
        if self._leaving:
            log.warning("told to stop twice: stopping now")
            self.engine.stop()
            self._nursery.cancel_scope.cancel()
            return
        self._nursery.start_soon(self.leave)

    async def _end_when_told(self) -> None:
        await self._ended.wait()
        await trio.sleep(_ANSWER_S)
        self._nursery.cancel_scope.cancel()

    async def _end_when_failed(self) -> None:
        await self._failed.wait()
        if isinstance(self._failure, NodeReplaced):
            self.engine.kill()
        if self._failure is not None:
            raise self._failure

    def _make_keeper(self, identity: NodeIdentity) -> IdentityKeeper:
        return IdentityKeeper(
            self._config.state_dir / "identity",
            identity,
            wanted=lambda: [entry.service for entry in self.services.registrations()],
            on_renewed=self._identity_renewed,
            rng=seeded_random(),
            period_s=self._config.key_period_s,
            authorities=self._config.authorities,
            trust=lambda: self.documents.trust,
        )

    def _make_node(
        self, identity: NodeIdentity, store: StateStore, verifier: Verifier, *, enrolled_now: bool
    ) -> GossipNode:
        return make_node(
            self._config,
            identity,
            self.documents,
            verifier,
            restored=restored_state(identity, store, enrolled_now=enrolled_now),
            seeds=self.seeds.addresses,
            recorder=self.recorder,
        )

    def _make_engine(self) -> IdentifiedEngine:
        return IdentifiedEngine(
            self._config,
            self.documents,
            self.identity,
            self.node,
            self.gate,
            on_event=self._engine_told,
            on_change=self._engine_changed,
            on_shown=self._engine_shows,
        )

    def _make_key_use(self) -> AgentKeyUse:
        return AgentKeyUse(
            self._identified,
            self.node,
            publish=self._publish_keys,
            is_whole=lambda: not self.feed.holding,
            without_key_sets=lambda: self.feed.without_key_sets,
        )

    def _make_addresses(self) -> AddressKeeper:
        return AddressKeeper(
            self._config,
            state=lambda: self.node.own_state,
            towards=self._others,
            publish=self._tell_addresses,
        )

    def _make_feed(self, identity: NodeIdentity) -> CatalogFeed:
        return CatalogFeed(
            trust_domain=identity.trust_domain,
            node=identity.name,
            catalog=self.node,
            documents=self.documents,
            local=self.services.local_services,
            snapshot_path=self._config.state_dir / "snapshot.bin",
            deliver=self.engine.want_snapshot,
            peers=PeerFacts(
                self.node,
                self.documents,
                features=lambda: self.engine.features,
                hears=lambda: not self._is_alone(),
            ),
            closed=lambda: self.gate.why,
            workloads=self._identified.workloads_identity,
        )


async def _give_back() -> None:
    """Give pages back beside the loop; memory alone is lost where no thread can be started."""
    try:
        await trio.to_thread.run_sync(give_back, abandon_on_cancel=True)
    except RuntimeError as error:
        log.warning("pages are not given back: %s; raise the limit of threads (TasksMax)", error)


def _http(listener: socket.socket, handler: Handler) -> HttpServer:
    return HttpServer(listener, handler)
