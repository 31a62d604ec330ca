"""Each identity of a mesh is of one kind, and no helper takes one kind for another."""

import pytest

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import (
    authority_spiffe_id,
    host_name_of_spiffe_id,
    node_name_of_spiffe_id,
    node_spiffe_id,
    parse_spiffe_id,
    service_of_path,
    service_of_spiffe_id,
    service_path,
    service_spiffe_id,
    workloads_path,
    workloads_spiffe_id,
)

DOMAIN = "mesh.example"


@pytest.mark.parametrize(
    ("identity", "node", "host", "service"),
    [
        (node_spiffe_id(DOMAIN, "vm1"), "vm1", None, None),
        (workloads_spiffe_id(DOMAIN, "vm1"), None, "vm1", None),
        (service_spiffe_id(DOMAIN, "shop/cart"), None, None, "shop/cart"),
        (authority_spiffe_id(DOMAIN), None, None, None),
    ],
)
def test_an_identity_is_of_one_kind(
    identity: str, node: str | None, host: str | None, service: str | None
) -> None:
    assert parse_spiffe_id(identity)[0] == DOMAIN
    assert node_name_of_spiffe_id(identity) == node
    assert host_name_of_spiffe_id(identity) == host
    assert service_of_spiffe_id(identity) == service


@pytest.mark.parametrize(
    "path",
    ["/node/vm1/", "/node/vm1/workload", "/node/vm1/workloads/", "/node//workloads", "/node/-vm/workloads"],
)
def test_a_path_this_mesh_does_not_issue_is_no_identity(path: str) -> None:
    with pytest.raises(MalformedInput, match="no identity this mesh issues"):
        parse_spiffe_id(f"spiffe://{DOMAIN}{path}")


def test_paths_are_those_of_the_identities() -> None:
    assert parse_spiffe_id(workloads_spiffe_id(DOMAIN, "vm1"))[1] == workloads_path("vm1")
    assert parse_spiffe_id(service_spiffe_id(DOMAIN, "shop/cart"))[1] == service_path("shop/cart")
    assert service_of_path(service_path("shop/cart")) == "shop/cart"
    assert [service_of_path(text) for text in ("/node/vm1", "shop/cart", "", "/ns/shop/svc/")] == [None] * 4
