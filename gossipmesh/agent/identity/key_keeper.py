"""Holds this node's identity on disk and drives the turning of its keys.

What `key_turning` decides is done here, in its order: keys to disk, pins to the core, keys to the engine.
Rules:
1. One writer: the file is replaced whole, in a thread, and what is in it counts once it is there. A disk that
   refuses changes nothing; it is asked again.
2. Before a turn the authority is asked once for certificates of the coming keys. It need not answer; where
   it is one that renews no other key than was enrolled, nothing turns, and it is asked again later.
3. While something is under way the machine is looked at ten times a second, else once a minute.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import trio

from gossipmesh.agent.identity.enrolment import Renewal
from gossipmesh.agent.identity.identity_store import NodeIdentity, fresh_key, write_identity
from gossipmesh.agent.identity.key_turning import KeyTurning, LeafKey, Pins
from gossipmesh.agent.logs import fields
from gossipmesh.model.enrolment import SERVICES_PER_REQUEST_MAX, allows, is_concrete
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.identity import service_of_spiffe_id, service_spiffe_id, workloads_spiffe_id
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.net.clock import monotonic, wall_seconds

log = logging.getLogger("gossipmesh.agent.keys")

_LOOK_S: Final = 0.1
_REST_S: Final = 60.0
_DISK_AGAIN_S: Final = 5.0
_CERTIFY_AGAIN_NS: Final = 300 * SECOND_NS


class KeyUse(Protocol):
    """Who publishes and shows keys, and knows who holds what."""

    def publish_pins(self, pins: Pins) -> bool:
        """Sign these as the node's key set and send it on its way; False when that is not possible now."""

    def holders(self) -> tuple[int, int] | None:
        """Return how many live peers hold the newest key set, and of how many; None while nobody can tell."""

    def show_keys(self) -> None:
        """Have the engine show the keys in use, with their certificates."""

    def shown_pins(self) -> dict[str, bytes]:
        """Return what the engine has confirmed, the pin by SPIFFE ID; nothing while there is no engine."""

    def engine_able(self) -> bool:
        """Tell whether the engine takes keys without a certificate of the authority."""

    def certified_only(self) -> bool:
        """Tell whether some other member takes no keys without one."""


class KeyKeeper:
    """The identity as it is on disk, and its keys over time."""

    def __init__(
        self,
        directory: Path,
        identity: NodeIdentity,
        *,
        period_s: int,
        wanted: Callable[[], Sequence[str]],
        certify: Callable[[], Awaitable[str]],
        on_written: Callable[[], None],
    ) -> None:
        """Take the identity as it is on disk.

        Args:
            wanted: the services registered now.
            certify: asks the authority once for certificates of the coming keys; says why they may not be
                used, if so.
            on_written: follows each write.
        """
        self.identity = identity
        self.turns_count = 0
        self.failure: str | None = None
        self.turning = KeyTurning(
            identity.holding, period_s=period_s, make_key=fresh_key, now=monotonic(), wall=wall_seconds()
        )
        self._newest = identity
        self._directory = directory
        self._wanted = wanted
        self._certify = certify
        self._certify_at = Instant(0)
        self._on_written = on_written
        self._given: dict[str, LeafKey] = {}
        self._changed = trio.Event()
        self._writing = trio.Lock()

    def look(self) -> None:
        """Look again at what is registered, published and shown."""
        self._changed.set()

    def ask_turn(self, *, stolen: bool) -> None:
        """Turn now; `stolen`: others may have the next keys as well."""
        self.turning.ask_turn(stolen=stolen)
        self._certify_at = Instant(0)
        self._changed.set()

    def usable(self) -> dict[str, LeafKey]:
        """Return the key to show for each identity that may be used."""
        return self.turning.to_show

    def wanted_identities(self) -> list[str]:
        """Return what this node needs keys for: itself, its workloads, and services it may serve."""
        identity = self.identity
        patterns = identity.credential_body.service_patterns
        held = [service_of_spiffe_id(name) for name in self.turning.holding.keys]
        named = [pattern for pattern in patterns if is_concrete(pattern)]
        # Those registered come first: what was served once goes when there are too many.
        services = dict.fromkeys([*self._wanted(), *named, *(one for one in held if one is not None)])
        allowed = [one for one in services if allows(patterns, one)][:SERVICES_PER_REQUEST_MAX]
        domain = identity.trust_domain
        names = [identity.spiffe_id, workloads_spiffe_id(domain, identity.name)]
        return [*names, *(service_spiffe_id(domain, one) for one in allowed)]

    async def keep(self, renewal: Renewal) -> None:
        """Put what an authority answered on disk, and go on with it.

        Raises:
            OperatorError: the disk does not take it; it is tried again by `run`. State unchanged.
        """
        self._newest = renewal.identity
        self.turning.certified(renewal.keys)
        await self._write()
        self._changed.set()

    async def run(self, use: KeyUse) -> None:
        """Turn keys, until cancelled."""
        while True:
            self._changed = trio.Event()
            try:
                await self._step(use)
            except OperatorError as error:
                self.failure = str(error)
                log.error("keys are not turned: %s", error)
                await trio.sleep(_DISK_AGAIN_S)
                continue
            self.failure = None
            with trio.move_on_after(self._rest_s()):
                await self._changed.wait()

    def _rest_s(self) -> float:
        turning = self.turning
        if not turning.is_settled:
            return _LOOK_S
        due = max(turning.turn_at, self._certify_at)
        return min(_REST_S, max(_LOOK_S, (due - monotonic()) / SECOND_NS))

    async def _step(self, use: KeyUse) -> None:
        """Do what is to be done now.

        Raises:
            OperatorError: the disk does not take the keys. State unchanged.
        """
        turning = self.turning
        turning.want(self.wanted_identities())
        turning.engine_able(use.engine_able())
        turning.certified_only(use.certified_only())
        turning.shown(use.shown_pins())
        holders = use.holders()
        if holders is not None:
            turning.heard(*holders)
        await self._turn()
        await self._write()
        pins = turning.to_publish
        if pins is not None and use.publish_pins(pins):
            turning.published(pins)
        shown = turning.to_show
        if shown != self._given:
            self._given = shown
            use.show_keys()

    async def _turn(self) -> None:
        turning = self.turning
        if not turning.is_due(monotonic()) or monotonic() < self._certify_at:
            return
        turning.hinder("")
        if turning.waits_for(monotonic()):
            return
        why = await self._certify()
        if why:
            turning.hinder(why)
            self._certify_at = Instant(monotonic() + _CERTIFY_AGAIN_NS)
        if turning.turn_if_due(monotonic(), wall_seconds()):
            self.turns_count += 1
            log.info("keys turn", extra=fields(identities=sorted(turning.holding.keys)))

    async def _write(self) -> None:
        """Put on disk what is not there yet.

        Raises:
            OperatorError: not written; the file is as it was, and it is tried again later.
        """
        async with self._writing:
            holding, newest = self.turning.begin_write(), self._newest
            if holding is None and newest.credential == self.identity.credential:
                return
            written = replace(newest, holding=self.identity.holding if holding is None else holding)
            is_on_disk = False
            try:
                # In a thread: an fsync may take as long as the disk likes, and the agent runs meanwhile.
                await trio.to_thread.run_sync(write_identity, self._directory, written)
                self.identity, is_on_disk = written, True
            finally:
                if holding is not None:
                    self.turning.written(is_on_disk=is_on_disk)
        self._on_written()
