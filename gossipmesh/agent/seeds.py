"""Where members may be found: addresses and host names, the latter resolved again at each try.

Rules:
1. The gossip core is given addresses only. Names are resolved here, off the loop, within bounds.
2. A name that does not resolve stops nothing: what it resolved to before stays in use, others are tried, and
   it is looked up again, often while this node hears nobody or has just moved, else every few minutes.
3. Each is said once, and again when the reason, or the addresses, change.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import trio

from gossipmesh.agent.logs import fields
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.host_port import split_host_port
from gossipmesh.model.member import Address
from gossipmesh.net.resolver import ANY_FAMILY, IPV4, IPV6, resolve

log = logging.getLogger("gossipmesh.agent.seeds")

_TIMEOUT_S: Final = 3.0  # glibc asks its first server again after 5 s: a server that is there answers sooner
_AGAIN_S_MIN: Final = 1.0
_ALONE_S_MAX: Final = 30.0
_SETTLED_S: Final = 300.0  # as often as the core asks a seed where it knows no member
_HURRY_S: Final = 60.0
_JITTER: Final = 0.1


class SeedName(msgspec.Struct, frozen=True):
    """A seed by host name; `host` is lower-case and no literal address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


Seed = Address | SeedName
Lookup = Callable[[str, int, int, trio.CapacityLimiter, float], Awaitable[list[Address]]]
"""(host, port, family, limiter, timeout in seconds) -> addresses; raises OSError."""


def parse_seed(text: str) -> Seed:
    """Read `10.0.0.1:7948`, `[fd00::1]:7948` or `mesh.example.com:7948`.

    Raises:
        MalformedInput: neither an address nor a name with a port in 0..65535. State unchanged.
    """
    try:
        return Address.parse(text)
    except MalformedInput:
        named = split_host_port(text)
        if named is None:
            raise MalformedInput(
                f"{text[:100]!r} is not ADDRESS:PORT or NAME:PORT, such as 10.0.0.1:7948, [fd00::1]:7948 or "
                "mesh.example.com:7948"
            ) from None
        return SeedName(*named)


class Seeds:
    """A node's seeds, and what their names resolve to now."""

    def __init__(
        self, seeds: Sequence[Seed], bind: Address, *, rng: random.Random, lookup: Lookup = resolve
    ) -> None:
        """`bind` is where gossip listens: it says which kind of addresses packets can go to."""
        self._fixed = [seed for seed in seeds if isinstance(seed, Address)]
        self._names = [seed for seed in dict.fromkeys(seeds) if isinstance(seed, SeedName)]
        self._family = ANY_FAMILY if bind.host == "::" else IPV6 if ":" in bind.host else IPV4
        self._rng = rng
        self._lookup = lookup
        self._limiter = trio.CapacityLimiter(limits.SEED_LOOKUPS_MAX)
        self._found: dict[SeedName, list[Address]] = {}
        self._failures: dict[SeedName, str] = {}
        self._asked = trio.Event()
        self._hurry_until_s = 0.0

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Return where members may be found now: at most `limits.SEEDS_MAX`, no duplicates."""
        named = [address for name in self._names for address in self._found.get(name, ())]
        return tuple(dict.fromkeys([*self._fixed, *named]))[: limits.SEEDS_MAX]

    @property
    def unresolved(self) -> dict[str, str]:
        """Return why a name does not resolve, by name."""
        return {str(name): self._failures[name] for name in self._names if name in self._failures}

    def name_others(self, own: set[Address]) -> bool:
        """Tell whether there should be anybody but ourselves: a name that never resolved may be anybody."""
        unknown = any(name not in self._found for name in self._names)
        return unknown or any(address not in own for address in self.addresses)

    async def look(self) -> None:
        """Resolve every name once, all at the same time; it takes three seconds at most."""
        async with trio.open_nursery() as nursery:
            for name in self._names:
                nursery.start_soon(self._look_up, name)

    async def run(self, changed: Callable[[tuple[Address, ...]], None], is_alone: Callable[[], bool]) -> None:
        """Resolve over and over, until cancelled; tell `changed` each time the addresses do."""
        handed, wait_s = self.addresses, _AGAIN_S_MIN / 2
        while self._names:
            self._asked = trio.Event()
            await self.look()
            if self.addresses != handed:
                handed, wait_s = self.addresses, _AGAIN_S_MIN / 2
                changed(handed)
            hurries = trio.current_time() < self._hurry_until_s
            wait_s = min(2 * wait_s, _ALONE_S_MAX) if hurries or is_alone() else _SETTLED_S
            with trio.move_on_after(wait_s * self._rng.uniform(1 - _JITTER, 1)):
                await self._asked.wait()
                wait_s = _AGAIN_S_MIN / 2

    def hurry(self) -> None:
        """Look again at once, and often for a minute: this node moved, and others may have with it."""
        self._hurry_until_s = trio.current_time() + _HURRY_S
        self._asked.set()

    async def _look_up(self, name: SeedName) -> None:
        try:
            found = await self._lookup(name.host, name.port, self._family, self._limiter, _TIMEOUT_S)
        except OSError as error:
            self._take_failure(name, error.strerror or str(error))
        else:
            self._take_found(name, sorted(found)[: limits.ADDRESSES_PER_SEED_MAX])

    def _take_failure(self, name: SeedName, reason: str) -> None:
        if self._failures.get(name) == reason:
            return
        self._failures[name] = reason
        stays = "its last addresses stay in use" if name in self._found else "it is tried again"
        log.warning("the seed %s does not resolve: %s; %s", name, reason, stays, extra=fields(seed=str(name)))

    def _take_found(self, name: SeedName, found: list[Address]) -> None:
        failed = self._failures.pop(name, None) is not None
        if failed or self._found.get(name) != found:
            log.info("the seed %s is at %s", name, ", ".join(map(str, found)), extra=fields(seed=str(name)))
        self._found[name] = found
