"""Who a peer is, by every vector of `peers.json`, at an engine that is called and at one that calls.

Nobody is served who is to be refused, and each refusal is counted under its vector's code. Vectors of
engines that are alone need a minute first, in which the engine's agent hears nobody: they are played by
`alone` only. Counters come once a second, so that vectors are played a dozen at a time; where the counts of
a dozen differ, each is played again by itself.
"""

import ssl
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import trio

from gossipmesh.testing.conformance import files, snapshots
from gossipmesh.testing.conformance.http import Peer
from gossipmesh.testing.conformance.identities import Pems, client_context, server_context
from gossipmesh.testing.conformance.node import AUTHORITY, HOST, NAMES, Node, node, served
from gossipmesh.testing.conformance.outcome import Departed, Outcome
from gossipmesh.testing.conformance.waiting import PATIENCE_S, until

KIND: Final = "peers"
ALONE_S: Final = 61.0
BATCH: Final = 12
ALPN: Final = "gm-http/1.1"
SNI: Final = "cart.cart.shop.mesh.test"
_NUMBER_BYTES: Final = 8
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


async def play(command: Sequence[str]) -> list[Outcome]:
    """Play what needs no wait: first calls to the engine, then calls by it."""
    return await _played(command, alone=False)


async def play_alone(command: Sequence[str]) -> list[Outcome]:
    """Play what an engine takes that has been alone for a minute."""
    return await _played(command, alone=True)


def is_played(vector: dict[str, Any]) -> bool:
    """Tell whether a vector is of an engine; others are of who calls the authority."""
    return vector["dialled"] is None or bool(vector["dialled"]["node"])


async def _played(command: Sequence[str], *, alone: bool) -> list[Outcome]:
    file = files.read("peers.json")
    asked = [one for one in file["vectors"] if one["facts"]["alone"] is alone]
    outcomes = []
    async with node(command) as engine:
        judge = Judge(engine, file["certificates"])
        await judge.begin()
        if alone:
            await judge.learn(asked[0])
            await trio.sleep(ALONE_S)
        played = [one for one in asked if is_played(one)]
        for start in range(0, len(played), BATCH):
            outcomes += await judge.outcomes(played[start : start + BATCH])
    return outcomes


