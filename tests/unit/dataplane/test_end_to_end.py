"""Two engines back to back: a request goes out of one, into the other, and its answer comes back."""

from pathlib import Path

from tests.unit.dataplane.engine_kit import answering, cart_pair, get, workload


async def test_request_crosses_two_engines_over_mtls(tmp_path: Path) -> None:
    seen: list[bytes] = []
    async with workload(answering(seen=seen)) as address, cart_pair(tmp_path, address) as (near, _far):
        status, head, body = await get(near.at("proxy"), extra="X-Forwarded-Client-Cert: By=me\r\n")
        assert (status, body) == (200, b"hello"), head
    assert (
        b"x-forwarded-client-cert: By=spiffe://mesh.test/ns/shop/svc/cart;URI=spiffe://mesh.test/node/near"
        in seen[0]
    )
    assert b"By=me" not in seen[0]
    assert b"traceparent: 00-" in seen[0]
