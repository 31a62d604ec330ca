"""Addresses as people write them and as the kernel tells them."""

import pytest

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.member import Address


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("10.0.0.1:80", "10.0.0.1"),
        ("[::1]:80", "::1"),
        ("[FD71:0:0:0:0:0:0:01]:80", "fd71::1"),  # else the engine's socket is not found again
    ],
)
def test_one_address_has_one_form(text: str, host: str) -> None:
    assert Address.parse(text) == Address(host, 80)


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1", "::1:80", "[10.0.0.1]:80", "host:80", "[::1]:x", "1.2.3.4:-1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput, match="is not ADDRESS:PORT"):
        Address.parse(text)
