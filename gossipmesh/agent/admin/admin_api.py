"""The admin API: reads and writes on agent.sock, reads on loopback.

Rules:
1. agent.sock is 0600 and its peer must be our own user or root, whatever the file's mode became.
2. On TCP there are only reads (the flight recorder's file is none of them), and only for a `Host` that is
   an address or localhost and no foreign `Origin`: a web page in somebody's browser must learn nothing here.
"""

import errno
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import trio

from gossipmesh.agent.admin import admin_views as views
from gossipmesh.agent.admin.admin_views import Parts
from gossipmesh.agent.admin.check_views import check, check_all
from gossipmesh.agent.admin.credential_offers import offer_credential
from gossipmesh.agent.admin.death_views import why
from gossipmesh.agent.admin.http_server import HttpServer, Refused, Request, Response, json_response
from gossipmesh.agent.state.flight_recorder import record
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.trust.documents import PolicyRefusal, decode_policy_set_untrusted
from gossipmesh.trust.envelope import decode_envelopes_untrusted
from gossipmesh.wire.codec import encode

_CREDENTIALS: Final = struct.Struct("3i")
_LOCAL_READS: Final = ("/v1/debug/record",)
_WRITTEN_S: Final = 3  # below what a command waits for an answer: it is to hear why there is none
_BACKLOG: Final = 4_096  # less where the kernel allows less; a client that finds it full is not connected
_UNIX_PATH_BYTES_MAX: Final = 107

Read = Callable[[Request], Any]
Write = Callable[[Request], Awaitable[Any]]


