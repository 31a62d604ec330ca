"""Any agent takes a tombstone from its operator; what is wrong with one is said."""

import base64
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gossipmesh.agent.admin.admin_views import Parts
from gossipmesh.agent.admin.credential_offers import offer_credential
from gossipmesh.agent.admin.http_server import Refused
from gossipmesh.model.instant import Instant
from gossipmesh.model.records import SignedRecord
from gossipmesh.wire.codec import encode
from tests.unit.gossip.group import Group, key_of, signed_credential
from tests.unit.gossip.test_tombstones import gone_everywhere, mesh, signed, tombstone, tombstone_of


def parts_of(group: Group, name: str) -> Parts:
    def step(call: Any) -> None:
        group.perform(group.hosts[name], call(Instant(group.now)))

    node = group.node(name)
    return cast(Parts, SimpleNamespace(node=node, inputs=node, shell=SimpleNamespace(step=step)))


def body_of(record: SignedRecord) -> bytes:
    return json.dumps({"record": base64.b64encode(encode(record)).decode()}).encode()


def test_a_tombstone_is_taken_and_told_to_everybody() -> None:
    group = mesh("a b c")
    answer = offer_credential(parts_of(group, "b"), body_of(tombstone("a")))
    assert answer == {"node": "a", "generation": 2, "revoked": True, "news": True}
    group.run_until(lambda: gone_everywhere(group, "a"), 1)
    again = offer_credential(parts_of(group, "c"), body_of(tombstone("a")))
    assert again == {"node": "a", "generation": 2, "revoked": True, "news": False}


def test_a_later_credential_is_taken_as_well() -> None:
    answer = offer_credential(parts_of(mesh("a b"), "b"), body_of(signed_credential("a", serial=4)))
    assert answer == {"node": "a", "generation": 1, "revoked": False, "news": True}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "BASE64"),
        (b"\xff", "BASE64"),
        (b"[" * 5_000, "BASE64"),
        (b'{"record": "***"}', "BASE64"),
        (b'{"record": "\xc3\xa9"}', "BASE64"),
        (b'{"record": "", "more": 1}', "BASE64"),
        (b'{"record": ""}', "refused"),
        (body_of(SignedRecord(1, b"", b"")), "refused"),
        (body_of(signed(tombstone_of("a"), key_of("b"))), "not signed by any authority key"),
    ],
)
def test_what_is_no_credential_is_refused_with_its_reason(body: bytes, reason: str) -> None:
    group = mesh("a b")
    before = group.node("b").state_sums()
    with pytest.raises(Refused, match=reason) as refused:
        offer_credential(parts_of(group, "b"), body)
    assert (refused.value.status, refused.value.code) == (409, "credential")
    assert group.node("b").state_sums() == before
