"""A small engine that imports nothing of this project: written from `spec/engine` and docs/ENGINE.md alone.

It attaches, takes snapshots, and serves services of its own node over plain HTTP; it speaks no TLS, and so is
nobody's callee. `CLAIMS` are the vectors it is held to.
"""

import array
import hashlib
import json
import os
import random
import signal
import socket
import ssl
import struct
import sys
import threading

import words

CLAIMS = [
    "decisions/route/*", "decisions/authorize/*", "decisions/no question/*", "frames/*",
    "transcripts/attach/hello*", "transcripts/attach/a hello*", "transcripts/attach/a new agent*",
    "transcripts/attach/traffic*", "transcripts/attach/who says*", "transcripts/attach/a service*",
    "transcripts/attach/a request*", "transcripts/attach/without*", "transcripts/snapshot/lacking*",
    "transcripts/snapshot/what is in force*", "transcripts/snapshot/without*",
    "transcripts/snapshot/a section supplied*", "transcripts/snapshot/a section with bytes*",
    "transcripts/snapshot/a section that is cut", "transcripts/snapshot/a version*",
    "transcripts/snapshot/a kind*", "transcripts/snapshot/pins without*",
    "transcripts/snapshot/new routes*", "transcripts/snapshot/identities*",
    "transcripts/listeners/taken*", "transcripts/listeners/fixed*", "transcripts/listeners/ready*",
    "transcripts/listeners/closed*", "transcripts/listeners/one named*",
    "transcripts/listeners/a socket*", "transcripts/headers/an engine's own*",
    "transcripts/access/no rule*", "transcripts/access/who calls*",
    "transcripts/access/other uids speak*", "transcripts/overload/no endpoint*",
    "transcripts/overload/a rule*", "transcripts/drain/SIG*", "transcripts/drain/drain is acked*",
]  # fmt: skip
NEEDED = {
    "hello": {"node_id": bytes, "boot_id": str}, "snapshot": {"request": int, "version": str, "root": dict},
    "sections": {"request": int, "sections": list, "last": bool}, "take_listeners": {"request": int},
    "identities": {"request": int, "identities": list, "bundle_pem": bytes},
    "listeners": {"request": int, "names": list}, "unknown_service": {"service": str},
    "drain": {"request": int, "timeout_ms": int},
}  # fmt: skip
FIELDS = {
    "routes": {"service", "protocol", "routes"}, "upstream": {"upstream", "service", "protocol", "endpoints"},
    "inbound": {"registration", "service", "workload", "rules", "default_allow", "spiffe_id", "server_name"},
    "listeners": {"upstreams"}, "callers": {"node_spiffe_id", "callers"}, "limits": {"connect_timeout_ns"},
    "trust": {"intermediates", "hears"}, "pins": {"entries"}, "credentials": {"entries"},
}  # fmt: skip
ALWAYS = ("listeners", "callers", "limits")
FIXED = ("mesh", "proxy", "readiness")


class Refused(Exception):
    """A request that is answered `nack`."""


