"""The stories of key sets and tombstones: what nodes publish of their keys, and members taken out of a mesh.

A part of `scenarios`. Each wait is bounded, and measured under its own name.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from gossipmesh.gossip.base.effects import Effect
from gossipmesh.model.identity import node_path, workloads_path
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.member import MemberStatus
from gossipmesh.model.records import IdentityPins, NodeCredential, RecordKind, SignedRecord
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.priming import boot_known
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.pins import pin_of
from gossipmesh.trust.records import sign_record
from gossipmesh.wire.codec import decode_untrusted

SPREAD_NS_MAX: Final = 10 * SECOND_NS
REVOKED_NS_MAX: Final = 10 * SECOND_NS
TOLD_NS_MAX: Final = 15 * SECOND_NS
P99_NS_MAX: Final = 2 * SECOND_NS
LOOK_OFTEN_NS: Final = 10 * MILLISECOND_NS
FORGOTTEN_COUNT: Final = 10
IDLE_BYTES_PER_S_MAX: Final = 400
_CALM_AFTER_NS: Final = 10 * SECOND_NS
_WATCHED_S: Final = 30
_CREDENTIAL_BYTES_MAX: Final = 65_536


def entries_of(run: Run, host: Host, turn: int) -> list[IdentityPins]:
    """Return what a host publishes after so many turns: the current key and the next, of two identities."""
    domain = run.domain.trust_domain
    return [
        IdentityPins(path, tuple(pin_of(f"spiffe://{domain}{path}", _key(turn + n)) for n in (0, 1)))
        for path in (node_path(host.identity), workloads_path(host.identity))
    ]


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def turn_keys(run: Run, host: Host, turn: int = 0) -> None:
    """Have a host publish the keys of a turn."""
    run.invariants.disturbed(run.world, [])
    entries = entries_of(run, host, turn)
    run.world.call(host, partial(_turn_keys, entries))


def _turn_keys(entries: Sequence[IdentityPins], core: Any, now: Instant) -> list[Effect]:
    effects: list[Effect] = core.turn_keys(entries, now)
    return effects


def tombstone(run: Run, host: Host) -> SignedRecord:
    """Return what takes a host's present credential out of the mesh."""
    record = run.domain.node(host.identity, generation=host.generation).credential
    held = decode_untrusted(record.body, NodeCredential, bytes_max=_CREDENTIAL_BYTES_MAX)
    ended = msgspec.structs.replace(
        held,
        generation=host.generation + 1,
        signing_key=b"",
        exchange_key=b"",
        spki_hashes=(),
        service_patterns=(),
    )
    return sign_record(run.domain.trust_domain, RecordKind.CREDENTIAL, ended, run.domain.credential_key)


def revoke(run: Run, host: Host, *, at: Host) -> None:
    """Hand a host's tombstone to another agent."""
    run.invariants.unwell.add(host.name)  # it lives, and is rightly held gone
    run.invariants.disturbed(run.world, [host.name])
    record = tombstone(run, host)
    run.world.call(at, partial(_offer, record))


def _offer(record: SignedRecord, core: Any, now: Instant) -> list[Effect]:
    effects: list[Effect] = core.offer_credential(record, now)
    return effects


def knows(run: Run, observer: Host, subject: Host) -> bool:
    """Tell whether anything at a host still takes another for a member."""
    core, node_id = run.core(observer), run.node_id(subject)
    keys = core.keys_of(node_id)
    is_used = core.member(node_id) is not None or core.endpoints_of(node_id) is not None
    return is_used or keys is None or not keys.is_revoked


def wait_gone(run: Run, subject: Host, observers: Sequence[Host], timeout_ns: int) -> list[int]:
    """Let time pass until nobody knows a host any more; return after how many ns each did so, sorted."""
    began_ns = run.world.now_ns
    waiting = list(observers)
    gone_ns: list[int] = []

    def is_gone() -> bool:
        gone_ns.extend(run.world.now_ns - began_ns for host in waiting if not knows(run, host, subject))
        waiting[:] = [host for host in waiting if knows(run, host, subject)]
        return not waiting

    run.world.run_until_true(is_gone, timeout_ns, LOOK_OFTEN_NS)
    names = ", ".join(host.name for host in waiting[:5])
    run.require(not waiting, f"{subject.name} is revoked, and {len(waiting)} still know it: {names}")
    return sorted(gone_ns)


