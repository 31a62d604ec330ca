"""What it costs an engine to judge its peers by the keys that members list.

`python -m bench.peer_identity [MEMBERS]`: tables of MEMBERS nodes with five identities of two keys each,
given to the state of an engine; no sockets. Memory is what the snapshot's bytes take and what Python
allocates to read them; times are CPU of this process. A handshake is whole (TLS 1.3, certificates on both
sides, in memory): alone, with the question who the peer is at both ends, and with what was done before,
reading one name. Ends with one JSON object.
"""

import argparse
import json
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable
from ssl import MemoryBIO, SSLContext, SSLWantReadError
from typing import Any, Final

from gossipmesh.dataplane.protocol import Identity
from gossipmesh.dataplane.reference.state import EngineState
from gossipmesh.dataplane.reference.statistics import Counters
from gossipmesh.model.identity import service_spiffe_id
from gossipmesh.model.instant import Instant
from gossipmesh.model.snapshot import (
    CREDENTIAL_ENTRY_BYTES,
    HAS_KEY_SETS,
    PIN_ENTRY_BYTES,
    CredentialsSection,
    PinsSection,
)
from gossipmesh.net.tls import ALPN_HTTP, client_context, server_context
from gossipmesh.testing.peer_sections import peer_sections
from gossipmesh.traffic.compiler import DEFAULT_LIMITS, SnapshotCompiler
from gossipmesh.traffic.inputs import SnapshotInputs
from gossipmesh.traffic.sections import Snapshot, decode_section_untrusted, encode_section, make_snapshot
from gossipmesh.trust.carrier import carrier_leaf_pem, carrier_root_pem
from gossipmesh.trust.peer_identity import PeerFacts, Presented, identify_untrusted
from gossipmesh.trust.svid import leaf_key_pem
from gossipmesh.trust.x509_leaf import certificates_in_pem_untrusted, read_leaf_untrusted

DOMAIN: Final = "mesh.example"
IDENTITIES: Final = 5
KEYS: Final = 2
HANDSHAKES: Final = 400
QUESTIONS: Final = 20_000
LEAVES: Final = 1_000
CHANGES: Final = 50
CART: Final = service_spiffe_id(DOMAIN, "shop/cart")


def tables(members: int, rng: random.Random, own: dict[bytes, bytes]) -> dict[str, bytes]:
    """Return what an engine is told of so many members, and of `own` keys, as sections' bytes."""
    nodes = [rng.randbytes(8) for _ in range(members)]
    pins = {rng.randbytes(16): node for node in nodes for _ in range(IDENTITIES * KEYS)}
    said = dict.fromkeys((*nodes, *own.values()), (1800000000, 1800000000, HAS_KEY_SETS))
    sections = peer_sections((carrier_root_pem("issuing.example").decode(),), {**pins, **own}, said)
    return {name: encode_section(section) for name, section in sections.items()}


def plain_sections() -> dict[str, bytes]:
    """Return the sections every snapshot has."""
    inputs = SnapshotInputs(DOMAIN, "n0", (), {}, (), (), DEFAULT_LIMITS)
    snapshot = SnapshotCompiler().compile(inputs)
    return {name: snapshot.sections[digest] for name, digest in snapshot.root.items()}


def identity(label: int) -> Identity:
    """Return a carrier's leaf and its key."""
    key = leaf_key_pem(label.to_bytes(48, "big"))
    return Identity(CART, carrier_leaf_pem(DOMAIN, CART, key, label + 1), key)


def presented(one: Identity) -> Presented:
    """Return what a peer of this identity shows."""
    (leaf,) = certificates_in_pem_untrusted(one.chain_pem)
    return Presented(leaf, certificates_in_pem_untrusted(carrier_root_pem(DOMAIN)))


def cpu_us(work: Callable[[], object], count: int) -> float:
    """Return the CPU microseconds one call takes, of `count`."""
    began = time.process_time_ns()
    for _ in range(count):
        work()
    return round((time.process_time_ns() - began) / 1_000 / count, 2)