class Engine:
    """All that is known, and the threads that use it."""

    def __init__(self, path):
        self.lock = threading.Condition()
        self.path, self.version, self.raw, self.sections = path, None, {}, {}
        self.listeners, self.identified, self.attached = {}, False, None
        self.unknown, self.busy, self.draining, self.counters = set(), 0, False, {}
        if os.path.exists(path):
            os.unlink(path)
        os.umask(0o177)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen(8)

    def run(self):
        threading.Thread(target=self.tell, daemon=True).start()
        while True:
            threading.Thread(target=Agent(self, self.socket.accept()[0]).run, daemon=True).start()

    def tell(self):
        while True:
            threading.Event().wait(1)
            agent, counters, self.counters = self.attached, self.counters, {}
            if agent:
                frame = {"type": "statistics", "interval_ms": 1000, "traffic": [], "counters": counters}
                agent.send({**frame, "gauges": {"downstream_connections": self.busy}})

    def exit(self):
        os.unlink(self.path)
        os._exit(0)

    def finish(self, timeout_s):
        """Accept nothing more, wait for what is under way."""
        self.draining = True
        with self.lock:
            self.lock.wait_for(lambda: not self.busy, timeout_s)

    def apply(self, root, raw):
        """Check a snapshot whole, then use it."""
        for name in ALWAYS:
            if name not in root:
                raise Refused(f"a snapshot without {name}")
        kinds = {name.partition("/")[0] for name in root}
        if kinds & {"pins", "credentials"} and "trust" not in root:
            raise Refused("keys without trust")
        sections = {name: self.section(name, raw[digest]) for name, digest in root.items()}
        with self.lock:
            self.raw, self.sections, self.version = (
                {d: raw[d] for d in root.values()},
                sections,
                version(root),
            )
            self.lock.notify_all()

    @staticmethod
    def section(name, data):
        kind = name.partition("/")[0]
        try:
            value = words.unpacked(data)
        except words.Unreadable as error:
            raise Refused(f"{name}: {error}") from None
        if kind not in FIELDS or not isinstance(value, dict) or not FIELDS[kind] <= set(value):
            raise Refused(f"{name} is no section of a kind known here")
        return value

    def give(self, sockets):
        with self.lock:
            for name, sock in sockets.items():
                before, self.listeners[name] = self.listeners.get(name), sock
                if before:
                    before.close()
                threading.Thread(target=self.accept, args=(name, sock), daemon=True).start()

    def accept(self, name, sock):
        while self.listeners.get(name) is sock and not self.draining:
            try:
                sock.settimeout(0.1)
                client = sock.accept()[0]
            except OSError:
                continue
            client.settimeout(None)
            serve = {"proxy": Exchange(self, client).run, "readiness": lambda c=client: self.ready(c)}.get(
                name
            )
            threading.Thread(target=serve or client.close, daemon=True).start()

    def ready(self, client):
        closed = self.sections.get("listeners", {}).get("closed")
        lacking = [name for name in FIXED if name not in self.listeners]
        why = (
            closed
            or (f"no {lacking}" if lacking else "")
            or ("" if self.version and self.identified else "not told")
        )
        with client:
            client.recv(65_536)
            client.sendall(answer(503 if why else 200, "", why or "ready"))


def version(root):
    return hashlib.sha256(words.packed({name: root[name] for name in sorted(root)})).hexdigest()


