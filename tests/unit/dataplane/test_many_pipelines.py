"""Many connections with many requests in hand each: what a pass of the loop does is bounded."""

from pathlib import Path
from typing import Any

import pytest
import trio

from gossipmesh.dataplane.reference import service
from tests.unit.dataplane.engine_kit import answering, cart_pair, get, workload
from tests.unit.net.fairness import Witness

CONNECTIONS = 40
_LINE = b"GET /%s HTTP/1.1\r\nHost: nobody\r\n\r\n"


async def _flood(near: Any, data: bytes) -> None:
    address = near.at("proxy")
    stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        while await stream.receive_some():
            pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("data", "share_max"),
    [(_LINE % b"" * 1_500, 3.0), ((_LINE % (b"%61" * 15_000)) * 2, 0.5)],
    ids=["tiny", "large"],
)
async def test_pipelines_of_many_connections_add_up_to_little_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, share_max: float
) -> None:
    witness, parse = Witness(), service.parse_request_untrusted

    def counted(*words: Any) -> Any:
        witness.worked()
        return parse(*words)

    async with workload(answering()) as cart, cart_pair(tmp_path, cart) as (near, _far):
        monkeypatch.setattr(service, "parse_request_untrusted", counted)
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(_flood, near, data)
            async with trio.open_nursery() as watching:
                watching.start_soon(witness.watch)
                while witness.pieces_count < 2 * CONNECTIONS:
                    await trio.lowlevel.checkpoint()
                # All have begun: what each brings from now on waits for its turn.
                witness.gap_max = 0
                for _ in range(3):
                    assert (await get(near.at("proxy")))[0] == 200
                watching.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
    assert witness.gap_max <= share_max * CONNECTIONS
