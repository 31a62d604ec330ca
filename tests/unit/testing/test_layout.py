"""What the launcher writes is what the product reads, and the layout survives any one node."""

import json
from collections import Counter
from pathlib import Path

import pytest

from gossipmesh.agent.config import read_config
from gossipmesh.agent.services.service_files import ServicesFolder
from gossipmesh.cli.policy_files import find_files, load_files
from gossipmesh.testing import layout


@pytest.mark.parametrize("dead", [node.name for node in layout.five_nodes().nodes])
def test_every_service_outlives_any_one_node(dead: str) -> None:
    serving = Counter(
        (service.name, service.version)
        for node in layout.five_nodes().nodes
        if node.name != dead
        for service in node.services
    )
    assert serving.keys() == {("web", "v1"), ("cart", "v1"), ("cart", "v2"), ("db", "v1")}


def test_what_the_canary_routes_to_is_there_though_any_one_node_dies() -> None:
    nodes = layout.everywhere_canary().nodes
    for dead in nodes:
        left = {(one.name, one.version) for node in nodes if node is not dead for one in node.services}
        assert left == {("web", "v1"), ("cart", "v1"), ("cart", "v2")}


def test_the_agent_reads_the_configuration_written_for_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    layout.write_document(
        path, layout.agent_config("127.71.0.3", tmp_path, tmp_path / "token", ["127.71.0.1:7948"])
    )
    config = read_config(path)
    assert config.state_dir == tmp_path / "state"
    assert str(config.gossip_bind) == "127.71.0.3:7948"
    assert [str(seed) for seed in config.seeds] == ["127.71.0.1:7948"]


def test_the_agent_reads_the_service_files_written_for_it(tmp_path: Path) -> None:
    services = {service for node in layout.five_nodes().nodes for service in node.services}
    for service in services - {layout.CART_V2}:
        layout.write_document(tmp_path / service.file_name, layout.service_file(service, "127.71.0.3"))
    folder = ServicesFolder(tmp_path)
    assert folder.scan()
    assert folder.problems == {}
    found = {entry.service: entry for entry in folder.registrations()}
    assert found.keys() == {"shop/cart", "shop/db", "shop/web"}
    assert dict(found["shop/cart"].labels) == {"version": "v1"}
    ((upstream, bind),) = found["shop/web"].upstreams
    assert upstream == "shop/cart"
    assert f"http://{bind}" in layout.workload_arguments(layout.WEB, "node3", "127.71.0.3")


def test_the_canary_is_policy_without_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "canary.yaml"
    layout.write_policy(path, layout.canary(90, 10))
    loaded = load_files(find_files([str(path)]))
    assert not loaded.problems
    assert len(loaded.documents) == 3


def test_a_document_appears_whole(tmp_path: Path) -> None:
    """The agent polls the folder: it must never read half a file."""
    path = tmp_path / "a.yaml"
    layout.write_document(path, {"a": 1})
    layout.write_document(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.yaml"]
