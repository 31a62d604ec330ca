"""Work per turn in the small servers: a body of tiny chunks that has come whole lets others run."""

from typing import Any, cast

import h11

from gossipmesh.agent.admin.http_server import _receive_untrusted
from gossipmesh.control.server import _read_request
from gossipmesh.model import limits
from tests.unit.net.fairness import watched

CALLS_MAX = limits.TURN_BYTES_MAX // limits.TURN_CALL_BYTES
COUNT = 10_000
REQUEST = (
    b"POST /v1/enrol HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\na\r\n" * COUNT
    + b"0\r\n\r\n"
)


class Arrived:
    """A stream of which everything has come, and which makes nobody wait."""

    def __init__(self) -> None:
        self._data = REQUEST

    async def receive_some(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data

    @property
    def socket(self) -> Any:
        return self

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 1


async def test_the_authority_reads_tiny_chunks_in_turns() -> None:
    async with watched() as witness:
        _method, _target, body = await _read_request(cast(Any, Arrived()), h11.Connection(h11.SERVER))
        assert len(body) == COUNT
        assert witness.runs_count >= COUNT // (2 * CALLS_MAX)


async def test_the_admin_server_reads_tiny_chunks_in_turns() -> None:
    async with watched() as witness:
        request = await _receive_untrusted(cast(Any, Arrived()), h11.Connection(h11.SERVER))
        assert request is not None
        assert len(request.body) == COUNT
        assert witness.runs_count >= COUNT // (2 * CALLS_MAX)