class AdminApi:
    """Answers requests from the agent's parts."""

    def __init__(
        self, parts: Parts, *, leave: Callable[[], Awaitable[None]], restart: Callable[[], Awaitable[None]]
    ) -> None:
        """`leave` drains this node and leaves the mesh, `restart` ends the agent and nothing else.

        Both return once members were told.
        """
        self._parts = parts
        self._leave = leave
        self._restart = restart
        self._reads: dict[str, Read] = {
            "/v1/status": lambda _: views.status(parts),
            "/v1/members": lambda _: views.members(parts),
            "/v1/services": lambda _: views.services(parts),
            "/v1/endpoints": lambda request: views.endpoints(parts, request.query.get("service")),
            "/v1/policy/list": lambda request: views.policy_documents(parts, _scope(request)),
            "/v1/policy/status": lambda _: views.policy_status(parts),
            "/v1/policy/set": self._read_policy_set,
            "/v1/trust": self._read_trust,
            "/v1/credentials": self._read_credentials,
            "/v1/proxy/snapshot": lambda _: views.snapshot(parts),
            "/v1/identity": lambda _: views.identities(parts),
            "/v1/keys": lambda _: views.keys(parts),
            "/v1/check/all": lambda _: check_all(parts),
            "/v1/why": lambda request: why(parts, request.query.get("node")),
        }
        self._slow_reads: dict[str, Write] = {
            "/v1/check": self._check,
            "/v1/debug/record": self._read_record,
        }
        self._writes: dict[str, Write] = {
            "/v1/policy/offer": self._offer_policy,
            "/v1/trust/offer": self._offer_trust,
            "/v1/roll/offer": self._offer_roll,
            "/v1/credentials": self._offer_credential,
            "/v1/members/ask": self._ask_members,
            "/v1/leave": self._leave_mesh,
            "/v1/restart": self._restart_agent,
            "/v1/release": self._release_retained,
            "/v1/release/alarms": self._release_alarms,
            "/v1/open": self._open_by_hand,
            "/v1/keys/turn": self._turn_keys,
            "/v1/engine/replace": self._replace_engine,
        }

    async def handle_local(self, request: Request) -> Response:
        """Answer what came by agent.sock: reads and writes."""
        uid = _CREDENTIALS.unpack(
            request.peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )[1]
        if uid not in (os.geteuid(), 0):
            raise Refused(403, "forbidden", f"user {uid} may not administer this agent; use its own or root")
        return await self._handle(request, writes=True)

    async def handle_remote(self, request: Request) -> Response:
        """Answer what came by TCP: reads."""
        if not _is_own_host(request.headers.get("host", "")):
            raise Refused(403, "host", "the Host header must be an address or localhost")
        origin = request.headers.get("origin")
        if origin is not None and not _is_own_host(origin.partition("://")[2]):
            raise Refused(403, "origin", "requests from web pages of other sites are refused")
        return await self._handle(request, writes=False)

    async def _handle(self, request: Request, *, writes: bool) -> Response:
        read, write = self._reads.get(request.path), self._writes.get(request.path)
        slow_read = self._slow_reads.get(request.path)
        if read is not None and request.method == "GET":
            answer = read(request)
        elif slow_read is not None and request.method == "GET":
            if request.path in _LOCAL_READS and not writes:
                raise Refused(403, "local", f"{request.path} is answered through agent.sock only")
            answer = await slow_read(request)
        elif write is not None and request.method == "POST":
            if not writes:
                raise Refused(403, "read-only", "changes are made through agent.sock only")
            answer = await write(request)
        elif read is None and slow_read is None and write is None:
            raise Refused(404, "not-found", f"there is nothing at {request.path[:200]}")
        else:
            raise Refused(405, "method", f"{request.path} takes {'POST' if write else 'GET'}")
        return answer if isinstance(answer, Response) else json_response(answer)

    def _read_policy_set(self, request: Request) -> Response:
        scope = _scope(request)
        accepted = self._parts.documents.in_force(scope)
        if accepted is None:
            raise Refused(404, "no-policy", f"no policy is in force in the scope {scope[:80]!r}")
        return Response(accepted.raw.to_bytes(), "application/octet-stream")

    async def _check(self, _: Request) -> Any:
        return await check(self._parts)

    async def _read_record(self, _: Request) -> Response:
        recorder = self._parts.recorder
        if recorder is None:
            raise Refused(404, "no-recorder", "the flight recorder is off; set spec.flightRecorder to true")
        identity = self._parts.identity.identity
        data = await record(recorder, self._parts.node, identity, self._parts.build)
        return Response(data, "application/octet-stream")

    async def _offer_policy(self, request: Request) -> Any:
        try:
            policy_set = decode_policy_set_untrusted(request.body)
        except MalformedInput as error:
            raise Refused(409, "malformed", f"not a policy set: {error}") from None
        try:
            self._parts.shell.step(lambda now: self._parts.inputs.offer_policy(policy_set, now))
        except PolicyRefusal as refusal:
            raise Refused(409, refusal.code, f"the policy set is refused: {refusal.reason}") from None
        with trio.move_on_after(_WRITTEN_S):
            await self._parts.shell.writer.wait_told()
        for scope in self._parts.documents.scopes():
            held = self._parts.documents.in_force(scope)
            if held is not None and held.raw == policy_set:
                return {"scope": scope, "version": held.version, "hash": held.manifest_hash.hex()}
        raise Refused(
            503,
            "not-in-force",
            f"the policy set is good and not in force here after {_WRITTEN_S} s: this node's disk has not "
            "taken it yet, or a newer set overtook it; see `gossipmesh policy status`, and to that disk",
        )

    def _read_credentials(self, _: Request) -> Response:
        return Response(encode(list(self._parts.node.each_credential())), "application/octet-stream")

    def _read_trust(self, _: Request) -> Response:
        return Response(encode(self._parts.documents.trust_envelopes), "application/octet-stream")

    async def _offer_trust(self, request: Request) -> Any:
        try:
            for envelope in decode_envelopes_untrusted(request.body):
                self._parts.shell.step(partial(self._parts.inputs.offer_trust, envelope))
        except MalformedInput as error:
            raise Refused(409, "trust", f"that Trust is refused: {error}") from None
        with trio.move_on_after(_WRITTEN_S):
            await self._parts.shell.writer.wait_told()
        trust = self._parts.documents.trust
        return {"version": 0 if trust is None else trust.version}

    async def _offer_roll(self, request: Request) -> Any:
        try:
            self._parts.shell.step(partial(self._parts.inputs.offer_roll, request.body))
        except MalformedInput as error:
            raise Refused(409, "roll", f"that piece of the roll is refused: {error}") from None
        return {"missing": self._parts.node.roll_missing_count}

    async def _offer_credential(self, request: Request) -> Any:
        return offer_credential(self._parts, request.body)

    async def _ask_members(self, _: Request) -> Any:
        self._parts.shell.step(self._parts.inputs.ask_members)
        return {"asked": True}

    async def _leave_mesh(self, _: Request) -> Any:
        await self._leave()
        return {"left": True}

    async def _release_alarms(self, _: Request) -> Any:
        alarms = self._parts.documents.alarms
        released = alarms.kept
        for one in released:
            alarms.forget(one)
        return {"released": len(released)}

    async def _release_retained(self, _: Request) -> Any:
        released = self._parts.node.tally().endpoints_retained_count
        self._parts.shell.step(self._parts.inputs.release_mass_death)
        return {"released": released}

    async def _open_by_hand(self, _: Request) -> Any:
        gate = self._parts.gate
        why = gate.why
        self._parts.shell.step(self._parts.inputs.open_by_hand)
        with trio.move_on_after(_WRITTEN_S):
            await self._parts.shell.writer.wait_told()
        if gate.is_closed:
            raise Refused(
                503,
                "not-open",
                f"this node is to be opened and is not after {_WRITTEN_S} s: its disk has not taken it yet; "
                "see to that disk, it opens as soon as it can",
            )
        return {"opened": bool(why), "was_closed": why}

    async def _turn_keys(self, request: Request) -> Any:
        self._parts.identity.keys.ask_turn(stolen=request.query.get("stolen") == "true")
        return views.keys(self._parts)

    async def _replace_engine(self, _: Request) -> Any:
        try:
            return msgspec.structs.asdict(await self._parts.engine.replace())
        except OperatorError as error:
            raise Refused(409, "engine", str(error)) from None

    async def _restart_agent(self, _: Request) -> Any:
        await self._restart()
        return {"restarting": True}


def listen_local(path: Path, handler: Callable[[Request], Awaitable[Response]]) -> HttpServer:
    """Return a server on the Unix socket `path`, 0600; one left by a killed agent is replaced.

    Raises:
        OperatorError: the path is too long or taken by something else. State unchanged.
    """
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES_MAX:
        raise OperatorError(
            f"the socket path {path} is longer than {_UNIX_PATH_BYTES_MAX} bytes; use a shorter spec.stateDir"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "it exists and is no socket")
        path.unlink(missing_ok=True)
        previous = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OperatorError(
            f"cannot listen on {path}: {error.strerror}; remove it or change spec.stateDir"
        ) from None
    return HttpServer(listener, handler)


def _scope(request: Request) -> str:
    return request.query.get("scope", "mesh")


def _is_own_host(text: str) -> bool:
    """Tell whether a Host (or an Origin's authority) is an address or localhost: no name DNS could rebind."""
    try:
        host = urlsplit(f"//{text}").hostname or ""
        return host == "localhost" or bool(ipaddress.ip_address(host))
    except ValueError:
        return False
