"""What a node asks for: refusals, and whether the names it wants are its own.

Ends at the names; whether the node is enrolled and holds its keys is `control.issuing`'s.
"""

from collections.abc import Sequence

from gossipmesh.model.enrolment import allows
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.identity import (
    node_spiffe_id,
    parse_spiffe_id,
    service_of_spiffe_id,
    workloads_spiffe_id,
)
from gossipmesh.trust.svid import CertificateRequest


class RequestRefused(Untrusted):
    """A request that is not granted; the sentence goes to the node. Remote's fault. State unchanged."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def split_allowed(
    services: tuple[str, ...], requests: Sequence[CertificateRequest]
) -> tuple[list[CertificateRequest], tuple[str, ...]]:
    """Return the requests without those for services that `services` does not allow, and these ones' names.

    Of the rest nothing is said: `check_names` judges it.
    """
    left_out = tuple(one.spiffe_id for one in requests[1:] if _is_beyond(services, one.spiffe_id))
    return [one for one in requests if one.spiffe_id not in left_out], left_out


def _is_beyond(services: tuple[str, ...], spiffe_id: str) -> bool:
    service = service_of_spiffe_id(spiffe_id)
    return service is not None and not allows(services, service)


def check_names(
    trust_domain: str, node: str, services: tuple[str, ...], requests: Sequence[CertificateRequest]
) -> None:
    """Check that the first request is for the node and each other for its workloads or a service of it.

    Raises:
        RequestRefused: another's name, a service `services` does not allow, or one name twice. State
            unchanged.
    """
    own = node_spiffe_id(trust_domain, node)
    names = [request.spiffe_id for request in requests]
    if names[0] != own:
        raise RequestRefused("identity", f"this token is for {own}, not for {names[0]}")
    if len(set(names)) != len(names):
        raise RequestRefused("malformed", "two certificate requests for one identity")
    for name in names[1:]:
        if name == workloads_spiffe_id(trust_domain, node):
            continue
        service = service_of_spiffe_id(name)
        foreign = parse_spiffe_id(name)[0] != trust_domain
        if service is None or foreign or not allows(services, service):
            allowed = ", ".join(services) or "none"
            raise RequestRefused("service", f"{node} may not be {name}; its token allows {allowed[:200]}")
