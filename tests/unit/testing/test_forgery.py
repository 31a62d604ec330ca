"""Forged policy sets are refused for exactly the reason they were forged for."""

from collections.abc import Callable

import pytest

from gossipmesh.model.policy import Metadata, Subset, SubsetSpec
from gossipmesh.testing import forgery
from gossipmesh.trust.documents import PolicyRefusal, decode_policy_set_untrusted
from gossipmesh.trust.manifest import EMPTY_BASE, build_manifest, encode_documents, sign_set, upsert
from tests.unit.cli.fake_agent import POLICY_KEY, TRUST_DOMAIN, trusting_node


def real_set() -> bytes:
    subset = Subset("gossipmesh.dev/v1", Metadata("cart-v1", "shop"), SubsetSpec("cart", {"version": "v1"}))
    bodies = upsert(EMPTY_BASE, encode_documents([subset]), prune=False)
    manifest = build_manifest(EMPTY_BASE, bodies, trust_domain=TRUST_DOMAIN, scope="mesh", created=0)
    return sign_set(manifest, bodies, [POLICY_KEY]).policy_set.to_bytes()


def test_the_real_one_is_taken() -> None:
    assert trusting_node().check_untrusted(decode_policy_set_untrusted(real_set())).version == 1


@pytest.mark.parametrize(
    ("forge", "code"),
    [(forgery.tampered, "signature"), (forgery.unsigned, "unsigned"), (forgery.swapped_body, "hash")],
)
def test_a_forged_one_is_refused_for_its_own_reason(forge: Callable[[bytes], bytes], code: str) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        trusting_node().check_untrusted(decode_policy_set_untrusted(forge(real_set())))
    assert caught.value.code == code
