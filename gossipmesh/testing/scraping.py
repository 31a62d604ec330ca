"""What a node's /metrics says, as values: Prometheus's text format, read back."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

import trio

from gossipmesh.testing.admin import AgentSilent
from gossipmesh.testing.layout import METRICS_PORT

_SAMPLE: Final = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
TIMEOUT_S: Final = 15.0

Sample = tuple[str, dict[str, str], float]


async def scrape(host: str) -> bytes:
    """Return /metrics of a node, read once as Prometheus does; AgentSilent when that is not what comes."""
    try:
        with trio.fail_after(TIMEOUT_S):
            async with await trio.open_tcp_stream(host, METRICS_PORT) as stream:
                await stream.send_all(b"GET /metrics HTTP/1.1\r\nhost: metrics\r\nconnection: close\r\n\r\n")
                answer = b"".join([part async for part in stream])
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        raise AgentSilent(f"no answer from {host} to a scrape: {error!r}") from error
    if not answer.startswith(b"HTTP/1.1 200"):
        raise AgentSilent(f"a scrape of {host} was answered with {answer[:100]!r}")
    return answer.partition(b"\r\n\r\n")[2]


def samples_of(answer: bytes) -> Iterator[Sample]:
    """Return (name, labels, value) of every sample in a scrape."""
    for line in answer.decode().splitlines():
        found = _SAMPLE.fullmatch(line)
        if found is not None:
            name, labels, value = found.groups()
            yield name, dict(_LABEL.findall(labels or "")), float(value)


def shed_counts(samples: Iterable[Sample]) -> dict[str, float]:
    """Return everything a node says it turned away for lack of room, by the name it counts it under."""
    counts: dict[str, float] = {}
    for name, labels, value in samples:
        if name == "gossipmesh_engine_events_total":
            what = labels["name"]
            if any(word in what for word in ("refused", "told", "evicted", "shed")):
                counts[what] = counts.get(what, 0) + value
        elif "UO" in labels.get("response_flags", "").split(",") and name.endswith("_total"):
            counts[name] = counts.get(name, 0) + value
    return {name: value for name, value in counts.items() if value}