class Agent:
    """One connection at the control socket."""

    def __init__(self, engine, sock):
        self.engine, self.sock, self.buffer, self.descriptors = engine, sock, b"", []
        self.lock = threading.Lock()

    def run(self):
        uid = struct.unpack("3i", self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        try:
            self.sock.settimeout(2)
            if uid in (os.geteuid(), 0) and self.hello(self.frame()):
                self.sock.settimeout(None)
                while frame := self.frame():
                    self.handle(frame)
        except (OSError, words.Unreadable):
            pass
        if self.engine.attached is self:
            self.engine.attached = None
        self.close()

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def send(self, frame, sockets=()):
        body = words.packed(frame)
        rights = array.array("i", [sock.fileno() for sock in sockets]).tobytes()
        with self.lock:
            try:
                data = struct.pack(">I", len(body)) + body
                sent = self.sock.sendmsg(
                    [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
                )
                self.sock.sendall(data[sent:])
            except OSError:
                pass

    def frame(self):
        """Return the next frame of a known type, None at the end."""
        while True:
            size = int.from_bytes(self.buffer[:4], "big") if len(self.buffer) >= 4 else None
            if size is not None and size > 16_777_216:
                raise words.Unreadable("too long")
            if size is not None and len(self.buffer) >= 4 + size:
                body, self.buffer = self.buffer[4 : 4 + size], self.buffer[4 + size :]
                frame = words.unpacked(body)
                if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
                    raise words.Unreadable("no frame")
                if frame["type"] in NEEDED:
                    return fitting(frame)
                continue
            data, rights, _, _ = self.sock.recvmsg(65_536, socket.CMSG_SPACE(64 * 4))
            for _, _, payload in rights:
                self.descriptors += array.array("i", payload)
            if not data:
                return None
            self.buffer += data

    def hello(self, frame):
        if not frame or frame["type"] != "hello":
            return False
        if not frame.get("protocol_min", 1) <= 1 <= frame.get("protocol_max", 1):
            self.send({"type": "nack", "request": 0, "version": None, "error": "protocol 1 is spoken here"})
            return False
        before, self.engine.attached = self.engine.attached, self
        if before:
            before.close()
        names = sorted(self.engine.listeners)
        head = {
            "type": "hello",
            "engine": "probe/1",
            "protocol": 1,
            "features": ["demand", "drain", "http", "listeners"],
        }
        self.send({**head, "snapshot_version": self.engine.version, "listeners": names, "pid": os.getpid()})
        return True

    def handle(self, frame):
        try:
            getattr(self, "on_" + frame["type"])(frame)
        except Refused as refused:
            nack = {"type": "nack", "request": frame["request"], "version": self.engine.version}
            self.send({**nack, "error": str(refused)})

    def ack(self, frame):
        self.send({"type": "ack", "request": frame["request"], "version": self.engine.version})

    def on_hello(self, frame):
        pass

    def on_sections(self, frame):
        pass

    def on_snapshot(self, frame):
        root = frame["root"]
        raw = {**self.engine.raw, **hashed(frame.get("sections", []))}
        lacking = [digest for digest in root.values() if digest not in raw]
        if lacking:
            self.send({"type": "need", "request": frame["request"], "hashes": lacking})
            while True:
                more = self.frame()
                if not more or more["type"] != "sections" or more["request"] != frame["request"]:
                    raise words.Unreadable("sections were due")
                raw.update(hashed(more["sections"]))
                if more["last"]:
                    break
        if any(digest not in raw for digest in root.values()):
            raise Refused("sections are lacking")
        if version(root) != frame["version"]:
            raise Refused("the version is another root's")
        self.engine.apply(root, raw)
        self.ack(frame)

    def on_identities(self, frame):
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_verify_locations(cadata=frame["bundle_pem"].decode())
            for one in frame["identities"]:
                with os.fdopen(os.memfd_create("pair"), "wb") as file:
                    file.write(one["chain_pem"] + b"\n" + one["key_pem"])
                    file.flush()
                    context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        except (ssl.SSLError, ValueError, OSError) as error:
            raise Refused(f"identities do not load: {error}") from None
        self.engine.identified = True
        self.ack(frame)

    def on_listeners(self, frame):
        names = frame["names"]
        taken, self.descriptors = self.descriptors[: len(names)], self.descriptors[len(names) :]
        sockets = [socket.socket(fileno=descriptor) for descriptor in taken]
        listening = all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in sockets)
        if len(set(names)) != len(names) or len(sockets) < len(names) or not listening:
            raise Refused("a listening socket for each name")
        self.engine.give(dict(zip(names, sockets, strict=True)))
        self.ack(frame)

    def on_take_listeners(self, frame):
        held = sorted(self.engine.listeners.items())
        answered = {"type": "listeners", "request": frame["request"], "names": [name for name, _ in held]}
        self.send({**answered, "last": True}, [sock for _, sock in held])

    def on_unknown_service(self, frame):
        with self.engine.lock:
            self.engine.unknown.add(frame["service"])
            self.engine.lock.notify_all()

    def on_drain(self, frame):
        def drain():
            self.engine.finish(frame["timeout_ms"] / 1000)
            self.ack(frame)
            self.engine.exit()

        threading.Thread(target=drain, daemon=True).start()


def hashed(sections):
    return {hashlib.sha256(data).digest()[:16]: data for data in sections}


def fitting(frame):
    for name, kind in NEEDED[frame["type"]].items():
        value = frame.get(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise words.Unreadable(f"{name} of {frame['type']}")
    texts = frame["names"] if frame["type"] == "listeners" else []
    digests = frame["root"].values() if frame["type"] == "snapshot" else []
    if not all(isinstance(one, str) for one in texts) or not all(isinstance(one, bytes) for one in digests):
        raise words.Unreadable("what is inside")
    return frame


def answer(status, flag, reason):
    body = reason.encode()
    own = f"x-gossipmesh-flag: {flag}\r\nx-gossipmesh-reason: {reason}\r\n" if flag else ""
    head = f"HTTP/1.1 {status} X\r\n{own}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


class Ended(Exception):
    """The request ends with an answer of the engine's own."""


class Exchange:
    """One request at the proxy port, and its answer; then the connection closes."""

    def __init__(self, engine, client):
        self.engine, self.client = engine, client

    def run(self):
        self.engine.busy += 1
        try:
            self.serve()
        except Ended as ended:
            self.client.sendall(answer(*ended.args))
        except OSError:
            pass
        finally:
            self.client.close()
            with self.engine.lock:
                self.engine.busy -= 1
                self.engine.lock.notify_all()

    def serve(self):
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.client.recv(65_536)
            if not more:
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [
            (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
        ]
        host = dict(headers).get("host", "")
        inbound = self.chosen(host, target, method, headers)
        own = ("host", "connection", "x-forwarded-client-cert")
        passed = [one for one in headers if one[0] not in own and not one[0].startswith("x-gossipmesh-")]
        passed += [("host", host), ("connection", "close")]
        passed += [("x-forwarded-client-cert", f"By={inbound['spiffe_id']};URI={self.caller()}")]
        lines = "".join(f"{name}: {value}\r\n" for name, value in passed)
        with socket.create_connection(tuple(inbound["workload"])) as workload:
            workload.sendall(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
            got = b""
            while len(got) < whole(got):
                more = workload.recv(65_536)
                if not more:
                    break
                got += more
        self.client.sendall(got)

    def chosen(self, host, target, method, headers):
        """Return the workload of this node that the request goes to."""
        service = words.service_of(host)
        if service is None:
            raise Ended(404, "NR", "no service has this name")
        section = self.routes(service)
        try:
            route = words.route_of(section, host, target, method, headers)
        except words.Ambiguous:
            raise Ended(400, "DPE", "the path can be read in two ways") from None
        if route is None:
            raise Ended(404, "NR", "no rule takes the request")
        upstream = words.backend_of(route, random.Random().random())
        if upstream is None:
            raise Ended(500, "NC", "the rule leads nowhere")
        endpoints = self.engine.sections.get(f"upstream/{upstream}", {}).get("endpoints", [])
        names = {one["server_name"] for one in endpoints}
        sections = self.engine.sections.items()
        for name, inbound in sections:
            if name.startswith("inbound/") and inbound["server_name"] in names:
                self.check(inbound, method, target)
                return inbound
        raise Ended(503, "UH", "no endpoint that this engine can reach")

    def check(self, inbound, method, target):
        caller = self.caller()
        asked = {"inbound": inbound, "identity": caller, "method": method, "path": target}
        verdict = words.decide_authorize(asked)
        if not verdict["allow"]:
            told = {"type": "denial", "caller": caller, "service": inbound["service"], "method": method}
            if self.engine.attached:
                self.engine.attached.send({**told, "path": target, "rule": verdict["rule"]})
            raise Ended(403, "UAEX", "denied")

    def routes(self, service):
        name, engine = f"routes/{service}", self.engine
        if name not in engine.sections:
            if engine.attached:
                engine.attached.send({"type": "demand", "service": service})
            with engine.lock:
                engine.lock.wait_for(lambda: name in engine.sections or service in engine.unknown, 5)
                engine.unknown.discard(service)
        if name not in engine.sections:
            raise Ended(503, "NC", "this node has no routes for the service")
        return engine.sections[name]

    def caller(self):
        """Return who holds the other end: the kernel's table has its uid."""
        callers, (_, port) = self.engine.sections["callers"], self.client.getpeername()
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table.readlines()[1:]]
        uids = [int(row[7]) for row in rows if int(row[1].split(":")[1], 16) == port and row[3] != "0A"]
        named = {one["uid"]: one["spiffe_id"] for one in callers["callers"]}
        other = callers.get("unregistered")
        return named.get(uids[0]) or (callers["node_spiffe_id"] if other is None else other)


def whole(got):
    head, mark, _ = got.partition(b"\r\n\r\n")
    if not mark:
        return len(got) + 1
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(head) + 4 + (lengths[0] if lengths else 2**62)


def decide():
    kinds = {"route": words.decide_route, "authorize": words.decide_authorize}
    for line in sys.stdin:
        try:
            asked = json.loads(line)
            found = kinds[asked["kind"]](asked["input"])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            found = {"error": f"no question this engine answers: {error!r}"}
        print(json.dumps(found), flush=True)


def main():
    if "--decide" in sys.argv:
        decide()
        return
    given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    engine = Engine(given["--socket"])

    def ends(_number, _frame):
        threading.Thread(target=lambda: (engine.finish(45), engine.exit()), daemon=True).start()

    signal.signal(signal.SIGTERM, ends)
    signal.signal(signal.SIGINT, ends)
    engine.run()


if __name__ == "__main__":
    main()
