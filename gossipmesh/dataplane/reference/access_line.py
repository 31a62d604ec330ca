"""The text of one access log line, composed of parts of which most are known from earlier lines.

One JSON object, Envoy's field names. Durations in milliseconds, sizes of bodies or, for TCP, of everything.
What a client chooses is cut at _TEXT_MAX characters.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.text import visible

_TEXT_MAX: Final = 1_024
_PARTS_MAX: Final = 1_024

_encode: Final[Callable[[object], bytes]] = msgspec.json.Encoder().encode


def access_line(entry: Entry, flags: str, duration_ns: int, started_wall_ns: int) -> str:
    """Return the line of a finished entry, without its line break."""
    seconds, rest_ns = divmod(started_wall_ns, SECOND_NS)
    head = entry.head
    if head is None:
        request = _NO_REQUEST
        user_agent = "null"
    else:
        path = _quoted_text(head.path[:_TEXT_MAX])
        request = f'"method":"{head.method}","path":{path},{_asked(head.host, head.version)}'
        user_agent = _text(head.get(b"user-agent"))
    details = _quoted_text(entry.details[:_TEXT_MAX])
    # Checked, or made here: nothing in it needs to be escaped.
    trace = "null" if entry.traceparent is None else f'"{entry.traceparent}"'
    parts = _parts(
        entry.route, entry.upstream, entry.upstream_host, entry.server_name, entry.caller, entry.callee
    )
    return (
        f'{{"start_time":"{_civil(seconds)}.{rest_ns // 1_000_000:03d}Z",'
        f'"direction":"{entry.direction}",{request},'
        f'"response_code":{entry.status},"response_flags":"{flags}","response_code_details":{details},'
        f'"bytes_received":{entry.received_bytes},"bytes_sent":{entry.sent_bytes},'
        f'"duration":{duration_ns / 1_000_000:.3f},'
        f"{parts},"
        f'"upstream_request_attempt_count":{entry.attempts},"downstream_remote_address":"{entry.remote}",'
        f'"user_agent":{user_agent},"traceparent":{trace}}}'
    )


_NO_REQUEST: Final = '"method":null,"path":null,"authority":null,"protocol":"TCP"'


@lru_cache(maxsize=16)  # lines that are written together mostly began in the same second
def _civil(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(maxsize=_PARTS_MAX)
def _asked(host: bytes, version: str) -> str:
    authority = host[:_TEXT_MAX].decode("latin-1")
    return _fields({"authority": authority, "protocol": f"HTTP/{version}"})


@lru_cache(maxsize=_PARTS_MAX)
def _text(value: bytes | None) -> str:
    return "null" if value is None else _quoted_text(value[:_TEXT_MAX].decode("latin-1"))


@lru_cache(maxsize=_PARTS_MAX)
def _parts(
    route: str, upstream: str, host: str | None, server_name: str | None, caller: str, callee: str | None
) -> str:
    return _fields(
        {
            "route_name": route,
            "upstream_cluster": upstream,
            "upstream_host": host,
            "requested_server_name": server_name,
            "downstream_peer_uri_san": caller,
            "upstream_peer_uri_san": callee,
        }
    )


def _fields(values: dict[str, str | None]) -> str:
    """Return the inside of a JSON object."""
    return _quoted(values)[1:-1]


def _quoted_text(text: str) -> str:
    """Return a text as JSON; mostly there is nothing to escape."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return _quoted(text)


def _quoted(value: object) -> str:
    """Return JSON; what moves a cursor is escaped as well, for lines are read on terminals."""
    return visible(_encode(value).decode())
