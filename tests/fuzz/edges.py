"""Targets at the mesh's edges: HTTP heads, paths, and the files operators write."""

import json
from pathlib import Path

import msgspec

from gossipmesh.agent.config import parse_config_untrusted
from gossipmesh.agent.services.service_files import parse_service_untrusted
from gossipmesh.dataplane.reference.http1 import (
    OUTER_LIMITS,
    check_head_start_untrusted,
    parse_request_untrusted,
    parse_response_untrusted,
)
from gossipmesh.model.durations import parse_duration_untrusted
from gossipmesh.model.enrolment import JoinToken, decode_token_untrusted
from gossipmesh.traffic.decide import decide_untrusted
from gossipmesh.traffic.paths import matched_path_untrusted, without_parameters
from tests.fuzz.decoders import Target

ROOT = Path(__file__).resolve().parent.parent.parent
VECTORS = ROOT / "spec" / "engine" / "v1-draft" / "decisions"

REQUESTS = [
    b"GET /a/b?x=1 HTTP/1.1\r\nHost: cart.shop\r\nAccept: */*\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: cart.shop:80\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    b"PUT /x HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    b"GET http://cart.shop/x HTTP/1.1\r\nHost: cart.shop\r\n\r\n",
    b"CONNECT cart.shop:80 HTTP/1.1\r\nHost: cart.shop:80\r\n\r\n",
    b"GET http://cart.shop/x HTTP/1.0\r\nTE: trailers\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a.b\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
    b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    b"HTTP/1.0 503 Nope\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
]
SERVICE = """\
apiVersion: gossipmesh.dev/v1
kind: Service
metadata: {name: cart, namespace: shop, labels: {version: "2"}}
spec:
  protocol: http
  address: 127.0.0.1:8080
  user: root
  checks: [{http: /healthz, interval: 2s, timeout: 1s}]
"""

CONFIG = """\
apiVersion: gossipmesh.dev/v1
kind: AgentConfig
spec:
  stateDir: state
  servicesDir: /etc/gossipmesh/services.d
  seeds: [10.0.0.1:7948]
  gossip: {bind: 0.0.0.0:7948, advertise: 10.0.0.2:7948}
  mesh: {bind: 0.0.0.0:15008}
  proxy: {bind: 127.0.0.1:15080}
  logLevel: info
"""


def feed_request(data: bytes) -> tuple[int, int]:
    """Heads end with their empty line, as the engine hands them over."""
    head, found, _ = data.partition(b"\r\n\r\n")
    if data:
        check_head_start_untrusted(data, len(data) // 2, OUTER_LIMITS)
    request = parse_request_untrusted(head + b"\r\n\r\n" if head else b"G")
    assert not (request.chunked and request.content_length is not None), "two ways to find the body's end"
    assert request.host or request.version == "1.0", "no host"
    assert all(b"\r" not in value and b"\n" not in value for _, value in request.headers)
    return 0, int(bool(found))


def feed_response(data: bytes) -> tuple[int, int]:
    head, found, _ = data.partition(b"\r\n\r\n")
    response = parse_response_untrusted(head + b"\r\n\r\n" if head else b"H")
    assert not (response.chunked and response.content_length is not None), "two ways to find the body's end"
    return 0, int(bool(found))


def feed_path(text: str) -> tuple[int, int]:
    path = matched_path_untrusted(text)
    assert "/../" not in f"{without_parameters(path)}/", "a way up"
    assert not path.startswith("//"), "another host"
    return 0, int(matched_path_untrusted(path) == path)


def feed_duration(text: str) -> tuple[int, int]:
    return 0, int(parse_duration_untrusted(text) >= 0)


def feed_service(text: str) -> tuple[int, int]:
    return 0, int(bool(parse_service_untrusted(text, "fuzz.yaml").service))


def feed_config(text: str) -> tuple[int, int]:
    return 0, int(parse_config_untrusted(text, Path("/fuzz.yaml")) is not None)


def feed_token(data: bytes) -> tuple[int, int]:
    return 0, int(bool(decode_token_untrusted(data).node))


def feed_question(text: str) -> tuple[int, int]:
    try:
        question = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return 0, 0
    decide_untrusted(question)
    return 0, 1


def edge_targets() -> list[Target]:
    """Return every target of this module."""
    token = JoinToken(
        1, "mesh.test", "10.0.0.9:7443", "i1", "pem", "ab" * 32, "t1", "n1", ("shop/*",), "cd" * 32, 1
    )
    newer = msgspec.structs.replace(
        token, version=2, more_authorities=("authority.test:7443",), trust_version=3, trust_sha256="ef" * 32
    )
    tokens = (token, newer)
    paths = ["/a/b?x=1", "/a/%2e%2e/b", "/a//b/./c", "*", "/caf%C3%A9", "/a;v=1/..;/b", "/a%20;x/%c0%ae"]
    questions = [text for file in sorted(VECTORS.glob("*.json")) for text in _questions(file)]
    return [
        Target("http-request", 25, "bytes", REQUESTS, feed_request, 0, 1),
        Target("http-response", 20, "bytes", RESPONSES, feed_response, 0, 1),
        Target("path", 20, "text", paths, feed_path, 0, 1),
        Target("duration", 10, "text", ["10s", "1h30m", "250ms", "0s"], feed_duration, 0, 1),
        Target("service-file", 10, "text", [SERVICE], feed_service, 0, 1),
        Target("agent-config", 5, "text", [CONFIG], feed_config, 0, 1),
        Target("token", 10, "json", [msgspec.json.encode(one) for one in tokens], feed_token, 0, 1),
        Target("decision", 15, "text", questions, feed_question, 0, 1),
    ]


def _questions(file: Path) -> list[str]:
    document = json.loads(file.read_text())
    kind, common = document["kind"], document["common"]
    return [
        json.dumps({"kind": kind, "input": {**common, **vector["input"]}}) for vector in document["vectors"]
    ][:20]
