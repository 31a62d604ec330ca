"""What we ship as examples is what the readers take, and says the defaults it claims to say."""

import os
from pathlib import Path

import msgspec

from gossipmesh.agent.config import AgentSpec, parse_config_untrusted
from gossipmesh.agent.services.service_files import parse_service_untrusted

CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_annotated_configuration_says_the_defaults() -> None:
    path = CONFIGS / "agent.example.yaml"
    text = path.read_text()
    shown = parse_config_untrusted(text, path)
    bare = parse_config_untrusted("apiVersion: gossipmesh.dev/v1\nkind: AgentConfig\n", path)
    assert msgspec.structs.replace(shown, seeds=()) == bare
    for field in AgentSpec.__struct_fields__:
        assert f"{field}:" in text, field


def test_the_annotated_service_is_read() -> None:
    path = CONFIGS / "services.d" / "cart.example.yaml"
    text = path.read_text().replace("user: cart", f"user: {os.geteuid()}")
    entry = parse_service_untrusted(text, str(path))
    assert entry.service == "shop/cart"
    assert entry.upstreams[0][0] == "shop/db"