def wait_ended(run: Run, subject: Host) -> None:
    """Let time pass until a revoked host was told so, and ended."""
    ended = run.world.run_until_true(lambda: subject.core is None, TOLD_NS_MAX, LOOK_OFTEN_NS)
    run.require(ended, f"{subject.name} is revoked, and goes on")


def others(run: Run, subject: Host) -> list[Host]:
    """Return the running hosts without one."""
    return [host for host in run.running() if host is not subject]


def come_back(run: Run, subject: Host) -> None:
    """Enrol a revoked host's name again, and have it taken in."""
    subject.generation += 1  # its tombstone's; a new disk is an enrolment of its own
    run.world.replace_disk(subject)
    run.invariants.unwell.discard(subject.name)
    run.world.start(subject, run.seeds())
    run.publish(subject)
    run.settle()
    run.require_status(subject, MemberStatus.ALIVE)


def key_sets(run: Run) -> None:
    """Everybody publishes its keys; one turns them, one starts anew, and all hold what each signed last."""
    run.boot_and_settle()
    began_ns = run.world.now_ns
    for host in run.hosts:
        turn_keys(run, host)
    run.wait_equal_sums(SPREAD_NS_MAX)
    run.measure("all_published_s", run.world.now_ns - began_ns)
    _wait_turned(run, run.pick(), 1, "turned_s")
    restarted = run.pick(but_not=[run.hosts[0]])
    run.world.kill_node(restarted)
    run.world.run_for(SECOND_NS)
    run.world.start(restarted)
    run.publish(restarted)
    run.world.run_for(SECOND_NS)
    _wait_turned(run, restarted, 2, "restarted_s")
    run.settle()


def idle_with_keys(run: Run) -> None:
    """Nothing happens in a mesh whose nodes sign which TLS keys they use: what that costs, in bytes."""
    boot_known(run, prepare=turn_keys)
    run.world.run_for(_CALM_AFTER_NS)
    before = run.world.datagram_bytes
    run.world.run_for(_WATCHED_S * SECOND_NS)
    bytes_per_s = round((run.world.datagram_bytes - before) / _WATCHED_S / len(run.hosts), 1)
    run.measured["bytes_per_s_per_node"] = bytes_per_s
    run.require(bytes_per_s <= IDLE_BYTES_PER_S_MAX, f"{bytes_per_s} B/s a node, with nothing to tell")


def _wait_turned(run: Run, host: Host, turn: int, name: str) -> None:
    began_ns, node_id = run.world.now_ns, run.node_id(host)
    turn_keys(run, host, turn)
    expected = tuple(entries_of(run, host, turn))

    def is_known() -> bool:
        held = [run.core(other).keys_of(node_id) for other in run.running()]
        return all(keys is not None and keys.entries == expected for keys in held)

    found = run.world.run_until_true(is_known, SPREAD_NS_MAX, LOOK_OFTEN_NS)
    run.require(found, f"not everybody knows the keys of {host.name}")
    run.measure(name, run.world.now_ns - began_ns)


