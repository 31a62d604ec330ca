"""What each step of a transcript does. Spec: spec/engine/v1-draft/README, "Transcripts".

A step that finds the engine otherwise raises `Departed` with a sentence; all others return nothing.
"""

import re
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from gossipmesh.testing.conformance import files, snapshots
from gossipmesh.testing.conformance.actors import Server, connected, end, tcp_of
from gossipmesh.testing.conformance.control import Control, Frame
from gossipmesh.testing.conformance.http import Peer, statuses_in
from gossipmesh.testing.conformance.node import NAMES, Node
from gossipmesh.testing.conformance.outcome import Departed
from gossipmesh.testing.conformance.patterns import fits
from gossipmesh.testing.conformance.waiting import PATIENCE_S, until

Step = dict[str, Any]
_GET: Final = "GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n"


class Play:
    """One transcript under way."""

    def __init__(self, node: Node, script: dict[str, Any]) -> None:
        self._node = node
        self._script = script
        self.at = "start"
        self._events: dict[str, trio.Event] = {}
        self._servers: dict[str, Server] = {}
        self._clients: dict[str, Peer] = {}
        self._agents: dict[str, Control] = {}
        self._verbs: dict[str, Callable[[Step], Awaitable[None]]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }

    async def run(self) -> None:
        """Play the whole; `at` says how far it is.

        Raises:
            Departed: the engine did otherwise. State: ended.
        """
        try:
            await self._begin()
            for number, step in enumerate(self._script["steps"]):
                self.at = f"step {number} ({step['do']})"
                await self._verbs[step["do"]](step)
            self.at = "end"
            self._finish()
        finally:
            for peer in self._clients.values():
                await trio.aclose_forcefully(tcp_of(peer))

    async def _begin(self) -> None:
        """Start the servers; unless the transcript says `bare`, bring the engine to serve its snapshot."""
        for name, said in self._script.get("servers", {}).items():
            server = self._servers[name] = Server(said, self._event)
            self._node.variables[name] = await server.start(self._node.nursery)
        self._node.bind(self._script.get("ports", []))
        if self._script.get("bare"):
            return
        change = self._script.get("change", {})
        await self._node.serving(self._names(), self._script.get("snapshot", "cart"), change)
        self._agents["agent"] = self._node.control
        ports = {name: self._node.sockets[name] for name in self._script.get("ports", [])}
        if ports:
            given = {str(self._script["ports_as"].get(name, name)): sock for name, sock in ports.items()}
            _expect(await self._node.give(given), {"type": "ack"}, "the ports")

    def _names(self) -> list[str]:
        return list(dict.fromkeys([*NAMES, *self._script.get("identities", [])]))

    def _finish(self) -> None:
        """Look at what holds in every transcript: all frames had their shape."""
        for control in {*self._agents.values()}:
            if control.misshapen:
                raise Departed(f"a frame without its shape: {control.misshapen}")

    def _event(self, name: str) -> trio.Event:
        return self._events.setdefault(name, trio.Event())

    def _agent(self, step: Step) -> Control:
        return self._agents[step.get("on", "agent")]

    # The control socket.

    async def _do_attach(self, step: Step) -> None:
        name = step.get("as", "agent")
        control = await Control.connect(self._node.engine.socket, self._node.nursery, self._node.shapes)
        self._agents[name] = self._node.control = control
        hello = await control.hello(step.get("features", ["requests"]))
        _expect(hello, self._node.filled(step.get("hello", {})), "the engine's hello")

    async def _do_connect_control(self, step: Step) -> None:
        self._agents[step["as"]] = await Control.connect(
            self._node.engine.socket, self._node.nursery, self._node.shapes
        )

    async def _do_detach(self, step: Step) -> None:
        await self._agent(step).close()

    async def _do_tell(self, step: Step) -> None:
        """Send a frame; `answer` is what comes back, `then` more answers to the same."""
        control = self._agent(step)
        frame: Frame = {**step["frame"]}
        if "request" in frame or "answer" in step:
            kind = frame.pop("type")
            frame = {"type": kind, "request": control.next_request(), **self._node.filled(frame)}
        number = frame.get("request")
        await control.send(frame)
        if "answer" in step:
            patience = step.get("within_s", PATIENCE_S)
            answer = await control.answer(number=number, patience_s=patience)
            _expect(answer, self._node.filled(step["answer"]), "the answer")

    async def _do_gone(self, step: Step) -> None:
        control = self._agent(step)
        if not await until(lambda: control.ended):
            raise Departed("the connection to the control socket goes on")

    async def _do_snapshot(self, step: Step) -> None:
        """Change the snapshot and offer it; `nack` holds what the refusal must contain."""
        answer = await self._node.offer(step)
        if "nack" not in step:
            _expect(answer, {"type": "ack"}, "the answer to the snapshot")
            return
        version = self._node.version or None
        _expect(answer, {"type": "nack", "version": version}, "the answer to the snapshot")

    async def _do_offer(self, step: Step) -> None:
        """Offer sections as bytes: those of a file, some withheld, one damaged, under another version."""
        node = self._node
        if "file" in step:
            kept = files.read(step["file"])
            root = {name: bytes.fromhex(digest) for name, digest in kept["root"].items()}
            by_hash = {snapshots.hash_of(data): data for data in map(bytes.fromhex, kept["sections"])}
            told = {name: by_hash[digest] for name, digest in root.items()}
        else:
            changed = snapshots.changed(node.sections, step)
            told = {name: snapshots.encoded(node.filled(section)) for name, section in changed.items()}
        for name, ending in step.get("append", {}).items():
            told[name] += bytes.fromhex(ending)
        root = snapshots.root_of(told)
        version = step.get("version", snapshots.version_of(root))
        withheld = step.get("withheld", [])
        sent = [data for name, data in told.items() if name not in withheld]
        control = self._agent(step)
        number = control.next_request()
        offer = {"request": number, "version": version, "root": root, "sections": sent}
        await control.send({"type": "snapshot", **offer})
        if "need" in step:
            need = await control.answer(number=number)
            hashes = sorted(root[name] for name in step["need"])
            if need["type"] != "need" or sorted(need["hashes"]) != hashes:
                raise Departed(f"{need} came where {step['need']} are lacking")
            supplied = [told[str(name)] for name in step.get("supplied") or step["need"]]
            await control.send({"type": "sections", "request": number, "sections": supplied, "last": True})
        _expect(await control.answer(number=number), step["answer"], "the answer to the snapshot")

    async def _do_identities(self, step: Step) -> None:
        _expect(await self._node.identify(step["names"]), step.get("answer", {"type": "ack"}), "the answer")

    async def _do_listeners(self, step: Step) -> None:
        """Bind ports and hand them over; `as` gives the names they are handed over by."""
        made = self._node.bind(step["ports"])
        told = {step.get("as", {}).get(name, name): sock for name, sock in made.items()}
        _expect(await self._node.give(told), step.get("answer", {"type": "ack"}), "the answer to listeners")

    async def _do_let_go(self, step: Step) -> None:
        """Close this side's own descriptors of listeners."""
        for name in step["ports"]:
            self._node.sockets[name].close()
        await trio.lowlevel.checkpoint()

    async def _do_take(self, step: Step) -> None:
        """Take the engine's listeners; as many descriptors as names, each bound where it was."""
        control = self._agent(step)
        number = control.next_request()
        await control.send({"type": "take_listeners", "request": number})
        taken: dict[str, Any] = {}
        while True:
            frame = await control.answer("listeners", number)
            sockets = control.taken_descriptors(len(frame["names"]))
            taken.update(zip(frame["names"], sockets, strict=True))
            if frame["last"]:
                break
        try:
            if sorted(taken) != sorted(step["names"]):
                raise Departed(f"{sorted(taken)} came, not {sorted(step['names'])}")
            for name, sock in taken.items():
                address = self._node.variables.get(name)
                if address and list(sock.getsockname()[:2]) != address:
                    raise Departed(f"{name} is bound elsewhere: {sock.getsockname()}")
        finally:
            for sock in taken.values():
                sock.close()

    async def _do_event(self, step: Step) -> None:
        """Wait for an event frame; what else came before is kept."""
        control, pattern = self._agent(step), self._node.filled(step["frame"])
        if not await until(lambda: any(fits(pattern, frame) for frame in control.events)):
            raise Departed(f"no event {pattern}; {control.events} came")
        control.events.remove(next(frame for frame in control.events if fits(pattern, frame)))

    async def _do_no_event(self, step: Step) -> None:
        found = [frame for frame in self._agent(step).events if fits(step["frame"], frame)]
        if found:
            raise Departed(f"the event {found[0]} came")
        await trio.lowlevel.checkpoint()

    async def _do_counted(self, step: Step) -> None:
        """Wait until counters have the values said, all frames of this attachment together."""
        control, pattern = self._agent(step), step["counters"]

        def now() -> dict[str, int]:
            return {name: control.counters[name] for name in pattern}

        if not await until(lambda: fits(pattern, now())):
            raise Departed(f"counted {now()}, not {pattern}")

    async def _do_gauge(self, step: Step) -> None:
        control, pattern = self._agent(step), step["gauges"]
        if not await until(
            lambda: bool(control.statistics) and fits(pattern, control.statistics[-1]["gauges"])
        ):
            shown = control.statistics[-1]["gauges"] if control.statistics else None
            raise Departed(f"the gauges are {shown}, not {pattern}")

    async def _do_told(self, step: Step) -> None:
        """Wait for an entry of `requests`, `connections` or `traffic` in the statistics."""
        control, pattern = self._agent(step), self._node.filled(step["entry"])

        def entries() -> list[Any]:
            return [entry for frame in control.statistics for entry in frame.get(step["of"], [])]

        if not await until(lambda: any(fits(pattern, entry) for entry in entries())):
            raise Departed(f"no entry {pattern} of {step['of']}; {entries()} came")

    async def _do_not_told(self, step: Step) -> None:
        """No frame of this attachment has entries of this name."""
        if any(frame.get(step["of"]) for frame in self._agent(step).statistics):
            raise Departed(f"{step['of']} were told")
        await trio.lowlevel.checkpoint()

    # Clients.

    async def _do_connect(self, step: Step) -> None:
        """Connect; `refused` holds what the failed handshake's reason must contain."""
        address = self._node.at(step.get("to", "proxy"))
        if "refused" in step:
            await self._refused(address, step)
            return
        peer = self._clients[step.get("as", "c")] = await connected(address, step.get("tls"))
        if "alpn" in step and isinstance(peer.stream, trio.SSLStream):
            chosen = peer.stream.selected_alpn_protocol()
            if chosen != step["alpn"]:
                raise Departed(f"{chosen} was chosen, not {step['alpn']}")

    async def _refused(self, address: tuple[str, int], step: Step) -> None:
        try:
            peer = await connected(address, step.get("tls"))
        except (Departed, OSError) as error:
            if step["refused"].lower() not in str(error).lower():
                raise Departed(f"{error}, not {step['refused']}") from None
            return
        await end(peer, "cut")
        raise Departed("the connection was made")

    def _client(self, step: Step) -> Peer:
        return self._clients[step.get("on", "c")]

    async def _do_send(self, step: Step) -> None:
        await self._client(step).send(files.expanded(step["data"]))

    async def _do_expect(self, step: Step) -> None:
        """Read one HTTP answer, head and body."""
        peer = self._client(step)
        with trio.move_on_after(step.get("within_s", PATIENCE_S)):
            message = await peer.message(bodiless=step.get("bodiless", False))
            _expect_http(message, step, peer)
            return
        raise Departed(f"no whole answer in time; {peer.taken[:200]!r} came")

    async def _do_ask(self, step: Step) -> None:
        """Connect, ask, read the answer, hang up; `times` over."""
        for _ in range(step.get("times", 1)):
            peer = await connected(self._node.at(step.get("to", "proxy")), step.get("tls"))
            began = trio.current_time()
            message = b""
            with trio.move_on_after(step.get("within_s", PATIENCE_S)):
                await peer.send(files.expanded(step.get("request", _GET)))
                message = await peer.message(bodiless=step.get("bodiless", False))
            try:
                _expect_http(message, step, peer)
                if trio.current_time() - began < step.get("not_before_s", 0):
                    raise Departed(f"answered before {step['not_before_s']} s were over")
            finally:
                await end(peer, "cut")

    async def _do_read(self, step: Step) -> None:
        """Read bytes, exactly those."""
        peer, data = self._client(step), files.expanded(step["data"])
        found = b""
        with trio.move_on_after(PATIENCE_S):
            found = await peer.exactly(len(data))
        if found != data:
            raise Departed(f"{(found or peer.buffer)[:200]!r} came, not {data[:200]!r}")

    async def _do_ends(self, step: Step) -> None:
        """Read to the end; `how` says which, `data` what comes before."""
        peer = self._client(step)
        with trio.move_on_after(step.get("within_s", PATIENCE_S)):
            rest = await peer.rest()
            if "data" in step and rest != files.expanded(step["data"]):
                raise Departed(f"{rest[:200]!r} came before the end")
            if peer.ended != step.get("how", peer.ended):
                raise Departed(f"the connection ended by {peer.ended}")
            return
        raise Departed(f"the connection goes on; {peer.taken[-200:]!r} came")

    async def _do_open(self, step: Step) -> None:
        """Nothing comes and nothing ends for a while."""
        peer = self._client(step)
        with trio.move_on_after(step.get("for_s", 0.3)):
            came = await peer.more()
            raise Departed(f"{peer.buffer[:200]!r} came" if came else f"the connection ended by {peer.ended}")

    async def _do_half_close(self, step: Step) -> None:
        await self._client(step).stream.send_eof()

    async def _do_close(self, step: Step) -> None:
        await end(self._client(step), step.get("how", "fin"))

    # Servers, the log, the process, time.

    async def _do_release(self, step: Step) -> None:
        self._event(step["event"]).set()
        await trio.lowlevel.checkpoint()

    async def _do_stop(self, step: Step) -> None:
        await self._servers[step["server"]].stop()

    async def _do_seen(self, step: Step) -> None:
        """Wait until a server has seen what is said; `messages` and `connections` are counts."""
        server = self._servers[step["by"]]

        def seen() -> dict[str, Any]:
            text = b"".join(server.messages).decode("latin-1")
            return {
                "messages": len(server.messages), "connections": server.connections, "text": text.lower(),
                "came": server.came.decode("latin-1"), "names": server.asked_names, "ends": server.ends,
                "protocols": server.protocols,
            }  # fmt: skip

        pattern = {key: value for key, value in step.items() if key in seen()}
        if not await until(lambda: fits(pattern, seen())):
            raise Departed(f"{step['by']} has seen {seen()}, not {pattern}")
        text = seen()["text"]
        lacking = [part for part in step.get("contains", []) if part not in text]
        strange = [part for part in step.get("lacks", []) if part in text]
        if lacking or strange:
            raise Departed(f"{step['by']} was sent {text[:600]!r}, without {lacking}, with {strange}")

    async def _do_logged(self, step: Step) -> None:
        """Wait until `count` lines of the access log fit; with `or_fewer`, until one does and no more do."""
        pattern, count = self._node.filled(step["line"]), step.get("count", 1)
        fewest = 1 if step.get("or_fewer") else count

        def found() -> int:
            return sum(fits(pattern, line) for line in self._node.lines())

        if not await until(lambda: fewest <= found() <= count):
            raise Departed(f"{found()} lines like {pattern}, not {count}, among {self._node.lines()[-3:]}")

    async def _do_signal(self, step: Step) -> None:
        self._node.engine.process.send_signal(getattr(signal, step["signal"]))
        await trio.lowlevel.checkpoint()

    async def _do_exits(self, step: Step) -> None:
        code = await self._node.engine.exit_code()
        if code != step.get("code", 0):
            raise Departed(f"the engine {'goes on' if code is None else f'ended with {code}'}")
        if self._node.engine.socket.exists() is not step.get("socket", False):
            raise Departed("the socket's file is left, or gone")

    async def _do_socket_file(self, step: Step) -> None:
        """Look at the mode of the control socket's file, in octal digits."""
        found = f"{self._node.engine.socket.stat().st_mode & 0o777:o}"
        if found != step["mode"]:
            raise Departed(f"the mode is {found}, not {step['mode']}")
        await trio.lowlevel.checkpoint()

    async def _do_another(self, step: Step) -> None:
        """Start a second engine at the same place; it must end with a code and one sentence."""
        with trio.fail_after(PATIENCE_S):
            done = await trio.run_process(self._node.engine.words, check=False, capture_stderr=True)
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode != step["code"] or not said or "\n" in said:
            raise Departed(f"the second one ended with {done.returncode}, and said {said[-300:]!r}")

    async def _do_pause(self, step: Step) -> None:
        await trio.sleep(step["for_s"])


def _expect(frame: Frame, pattern: Any, what: str) -> None:
    if not fits(pattern, files.shown(frame)) and not fits(pattern, frame):
        raise Departed(f"{what} is {frame}, not {pattern}")


def _expect_http(message: bytes, step: Step, peer: Peer) -> None:
    found = statuses_in(message)
    if found[:1] != [step["status"]]:
        raise Departed(f"answered {found}, not {step['status']}; {message[:400]!r}")
    head, _, body = message.partition(b"\r\n\r\n")
    text = head.decode("latin-1").lower()
    flag = re.search(r"x-gossipmesh-flag: (\S+)", text)
    if "flag" in step and step["flag"] not in (flag[1].upper().split(",") if flag else ()):
        raise Departed(f"the flag is not {step['flag']}: {text!r}")
    if "body" in step and body != files.expanded(step["body"]):
        raise Departed(f"the body is {body[:200]!r}")
    lacking = [part for part in step.get("contains", []) if part not in text]
    strange = [part for part in step.get("lacks", []) if part in text]
    if lacking or strange:
        raise Departed(f"the head is {text!r}, without {lacking}, with {strange}")
