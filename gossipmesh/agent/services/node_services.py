"""This node's services: from files and checks to what is published and what the engine serves.

Rules:
1. Published passing only while the checks pass, the engine serves, and the service's SVID is here.
2. Nothing is published before it is known (first verdicts, an engine that answers and has confirmed the
   services' keys, where there are any) or 10 s have passed: after a restart the group goes on with what the
   last agent said.
3. A service the credential does not allow is a problem, not a publication.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final, Protocol

import trio

from gossipmesh.agent.logs import fields
from gossipmesh.agent.services.health import HealthMonitor
from gossipmesh.agent.services.service_files import LocalRegistration, ServicesFolder
from gossipmesh.model import limits
from gossipmesh.model.member import Address
from gossipmesh.model.service import EndpointHealth, ServiceEntry
from gossipmesh.net.folder_news import FolderNews
from gossipmesh.traffic.inputs import LocalService

log = logging.getLogger("gossipmesh.agent.services")

_UNKNOWN_S_MAX: Final = 10.0
_LOOK_S: Final = 1.0
_LOOK_TOLD_S: Final = 5.0


class Conditions(Protocol):
    """What decides, besides the checks, whether a service may be published passing."""

    def engine_serves(self) -> bool:
        """Tell whether the engine has acked a snapshot and answers."""

    def service_allowed(self, service: str) -> bool:
        """Tell whether this node's credential covers `service`."""

    def service_has_identity(self, service: str) -> bool:
        """Tell whether this node holds the SVID of `service`."""

    def service_identity_is_due(self, service: str) -> bool:
        """Tell whether the engine is about to be given it: there is one, and it was not confirmed yet."""


class LocalServices:
    """The registrations of this node and what the mesh is told of them."""

    def __init__(
        self,
        folder: ServicesFolder,
        conditions: Conditions,
        *,
        publish: Callable[[Sequence[ServiceEntry]], None],
        on_change: Callable[[], None],
        nursery: trio.Nursery,
    ) -> None:
        """`publish` gets the entries whenever they differ; `on_change` follows a change of the files."""
        self._folder = folder
        self._conditions = conditions
        self._publish = publish
        self._on_change = on_change
        self._monitor = HealthMonitor(nursery, self.refresh)
        self._published: tuple[ServiceEntry, ...] | None = None
        self._known_by = trio.current_time() + _UNKNOWN_S_MAX
        self._draining = False
        self._reading = trio.Lock()
        # What the folder said when it was read last: the thread that reads it has it to itself meanwhile.
        self._declared: list[LocalRegistration] = []
        self._mistakes: list[str] = []

    @property
    def settled(self) -> bool:
        """Tell whether what this node serves, if anything, was published since the start."""
        return self._published is not None or not self.registrations()

    def registrations(self) -> list[LocalRegistration]:
        """Return the registrations this node may serve, sorted."""
        return [entry for entry in self._declared if self._conditions.service_allowed(entry.service)][
            : limits.SERVICES_PER_NODE_MAX
        ]

    def health(self, registration: str) -> EndpointHealth:
        """Return what the checks say, whatever the engine does."""
        return self._monitor.health(registration)

    def problems(self) -> list[str]:
        """Return what is wrong with the files, one line each."""
        return self._mistakes + [
            f"{entry.service}: this node's credential does not allow it; create its token with "
            f"--service {entry.service}"
            for entry in self._declared
            if not self._conditions.service_allowed(entry.service)
        ]

    def local_services(self) -> tuple[LocalService, ...]:
        """Return the registrations as the compiler takes them."""
        return tuple(
            LocalService(
                entry.registration, entry.service, entry.protocol, entry.workload, entry.uid, entry.upstreams
            )
            for entry in self.registrations()
        )

    def upstream_listeners(self) -> dict[str, Address]:
        """Return the explicit upstream ports by the engine protocol's names."""
        return {
            f"upstream/{service}/{bind}": bind
            for entry in self.registrations()
            for service, bind in entry.upstreams
        }

    def set_draining(self) -> None:
        """Tell the mesh that these services take no new requests."""
        self._draining = True
        self.refresh()

    def nothing_serves(self) -> None:
        """Note that no engine outlived the last agent: what that one said holds no longer.

        Otherwise callers would be sent to ports nobody listens on, and keep them out of use for a while.
        """
        self._known_by = trio.current_time()

    async def scan(self) -> None:
        """Take up what changed in the folder; its disk may take its time, and only the caller waits."""
        await self._take_up(self._folder.scan)

    async def _take_up(self, look: Callable[[], bool]) -> None:
        async with self._reading:
            if not await trio.to_thread.run_sync(look, abandon_on_cancel=True):
                return
            self._declared = self._folder.registrations()
            self._mistakes = [str(one) for found in self._folder.problems.values() for one in found]
        self._tell_problems()
        self._monitor.watch(self.registrations())
        log.info("services read", extra=fields(services=[entry.service for entry in self.registrations()]))
        self._on_change()
        self.refresh()

    def refresh(self) -> None:
        """Publish what is true now, if it differs and may be said already."""
        entries = tuple(self._entry(registration) for registration in self.registrations())
        if entries == self._published:
            return
        if self._published is None and not self._is_known() and trio.current_time() < self._known_by:
            return
        self._published = entries
        self._publish(entries)

    async def run(self) -> None:
        """Look at the folder when the kernel tells of it, and now and then; every second where it does not.

        Each look is a thread's, and wakes this process four times: once a second that would be an eighth of
        what an agent at rest uses.
        """
        with closing(FolderNews(self._folder.path)) as news:

            def look() -> bool:
                news.watch()
                return self._folder.scan()

            while True:
                await self._take_up(look)
                await news.wait(_LOOK_TOLD_S if news.is_told else _LOOK_S)

    def _is_known(self) -> bool:
        if not self._conditions.engine_serves():
            return False
        return all(
            self._monitor.health(entry.registration) is not EndpointHealth.UNKNOWN
            and not self._conditions.service_identity_is_due(entry.service)
            for entry in self.registrations()
        )

    def _entry(self, registration: LocalRegistration) -> ServiceEntry:
        health = self._monitor.health(registration.registration)
        able = self._conditions.engine_serves() and self._conditions.service_has_identity(
            registration.service
        )
        if health is EndpointHealth.PASSING and not able:
            health = EndpointHealth.FAILING
        return ServiceEntry(
            registration=registration.registration,
            service=registration.service,
            protocol=str(registration.protocol),
            health=int(health),
            draining=self._draining,
            weight=registration.weight,
            labels=registration.labels,
        )

    def _tell_problems(self) -> None:
        for problem in self.problems():
            log.error("service file: %s", problem)