def revoked(run: Run) -> None:
    """One is revoked, gone everywhere within two seconds, told to end, and enrolled again."""
    run.boot_and_settle()
    for host in run.hosts:
        turn_keys(run, host)
    run.settle()
    victim = run.pick(but_not=[run.hosts[0]])
    run.world.run_for(run.draw_ns(0, 2))
    revoke(run, victim, at=run.pick(but_not=[victim]))
    times_ns = wait_gone(run, victim, others(run, victim), REVOKED_NS_MAX)
    run.measure("gone_p50_s", times_ns[len(times_ns) // 2])
    run.measure("gone_last_s", times_ns[-1])
    began_ns = run.world.now_ns
    wait_ended(run, victim)
    run.measure("told_s", run.world.now_ns - began_ns)
    run.settle()
    run.world.start(victim)  # whoever starts it all the same: it is told again, and nobody takes it in
    wait_ended(run, victim)
    run.settle()
    run.require(not any(knows(run, host, victim) for host in run.running()), f"{victim.name} came back")
    come_back(run, victim)


def revoked_parted(run: Run) -> None:
    """Revoked beyond a cut, while one host is down: those of the victim's side learn it when they meet."""
    run.boot_and_settle()
    victim = run.pick(but_not=[run.hosts[0]])
    left, right = run.halves()
    if victim.name in right:
        left, right = right, left
    down = next(host for host in run.hosts if host.name in right)
    run.world.kill_node(down)
    rule = run.world.partition("revoked", left, right)
    there = [host for host in run.running() if host.name in right]
    revoke(run, victim, at=there[0])
    wait_gone(run, victim, there, REVOKED_NS_MAX)
    run.world.run_for(run.draw_ns(2, 30))
    run.require(victim.core is not None, f"{victim.name} ended though nobody could tell it")
    began_ns = run.world.now_ns
    run.world.heal(rule)
    run.world.start(down)  # its disk knows the victim
    run.publish(down)
    wait_gone(run, victim, others(run, victim), TOLD_NS_MAX)
    run.measure("healed_s", run.world.now_ns - began_ns)
    wait_ended(run, victim)
    run.settle()
    come_back(run, victim)


def revoked_by_trust(run: Run) -> None:
    """One is revoked by Trust while it is cut off: it is told after it, and at its next start, and ends."""
    run.boot_and_settle()
    victim = run.pick(but_not=[run.hosts[0]])
    trust = msgspec.structs.replace(
        run.domain.trust_document(2), revoked={victim.identity: victim.generation}
    )
    envelope = run.domain.sign_trust(trust)
    run.invariants.unwell.add(victim.name)
    run.invariants.disturbed(run.world, [victim.name])
    operator = run.pick(but_not=[victim])
    rule = run.world.partition("revoked", [victim.name], [host.name for host in others(run, victim)])
    run.world.run_for(run.draw_ns(0, 2))
    run.world.call(operator, lambda core, now: core.offer_trust(envelope, now))
    _wait_dropped(run, victim)
    run.world.run_for(run.draw_ns(0, 20))
    began_ns = run.world.now_ns
    run.world.heal(rule)
    wait_ended(run, victim)
    run.measure("told_s", run.world.now_ns - began_ns)
    victim.disk.wipe()  # it knows nothing of it any more
    run.world.start(victim, run.seeds())
    wait_ended(run, victim)
    _wait_dropped(run, victim)
    come_back(run, victim)


def _wait_dropped(run: Run, subject: Host) -> None:
    """Let time pass until a host is nobody's member."""
    node_id = run.node_id(subject)

    def is_dropped() -> bool:
        return all(run.core(host).member(node_id) is None for host in others(run, subject))

    dropped = run.world.run_until_true(is_dropped, REVOKED_NS_MAX, LOOK_OFTEN_NS)
    run.require(dropped, f"{subject.name} is revoked by Trust, and somebody's member")


def forgotten(run: Run) -> None:
    """Ten times a machine that is off for good is forgotten: by everybody within a second, by the median."""
    run.boot_and_settle()
    lasts_ns = []
    for _ in range(FORGOTTEN_COUNT):
        victim = run.pick(but_not=[run.hosts[0]])
        run.world.kill_node(victim)
        run.world.run_for(run.draw_ns(0.5, 6))
        revoke(run, victim, at=run.pick())
        lasts_ns.append(wait_gone(run, victim, run.running(), REVOKED_NS_MAX)[-1])
        run.settle()
        come_back(run, victim)
    lasts_ns.sort()
    run.measure("forgotten_p50_s", lasts_ns[FORGOTTEN_COUNT // 2])
    run.measure("forgotten_last_s", lasts_ns[-1])
    run.require(lasts_ns[FORGOTTEN_COUNT // 2] <= SECOND_NS, "a forgotten node stays for more than a second")


def revoked_many(run: Run) -> None:
    """In a mesh that knows itself several are revoked, one by one: 99 of 100 members let go within 2 s."""
    boot_known(run, prepare=turn_keys)
    times_ns: list[int] = []
    for victim in run.sample(min(3, len(run.hosts) // 4), but_not=[run.hosts[0]]):
        run.world.run_for(run.draw_ns(1, 3))
        revoke(run, victim, at=run.pick(but_not=[victim]))
        times_ns += wait_gone(run, victim, others(run, victim), REVOKED_NS_MAX)
        wait_ended(run, victim)
    times_ns.sort()
    p99_ns = times_ns[len(times_ns) * 99 // 100]
    run.measure("gone_p50_s", times_ns[len(times_ns) // 2])
    run.measure("gone_p99_s", p99_ns)
    run.measure("gone_last_s", times_ns[-1])
    run.require(p99_ns <= P99_NS_MAX, f"revoked for {p99_ns} ns, and one in a hundred members does not know")
    run.wait_equal_sums(run.invariants.converge_ns)


REVOCATIONS: Final = {
    "key-sets": key_sets,
    "idle-with-keys": idle_with_keys,
    "revoked": revoked,
    "revoked-parted": revoked_parted,
    "revoked-by-trust": revoked_by_trust,
    "forgotten": forgotten,
    "revoked-many": revoked_many,
}
