"""Two engine processes, as an agent would start them, and an agent's hand on each.

Retries, ejection, balancing over three endpoints, an allow rule by identity and the access log are on: an
engine has no other way to run.
"""

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import trio

from bench.mesh_pair.certificates import Authority
from bench.mesh_pair.places import (
    BACKEND,
    CART,
    ENDPOINTS,
    FAR_PORT,
    NEAR_HTTP_PORT,
    NEAR_TCP_PORT,
    TRUST_DOMAIN,
    WEB,
    Cores,
    Target,
    far,
    near,
)
from bench.processes import started
from gossipmesh.agent.engine.engine_choice import REFERENCE_MODULE
from gossipmesh.cli.agent import MALLOC_SETTINGS
from gossipmesh.dataplane.client import EngineClient, EngineGone, EngineUnavailable
from gossipmesh.model.identity import node_spiffe_id, service_spiffe_id
from gossipmesh.model.member import Address, MemberStatus
from gossipmesh.model.policy import (
    API_VERSIONS,
    AccessFrom,
    AccessPolicy,
    AccessPolicySpec,
    AccessRuleSpec,
    Metadata,
    TargetRef,
)
from gossipmesh.model.service import EndpointHealth
from gossipmesh.net.interpreter import module_words, safe_environment
from gossipmesh.testing.builders import OneEndpoint, serving
from gossipmesh.traffic.compiler import DEFAULT_LIMITS, SnapshotCompiler
from gossipmesh.traffic.inputs import LocalService, PolicyInput, SnapshotInputs

_NUMBER: Final = 4
_START_S: Final = 10
_DB: Final = service_spiffe_id(TRUST_DOMAIN, "shop/db")
_MESH: Final = far(_NUMBER, FAR_PORT)[0]
_HTTP: Final = near(_NUMBER, NEAR_HTTP_PORT)
_TCP: Final = near(_NUMBER, NEAR_TCP_PORT)
_SERVICES: Final = (("cart", "http"), ("db", "tcp"))


@contextlib.asynccontextmanager
async def our_pair(folder: Path, authority: Authority, cores: Cores) -> AsyncIterator[Target]:
    """Run the near and the far engine with snapshots, identities and sockets; yield where callers connect."""
    caught = contextlib.AsyncExitStack()
    async with caught, trio.open_nursery() as nursery:
        far_client = await caught.enter_async_context(_engine(folder, "far", cores, nursery))
        near_client = await caught.enter_async_context(_engine(folder, "near", cores, nursery))
        await far_client.apply_identities(
            [authority.issue(name) for name in (node_spiffe_id(TRUST_DOMAIN, "far"), CART, _DB)],
            authority.root_pem,
        )
        await near_client.apply_identities(
            [authority.issue(name) for name in (node_spiffe_id(TRUST_DOMAIN, "near"), WEB)],
            authority.root_pem,
        )
        await far_client.apply_snapshot(SnapshotCompiler().compile(_far_inputs()))
        await near_client.apply_snapshot(SnapshotCompiler().compile(_near_inputs()))
        await _give(far_client, {"mesh": _MESH})
        await _give(near_client, {f"upstream/shop/cart/{_HTTP}": _HTTP, f"upstream/shop/db/{_TCP}": _TCP})
        pids = (near_client.hello.pid, far_client.hello.pid)
        yield Target("ours", metadata.version("gossipmesh"), _HTTP, _TCP, pids)
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _engine(
    folder: Path, name: str, cores: Cores, nursery: trio.Nursery
) -> AsyncIterator[EngineClient]:
    """Run one engine and stay attached to it; what it tells is read and forgotten."""
    path, words_path = folder / f"{name}.sock", folder / f"{name}.err"
    words = [*module_words(REFERENCE_MODULE), "--socket", str(path)]
    words += ["--access-log", str(folder / f"{name}.log")]
    environment = MALLOC_SETTINGS | safe_environment(os.environ)
    with words_path.open("wb") as told, started(words, cores.proxies, told, environment):
        try:
            client = await _attached(path)
        except (trio.TooSlowError, EngineUnavailable) as error:
            said = words_path.read_text(errors="replace").strip()[-400:]
            raise RuntimeError(f"our engine did not start: {error}: {said}") from None
        async with client:
            nursery.start_soon(_listen, client)
            yield client


async def _attached(path: Path) -> EngineClient:
    with trio.fail_after(_START_S):
        while True:
            try:
                return await EngineClient.attach(path, node_id=b"n" * 16, boot_id="bench")
            except EngineUnavailable:
                await trio.sleep(0.05)


async def _listen(client: EngineClient) -> None:
    with contextlib.suppress(EngineGone):
        await client.run(lambda event: None)


async def _give(client: EngineClient, places: dict[str, Address]) -> None:
    """Give an engine listening sockets; it holds duplicates, ours are closed."""
    with contextlib.ExitStack() as held:
        sockets = {name: held.enter_context(socket.socket()) for name in places}
        for name, sock in sockets.items():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(places[name].socket_address())
            sock.listen(4_096)
            sock.setblocking(False)
        await client.give_listeners(sockets)


def _catalog() -> tuple[OneEndpoint, ...]:
    """Return three endpoints of each service, all behind the far node."""
    return tuple(
        OneEndpoint(
            registration=f"{service}-{number}",
            service=f"shop/{service}",
            protocol=protocol,
            labels={},
            weight=100,
            health=EndpointHealth.PASSING,
            draining=False,
            node="far",
            address=_MESH,
            status=MemberStatus.ALIVE,
        )
        for service, protocol in _SERVICES
        for number in range(ENDPOINTS)
    )


def _far_inputs() -> SnapshotInputs:
    served = tuple(
        LocalService(one.registration, one.service, one.protocol, BACKEND, os.geteuid()) for one in _catalog()
    )
    policies = tuple(PolicyInput(_only_web(service), 1) for service, _ in _SERVICES)
    return _inputs("far", served, policies)


def _near_inputs() -> SnapshotInputs:
    upstreams = (("shop/cart", _HTTP), ("shop/db", _TCP))
    web = LocalService("web", "shop/web", "http", Address("127.0.0.1", 9), os.geteuid(), upstreams)
    return _inputs("near", (web,), ())


def _inputs(node: str, local: Sequence[LocalService], policies: Sequence[PolicyInput]) -> SnapshotInputs:
    served = serving(_catalog())
    return SnapshotInputs(TRUST_DOMAIN, node, tuple(local), served, tuple(policies), (), DEFAULT_LIMITS)


def _only_web(service: str) -> AccessPolicy:
    rule = AccessRuleSpec(from_=(AccessFrom(identities=(WEB,)),))
    spec = AccessPolicySpec(TargetRef(service), "Allow", (rule,))
    return AccessPolicy(API_VERSIONS["AccessPolicy"], Metadata(f"{service}-callers", "shop"), spec)
