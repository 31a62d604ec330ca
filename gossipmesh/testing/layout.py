"""What a mesh under test consists of: nodes, their addresses, and the services on each, as values.

The layout used throughout keeps a healthy endpoint of every service when any one node dies.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

GOSSIP_PORT: Final = 7948
MESH_PORT: Final = 15008
PROXY_PORT: Final = 15080
API_PORT: Final = 15000
METRICS_PORT: Final = 15020
READINESS_PORT: Final = 15021
AUTHORITY_PORT: Final = 8443
UPSTREAM_PORT: Final = 15400
AUTHORITY_NODE: Final = 250
TRUST_DOMAIN: Final = "mesh.test"
NAMESPACE: Final = "shop"
WORKLOAD_PORTS: Final = {"web": 8080, "cart": 8081, "db": 8082}
CHECK_INTERVAL: Final = "1s"


class ServiceLayout(msgspec.Struct, frozen=True):
    """One workload behind a node: `upstream` is the service it asks before it answers, or None."""

    name: str
    version: str
    protocol: str
    upstream: str | None = None

    @property
    def port(self) -> int:
        """Return the port the workload listens on."""
        return WORKLOAD_PORTS[self.name]

    @property
    def file_name(self) -> str:
        """Return the name of its file in services.d."""
        return f"{self.name}-{self.version}.yaml"


class NodeLayout(msgspec.Struct, frozen=True):
    """A node: its name, its number (the last byte of its address) and what runs on it at the start."""

    name: str
    number: int
    services: tuple[ServiceLayout, ...]


class MeshLayout(msgspec.Struct, frozen=True):
    """A whole mesh; `gossip` and the like are fixed ports on each node's own address."""

    nodes: tuple[NodeLayout, ...]

    def node(self, name: str) -> NodeLayout:
        """Return the node called `name`."""
        return next(node for node in self.nodes if node.name == name)


WEB: Final = ServiceLayout("web", "v1", "http", upstream="cart")
CART_V1: Final = ServiceLayout("cart", "v1", "http", upstream="db")
CART_V2: Final = ServiceLayout("cart", "v2", "http", upstream="db")
DB: Final = ServiceLayout("db", "v1", "tcp")
PROTOCOLS: Final = {"web": "http", "cart": "http", "db": "tcp"}


def five_nodes() -> MeshLayout:
    """Return the layout of the demo: web -> cart v1 and v2 -> db, each on two nodes."""
    services = ((WEB,), (WEB, CART_V1), (CART_V1,), (CART_V2, DB), (CART_V2, DB))
    return MeshLayout(tuple(NodeLayout(f"node{n}", n, services[n - 1]) for n in range(1, 6)))


LONE_WEB: Final = ServiceLayout("web", "v1", "http")
LONE_CART: Final = ServiceLayout("cart", "v1", "http")


def everywhere() -> MeshLayout:
    """Return five nodes that each run web and cart, which ask nobody: any node can serve itself."""
    return MeshLayout(tuple(NodeLayout(f"node{n}", n, (LONE_WEB, LONE_CART)) for n in range(1, 6)))


def everywhere_canary() -> MeshLayout:
    """Return the same, with either version of cart on every other node: what `canary` routes to is there."""
    carts = (LONE_CART, msgspec.structs.replace(LONE_CART, version="v2"))
    return MeshLayout(tuple(NodeLayout(f"node{n}", n, (LONE_WEB, carts[n % 2])) for n in range(1, 6)))


def everywhere_tcp() -> MeshLayout:
    """Return the same, with the TCP service db on every node too."""
    return MeshLayout(tuple(NodeLayout(f"node{n}", n, (LONE_WEB, LONE_CART, DB)) for n in range(1, 6)))


def one_endpoint() -> MeshLayout:
    """Return three nodes of which the second alone runs web, which asks nobody."""
    services: tuple[tuple[ServiceLayout, ...], ...] = ((), (LONE_WEB,), (LONE_CART,))
    return MeshLayout(tuple(NodeLayout(f"node{n}", n, services[n - 1]) for n in range(1, 4)))


def ten_nodes() -> MeshLayout:
    """Return ten nodes, web on the odd ones and cart on the even ones, which ask nobody."""
    services = (LONE_CART, LONE_WEB)
    return MeshLayout(tuple(NodeLayout(f"node{n}", n, (services[n % 2],)) for n in range(1, 11)))


