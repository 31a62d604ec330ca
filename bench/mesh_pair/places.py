"""Where everything listens, as whom, and on which core it runs. Loopback only."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gossipmesh.model.identity import service_spiffe_id
from gossipmesh.model.member import Address

TRUST_DOMAIN: Final = "mesh.test"
WEB: Final = service_spiffe_id(TRUST_DOMAIN, "shop/web")
CART: Final = service_spiffe_id(TRUST_DOMAIN, "shop/cart")
CART_NAME: Final = "cart.shop.mesh.test"
DB_NAME: Final = "db.shop.mesh.test"
ENDPOINTS: Final = 3
BACKEND: Final = Address("127.72.0.1", 18080)
NEAR_HTTP_PORT: Final = 18081
NEAR_TCP_PORT: Final = 18082
FAR_PORT: Final = 18083
FAR_TCP_PORT: Final = 18084


@dataclass(frozen=True)
class Cores:
    """The core of the proxies, and the core of load and backend."""

    proxies: int
    load: int


def choose_cores() -> Cores | None:
    """Return two of the cores this process may use, None when there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[-1]) if len(usable) > 1 else None


@dataclass(frozen=True)
class Target:
    """One pair that runs: where its callers connect, and the processes that are counted."""

    name: str
    version: str
    http: Address
    tcp: Address
    pids: tuple[int, ...]


def near(number: int, port: int) -> Address:
    """Return where callers of the `number`-th pair connect."""
    return Address(f"127.72.{number}.1", port)


def far(number: int, port: int) -> tuple[Address, ...]:
    """Return where the far side of the `number`-th pair listens: three addresses, one each endpoint."""
    return tuple(Address(f"127.72.{number}.{10 + endpoint}", port) for endpoint in range(ENDPOINTS))


def make_folder(folder: Path, name: str) -> Path:
    """Make and return a folder of one pair."""
    made = folder / name
    made.mkdir()
    return made