def shaken(client: SSLContext, server: SSLContext) -> tuple[Any, Any]:
    """Shake hands in memory; return both ends."""
    to_server, to_client = MemoryBIO(), MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=None)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (near, far, near, far):
        try:
            end.do_handshake()
        except SSLWantReadError:
            pass
    return near, far


def handshakes(facts: PeerFacts, one: Identity) -> dict[str, float]:
    """Return what a handshake takes of both sides' CPU, with the question at each end and without."""
    root = carrier_root_pem(DOMAIN)
    client, server = client_context(one, root, ALPN_HTTP), server_context(one, root)

    def bare() -> None:
        shaken(client, server)

    def judged() -> None:
        for end in shaken(client, server):
            identify_untrusted(end.presented(), facts)

    def named() -> None:
        for end in shaken(client, server):
            end.getpeercert()

    rounds = [[cpu_us(work, HANDSHAKES // 8) for work in (bare, judged, named)] for _ in range(8)]
    alone, asked, read = (statistics.median(times) for times in zip(*rounds, strict=True))
    return {
        "alone_us": round(alone, 1),
        "judged_more_us": round(asked - alone, 1),
        "named_more_us": round(read - alone, 1),
    }


def snapshots(state: EngineState, plain: dict[str, bytes], told: dict[str, bytes]) -> dict[str, float]:
    """Give the state all tables, then one shard anew again and again; return CPU milliseconds and memory."""
    state.apply(state.prepare(make_snapshot(plain)), Instant(0))
    first: Snapshot = make_snapshot({**plain, **told})
    first_ms = cpu_us(lambda: state.apply(state.prepare(first), Instant(0)), 1) / 1_000
    state.apply(state.prepare(make_snapshot(plain)), Instant(0))
    tracemalloc.start()
    state.apply(state.prepare(first), Instant(0))
    read_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    shards = [name for name in told if name.startswith(("pins/", "credentials/"))]
    changes = []
    for number in range(CHANGES):
        name = shards[number % len(shards)]
        changed = make_snapshot({**plain, **told, name: without_its_last(name, told[name])})
        changes.append(cpu_us(lambda: state.apply(state.prepare(changed), Instant(0)), 1) / 1_000)  # noqa: B023
    state.apply(state.prepare(first), Instant(0))
    return {
        "tables_bytes": sum(map(len, told.values())),
        "engine_holds_mb": round((sum(map(len, told.values())) + read_bytes) / 1e6, 1),
        "first_snapshot_ms": round(first_ms, 1),
        "one_shard_changed_ms": round(statistics.median(changes), 2),
    }


def without_its_last(name: str, data: bytes) -> bytes:
    """Return a section's bytes without its last entry."""
    section = decode_section_untrusted(name, data)
    if isinstance(section, PinsSection):
        return encode_section(PinsSection(section.entries[:-PIN_ENTRY_BYTES]))
    assert isinstance(section, CredentialsSection)
    return encode_section(CredentialsSection(section.entries[:-CREDENTIAL_ENTRY_BYTES]))


def measure(members: int) -> dict[str, Any]:
    """Measure all of it."""
    rng = random.Random(members)
    many = [presented(identity(label)) for label in range(LEAVES)]
    own = {read_leaf_untrusted(one.leaf).pin: rng.randbytes(8) for one in many}
    told = tables(members, rng, own)
    state = EngineState(Counters(), rng, lambda _event: None)
    state.peers.trust_roots(frozenset())
    state.peers.attend(attached=True)
    result: dict[str, Any] = {"members": members, **snapshots(state, plain_sections(), told)}
    facts = state.peers.facts(Instant(0))
    assert facts is not None
    known = many[0]
    result["known_leaf_us"] = cpu_us(lambda: identify_untrusted(known, facts), QUESTIONS)
    fresh = iter(many)  # twice as many as are remembered
    result["new_leaf_us"] = cpu_us(lambda: identify_untrusted(next(fresh), facts), LEAVES)
    result["handshake"] = handshakes(facts, identity(0))
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("members", type=int, nargs="?", default=10_000)
    print(json.dumps(measure(parser.parse_args().members)))


if __name__ == "__main__":
    main()