def lone_services() -> MeshLayout:
    """Return five nodes of which the second alone runs web and the third alone cart, which ask nobody."""
    services: tuple[tuple[ServiceLayout, ...], ...] = ((), (LONE_WEB,), (LONE_CART,), (), ())
    return MeshLayout(tuple(NodeLayout(f"node{n}", n, services[n - 1]) for n in range(1, 6)))


LAYOUTS: Final = {
    "demo": five_nodes,
    "everywhere": everywhere,
    "everywhere-canary": everywhere_canary,
    "everywhere-tcp": everywhere_tcp,
    "one-endpoint": one_endpoint,
    "lone-services": lone_services,
    "ten": ten_nodes,
}


def service_file(service: ServiceLayout, node_host: str) -> dict[str, Any]:
    """Return the document for services.d that declares `service` on the node at `node_host`."""
    check = {"http": "/healthz"} if service.protocol == "http" else {"tcp": f"{node_host}:{service.port}"}
    upstreams = []
    if service.upstream is not None:
        upstreams.append({"service": service.upstream, "bind": f"{node_host}:{upstream_port(service.name)}"})
    return {
        "apiVersion": "gossipmesh.dev/v1",
        "kind": "Service",
        "metadata": {"name": service.name, "namespace": NAMESPACE, "labels": {"version": service.version}},
        "spec": {
            "address": f"{node_host}:{service.port}",
            "protocol": service.protocol,
            "checks": [{**check, "interval": CHECK_INTERVAL, "timeout": "1s"}],
            "upstreams": upstreams,
        },
    }


def upstream_port(caller: str) -> int:
    """Return the local port through which the service `caller` reaches its upstream."""
    return UPSTREAM_PORT + sorted(WORKLOAD_PORTS).index(caller)


def workload_arguments(service: ServiceLayout, node_name: str, node_host: str) -> list[str]:
    """Return the arguments of `gossipmesh.testing.workload` for `service` on a node."""
    arguments = ["--name", service.name, "--version", service.version, "--node", node_name]
    arguments += [f"--{service.protocol}", f"{node_host}:{service.port}"]
    if service.upstream is not None:
        scheme = PROTOCOLS[service.upstream]
        arguments += ["--upstream", f"{scheme}://{node_host}:{upstream_port(service.name)}"]
    return arguments


def agent_config(
    node_host: str,
    directory: Path,
    token_file: Path,
    seeds: list[str],
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the configuration file of one agent, all its ports on its own address, and `extra` keys."""

    def bind(port: int) -> dict[str, str]:
        return {"bind": f"{node_host}:{port}"}

    return {
        "apiVersion": "gossipmesh.dev/v1",
        "kind": "AgentConfig",
        "spec": {
            "stateDir": str(directory / "state"),
            "servicesDir": str(directory / "services.d"),
            "tokenFile": str(token_file),
            "seeds": seeds,
            "gossip": bind(GOSSIP_PORT),
            "mesh": bind(MESH_PORT),
            "proxy": bind(PROXY_PORT),
            "api": bind(API_PORT),
            "metrics": bind(METRICS_PORT),
            "readiness": bind(READINESS_PORT),
            **extra,
        },
    }


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write `document` as YAML (its JSON subset), whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    temporary.chmod(0o644)  # an agent takes no file that a group may write, whatever the umask here
    temporary.rename(path)


def canary(v1_weight: int, v2_weight: int) -> list[dict[str, Any]]:
    """Return the documents that split requests for cart between its two versions."""

    def subset(version: str) -> dict[str, Any]:
        return {
            "apiVersion": "gossipmesh.dev/v1",
            "kind": "Subset",
            "metadata": {"name": f"cart-{version}", "namespace": NAMESPACE},
            "spec": {"service": "cart", "labels": {"version": version}},
        }

    def backend(version: str, weight: int) -> dict[str, Any]:
        return {"group": "gossipmesh.dev", "kind": "Subset", "name": f"cart-{version}", "weight": weight}

    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "cart", "namespace": NAMESPACE},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "cart"}],
            "rules": [
                {
                    "backendRefs": [backend("v1", v1_weight), backend("v2", v2_weight)],
                    "timeouts": {"request": "5s", "backendRequest": "1s"},
                    "retry": {"codes": [503], "attempts": 3},
                }
            ],
        },
    }
    return [subset("v1"), subset("v2"), route]


def write_policy(path: Path, documents: list[dict[str, Any]]) -> None:
    """Write policy documents as one YAML file, ready for `policy push -f`."""
    path.write_text("".join(f"---\n{json.dumps(document, indent=2)}\n" for document in documents))
