"""Names: trust domains, SPIFFE IDs, node ids, services.

Spec: SPIFFE-ID section 2. Deviation: only the paths this mesh issues are accepted
(`/node/NAME`, `/node/NAME/workloads`, `/ns/NAMESPACE/svc/SERVICE`, `/authority`), so that a typo cannot
become an identity.
"""

import hashlib
import re
from typing import Final, NewType

from gossipmesh.model.errors import MalformedInput

NodeId = NewType("NodeId", bytes)
"""First 16 bytes of SHA-256 over the node's SPIFFE ID: stable for the node's life."""

NODE_ID_BYTES: Final = 16
SHORT_ID_BYTES: Final = 8

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TRUST_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?")
_PATHS = re.compile(
    r"/authority|/node/(?P<node>[a-z0-9][a-z0-9-]{0,62})"
    r"|/node/(?P<host>[a-z0-9][a-z0-9-]{0,62})/workloads"
    r"|/ns/(?P<namespace>[a-z0-9][a-z0-9-]{0,62})/svc/(?P<service>[a-z0-9][a-z0-9-]{0,62})"
)


def is_label(text: str) -> bool:
    """Tell whether `text` may name a node, a namespace or a service (RFC 1123 label)."""
    return _LABEL.fullmatch(text) is not None


def is_trust_domain(text: str) -> bool:
    """Tell whether `text` may name a trust domain (SPIFFE-ID section 2.1)."""
    return _TRUST_DOMAIN.fullmatch(text) is not None


def node_spiffe_id(trust_domain: str, name: str) -> str:
    """Return the identity of the node called `name`."""
    return f"spiffe://{trust_domain}{node_path(name)}"


def workloads_spiffe_id(trust_domain: str, name: str) -> str:
    """Return the identity shared by the processes of no service on the node called `name`."""
    return f"spiffe://{trust_domain}{workloads_path(name)}"


def node_path(name: str) -> str:
    """Return the path of the identity of the node called `name`."""
    return f"/node/{name}"


def workloads_path(name: str) -> str:
    """Return the path of the identity shared by the processes of no service on a node."""
    return f"/node/{name}/workloads"


def service_path(service: str) -> str:
    """Return the path of the identity of `service`, written `namespace/name`."""
    namespace, _, name = service.partition("/")
    return f"/ns/{namespace}/svc/{name}"


def authority_spiffe_id(trust_domain: str) -> str:
    """Return the identity an authority's enrolment server presents."""
    return f"spiffe://{trust_domain}/authority"


def service_spiffe_id(trust_domain: str, service: str) -> str:
    """Return the identity of `service`, written `namespace/name`."""
    return f"spiffe://{trust_domain}{service_path(service)}"


def parse_spiffe_id(text: str) -> tuple[str, str]:
    """Split a SPIFFE ID into (trust domain, path).

    Raises:
        MalformedInput: not an identity of a form this mesh issues. State unchanged.
    """
    prefix = "spiffe://"
    domain, slash, path = text.removeprefix(prefix).partition("/")
    if not text.startswith(prefix) or not is_trust_domain(domain):
        raise MalformedInput(f"{text[:300]!r} is not a SPIFFE ID")
    if _PATHS.fullmatch(slash + path) is None:
        raise MalformedInput(f"{text[:300]!r} is no identity this mesh issues")
    return domain, slash + path


def service_of_spiffe_id(text: str) -> str | None:
    """Return `namespace/name` for a service's identity, None for any other."""
    return service_of_path(parse_spiffe_id(text)[1])


def service_of_path(path: str) -> str | None:
    """Return `namespace/name` for the path of a service's identity, None for any other text."""
    match = _PATHS.fullmatch(path)
    if match is None or match["service"] is None:
        return None
    return f"{match['namespace']}/{match['service']}"


def node_name_of_spiffe_id(text: str) -> str | None:
    """Return the node's name for a node's own identity, None for any other, its workloads' among them."""
    match = _PATHS.fullmatch(parse_spiffe_id(text)[1])
    return None if match is None else match["node"]


def host_name_of_spiffe_id(text: str) -> str | None:
    """Return whose workloads share this identity: the node's name; None for any other identity."""
    match = _PATHS.fullmatch(parse_spiffe_id(text)[1])
    return None if match is None else match["host"]


def node_id_of(spiffe_id: str) -> NodeId:
    """Return the stable id of the node with this SPIFFE ID."""
    return NodeId(hashlib.sha256(spiffe_id.encode()).digest()[:NODE_ID_BYTES])


def is_service_name(text: str) -> bool:
    """Tell whether `text` is a service written `namespace/name`."""
    namespace, slash, name = text.partition("/")
    return slash == "/" and is_label(namespace) and is_label(name)


def pattern_allows(pattern: str, service: str) -> bool:
    """Tell whether a credential's pattern (`shop/cart`, `shop/*`, `*/*`) covers `service`."""
    pattern_namespace, _, pattern_name = pattern.partition("/")
    namespace, _, name = service.partition("/")
    return pattern_namespace in ("*", namespace) and pattern_name in ("*", name)