class Judge:
    """One engine, told what each vector knows; it is called, and it calls."""

    def __init__(self, one: Node, certificates: dict[str, str]) -> None:
        self._node = one
        self._certificates = certificates
        self._shown: Pems = AUTHORITY.svid(NAMES[0])

    async def begin(self) -> None:
        """Bring the engine up, with a workload behind it and a peer of the vectors beside it."""
        self._node.variables["w"] = await served(self._node.nursery, self._serve)
        self._node.variables["peer"] = await self._listen()
        await self._node.serving(NAMES, "cart", {"set": {"routes/shop/cart": {"routes.0.retry.attempts": 0}}})

    def _pem(self, named: str) -> str:
        return named if named.startswith("-----") else self._certificates[named]

    async def outcomes(self, vectors: Sequence[dict[str, Any]]) -> list[Outcome]:
        """Play some vectors; return what each came to."""
        whole = await self._faults(vectors)
        if not any(whole):
            return [Outcome(KIND, vector["name"]) for vector in vectors]
        return [Outcome(KIND, vector["name"], (await self._faults([vector]))[0]) for vector in vectors]

    async def _faults(self, vectors: Sequence[dict[str, Any]]) -> list[str]:
        """Return what the engine made wrong of each; of counts, all that differs, with each."""
        before, wanted, faults = self._counted(), Counter[str](), []
        for vector in vectors:
            expected = _wanted(vector)
            wanted.update([expected] if expected not in ("served", "handshake") else [])
            try:
                found = await self._served(vector)
                faults.append("" if found is (expected == "served") else f"served: {found}, not {expected}")
            except Departed as departed:
                faults.append(str(departed))
        if not await until(lambda: _ends(self._counted() - before) >= len(vectors)):
            return [fault or "the handshake was counted neither as one nor as a failure" for fault in faults]
        moved = _codes(self._counted() - before)
        differs = "" if moved == wanted else f"counted {dict(moved)}, not {dict(wanted)}"
        return [fault or differs for fault in faults]

    async def _served(self, vector: dict[str, Any]) -> bool:
        shown = vector["shown"]
        self._shown = Pems("".join(map(self._pem, shown["chain"])).encode(), shown["key"].encode())
        await self.learn(vector)
        return await (self._called() if vector["dialled"] is None else self._calls())

    async def learn(self, vector: dict[str, Any]) -> None:
        """Tell the engine a vector's facts.

        Raises:
            Departed: it refuses them. State: of the engine, as before.
        """
        facts, dialled = vector["facts"], vector["dialled"]
        told = [
            {"spiffe_id": name, "chain_pem": pair.chain_pem, "key_pem": pair.key_pem}
            for name, pair in ((name, AUTHORITY.svid(name)) for name in NAMES)
        ]
        answer = await self._node.control.ask(
            {
                "type": "identities", "request": 0, "identities": told,
                "bundle_pem": "".join(map(self._pem, facts["roots"])).encode(),
                "carrier_root_pem": self._certificates["carrier"].encode(),
            }
        )  # fmt: skip
        sections = dict(self._node.sections)
        if dialled is not None:
            there = {"address": "$peer", "spiffe_id": dialled["spiffe_id"], "pins": _pins(dialled)}
            change = {"upstream/shop/cart": {"endpoints.0": {"copy": "endpoints.0", **there}}}
            sections = snapshots.changed(sections, {"set": change})
        whole = {**sections, **self._peer_sections(facts)}
        encoded = {name: snapshots.encoded(self._node.filled(section)) for name, section in whole.items()}
        for each in (answer, await self._node.offer_encoded(encoded)):
            if each["type"] != "ack":
                raise Departed(f"refused what is known of peers: {each}")

    def _peer_sections(self, facts: dict[str, Any]) -> snapshots.Sections:
        if facts["intermediates"] is None:
            return {}
        pems = [self._pem(name) for name in facts["intermediates"]]
        sections: snapshots.Sections = {"trust": {"intermediates": pems, "hears": not facts["alone"]}}
        pins = [bytes.fromhex(pin + short_id) for pin, short_id in facts["pins"].items()]
        said = [
            bytes.fromhex(short_id)
            + generation.to_bytes(_NUMBER_BYTES)
            + serial.to_bytes(_NUMBER_BYTES)
            + bytes([flags])
            for short_id, (generation, serial, flags) in facts["credentials"].items()
        ]
        for kind, entries in (("pins", pins), ("credentials", said)):
            for entry in sorted(entries):
                name = f"{kind}/{entry[0]:02x}"
                before = sections.get(name, {"entries": b""})["entries"]
                sections[name] = {"entries": before + entry}
        return sections

    def _counted(self) -> Counter[str]:
        counters = self._node.control.counters
        return Counter(
            {name: count for name, count in counters.items() if name.startswith(("tls_", "peers_"))}
        )

    async def _called(self) -> bool:
        """Call the mesh port as the vector's peer; tell whether a request was answered."""
        tcp = await trio.open_tcp_stream(*self._node.at("mesh"))
        stream = trio.SSLStream(tcp, client_context(self._shown, [ALPN]), server_hostname=SNI)
        peer = Peer(stream)
        with trio.move_on_after(PATIENCE_S):
            try:
                await stream.do_handshake()
            except (trio.BrokenResourceError, ssl.SSLError):
                await trio.aclose_forcefully(tcp)
                return False
            await peer.send(b"GET / HTTP/1.1\r\nhost: cart.shop\r\n\r\n")
            head = await peer.message()
        await trio.aclose_forcefully(tcp)
        return head.startswith(b"HTTP/1.1 200")

    async def _calls(self) -> bool:
        """Have the engine call the vector's peer; tell whether its answer came back."""
        peer = Peer(await trio.open_tcp_stream(*self._node.at("proxy")))
        async with peer.stream:
            await peer.send(b"GET / HTTP/1.1\r\nHost: cart.shop\r\nConnection: close\r\n\r\n")
            with trio.move_on_after(PATIENCE_S):
                await peer.rest()
        return peer.taken.startswith(b"HTTP/1.1 200")

    async def _serve(self, peer: Peer) -> None:
        while await peer.message():
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def _listen(self) -> list[Any]:
        """Serve a mesh port that shows what the vector's peer shows."""

        async def one(tcp: trio.SocketStream) -> None:
            context = server_context(self._shown, [ALPN], [], AUTHORITY.bundle_pem)
            context.verify_mode = ssl.CERT_NONE
            stream = trio.SSLStream(tcp, context, server_side=True)
            peer = Peer(stream)
            try:
                await stream.do_handshake()
                if await peer.message():
                    await peer.send(_ANSWER)
                    await stream.aclose()
            except (trio.BrokenResourceError, ssl.SSLError):
                pass  # refused, as most are to be
            await trio.aclose_forcefully(tcp)

        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        self._node.nursery.start_soon(trio.serve_listeners, one, [listener])
        return list(listener.socket.getsockname()[:2])


def _pins(dialled: dict[str, Any]) -> list[bytes] | None:
    return None if dialled["pins"] is None else [bytes.fromhex(one) for one in dialled["pins"]]


def _wanted(vector: dict[str, Any]) -> str:
    """Return `served`, the code of the refusal, or `handshake` for one that ends before anyone is asked."""
    return "handshake" if vector["openssl_refuses"] else str(vector.get("refused", "served"))


def _ends(counted: Counter[str]) -> int:
    return sum(count for name, count in counted.items() if name.startswith("tls_"))


def _codes(counted: Counter[str]) -> Counter[str]:
    """Return how often each code was counted, written as the vectors write it."""
    beginning = "peers_refused_"
    codes = {name: count for name, count in counted.items() if name.startswith(beginning)}
    return Counter({name.removeprefix(beginning).replace("_", "-"): count for name, count in codes.items()})
