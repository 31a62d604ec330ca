"""A scrape is read back as values, and what was turned away is found in it."""

import pytest
import trio

from gossipmesh.testing import scraping
from gossipmesh.testing.admin import AgentSilent
from gossipmesh.testing.scraping import samples_of, scrape, shed_counts

TEXT = b"""# HELP gossipmesh_requests_total Requests that ended.
# TYPE gossipmesh_requests_total counter
gossipmesh_requests_total{route="a\\"b",response_flags="UO"} 3.0
gossipmesh_requests_total{route="x",response_flags="UF,UO"} 2.0
gossipmesh_requests_total{route="x",response_flags=""} 100.0
gossipmesh_engine_events_total{name="local_told_full"} 5.0
gossipmesh_engine_events_total{name="mesh_evicted_unfinished"} 0.0
gossipmesh_engine_events_total{name="retries"} 9.0
gossipmesh_up 1
"""


def test_samples_have_names_labels_and_values() -> None:
    read = list(samples_of(TEXT))
    assert read[0] == ("gossipmesh_requests_total", {"route": 'a\\"b', "response_flags": "UO"}, 3.0)
    assert read[-1] == ("gossipmesh_up", {}, 1.0)
    assert len(read) == 7


def test_what_was_turned_away_is_added_up_by_name() -> None:
    assert shed_counts(samples_of(TEXT)) == {"gossipmesh_requests_total": 5.0, "local_told_full": 5.0}


async def answered(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> bytes:
    async def answers(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(answer)
        await stream.aclose()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    monkeypatch.setattr(scraping, "METRICS_PORT", listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answers, [listener])
        try:
            return await scrape("127.0.0.1")
        finally:
            nursery.cancel_scope.cancel()


async def test_the_head_of_an_answer_is_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    text = await answered(monkeypatch, b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + TEXT)
    assert text == TEXT


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b""])
async def test_what_is_no_scrape_is_silence(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(AgentSilent)):
        await answered(monkeypatch, answer)
