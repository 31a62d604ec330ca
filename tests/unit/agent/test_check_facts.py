"""What checks ask of the machine is read as the kernel says it."""

import socket
from collections.abc import Iterator

import pytest

from gossipmesh.agent.check_facts import listening_addresses
from gossipmesh.agent.process_usage import usage_of
from gossipmesh.model.member import Address


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1", "::"])
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as server:
        yield request.param, server.getsockname()[1]


def test_listening_addresses_are_read_as_they_are(listener: tuple[str, int]) -> None:
    assert Address(*listener) in listening_addresses()


def test_a_process_that_is_not_there_uses_nothing() -> None:
    assert usage_of(None) == (0, 0.0)
    assert usage_of(2**22 + 1) == (0, 0.0)
