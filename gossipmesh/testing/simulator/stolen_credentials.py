"""Stories of a credential key that was stolen: dropped with a roll, nobody on it leaves, and the thief's go.

A part of `scenarios`. A tenth of the mesh is away while it happens. Whether members online take one another
for members is asked of the cores themselves, by the credential that each would show in a handshake.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from gossipmesh.gossip.base.effects import Effect
from gossipmesh.gossip.inspection import hello_refusal
from gossipmesh.model.documents import TrustDocument
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.instant import MILLISECOND_NS, SECOND_NS, Instant
from gossipmesh.model.records import NodeCredential, RecordKind, SignedRecord
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.priming import boot_known
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.keys import SigningKey
from gossipmesh.trust.records import sign_record
from gossipmesh.trust.roll import Roll, make_roll
from gossipmesh.wire.codec import decode_untrusted
from gossipmesh.wire.versions import FEATURES, LACKS_ROLL, ROLLS, TRUST_FIELDS

EVERYWHERE_NS_MAX: Final = 20 * SECOND_NS
WHOLE_NS_MAX: Final = 5 * SECOND_NS
_AWAY_SHARE: Final = 10
_SHAKING: Final = 20
_LOOK_NS: Final = 100 * MILLISECOND_NS
_APART_NS: Final = SECOND_NS
_THIEF: Final = "thief-1"
_CREDENTIAL_BYTES_MAX: Final = 65_536


class Theft:
    """One mesh whose credential key is in other hands."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.stolen: SigningKey = run.domain.credential_key
        self.handshakes_count = 0
        run.factory.features = tuple(sorted((*FEATURES, ROLLS, TRUST_FIELDS)))
        for host in run.hosts:  # what stands on its disk, whatever key the authority has later
            keys = run.domain.node(host.identity)
            run.factory.renewed[host.identity, host.generation] = keys.credential

    def credential(self, name: str, **changes: Any) -> NodeCredential:
        """Return a name's credential with some fields changed."""
        record = self.run.domain.node(name).credential
        held = decode_untrusted(record.body, NodeCredential, bytes_max=_CREDENTIAL_BYTES_MAX)
        return msgspec.structs.replace(held, **changes)

    def signed(self, credential: NodeCredential, key: SigningKey) -> SignedRecord:
        """Return a credential as a key signs it."""
        return sign_record(self.run.domain.trust_domain, RecordKind.CREDENTIAL, credential, key)

    def forgeries(self, taken_over: Host, taken_out: Host, generation: int) -> list[SignedRecord]:
        """Return what the thief signs: a name of its own, another's, and a tombstone."""
        keys = self.run.domain.node(_THIEF)
        own = decode_untrusted(keys.credential.body, NodeCredential, bytes_max=_CREDENTIAL_BYTES_MAX)
        over = {"signing_key": own.signing_key, "exchange_key": own.exchange_key}
        nothing = {"signing_key": b"", "exchange_key": b"", "spki_hashes": (), "service_patterns": ()}
        made = [
            own,
            self.credential(taken_over.identity, generation=generation, **over),
            self.credential(taken_out.identity, generation=generation, **nothing),
        ]
        return [self.signed(one, self.stolen) for one in made]

    def drop_key(self) -> tuple[bytes, Roll]:
        """Return the Trust that drops the stolen key, and its roll; the authority has another from now on."""
        run, domain = self.run, self.run.domain
        domain.credential_key = domain.signing_key("credential again")
        listed = [self.credential(host.identity) for host in run.hosts]
        listed.sort(key=lambda credential: credential.node_id)
        roll = make_roll(domain.trust_domain, [self.signed(one, domain.credential_key) for one in listed])
        document: TrustDocument = domain.trust_document(2)
        return domain.sign_trust(msgspec.structs.replace(document, roll=roll.name)), roll

    # -- what is looked at ------------------------------------------------------------------

    def lacking(self) -> list[str]:
        """Return the running hosts whose roll is not there."""
        run = self.run
        return [host.name for host in run.running() if run.core(host).roll_missing_count != 0]

    def shake_hands(self) -> None:
        """Have a sample of those online judge what the others of it would show; none may be refused."""
        hosts = self.run.sample(min(_SHAKING, len(self.run.running())))
        for one in hosts:
            for other in hosts:
                if one is other:
                    continue
                refusal = hello_refusal(self.run.core(one), self.run.core(other))
                self.handshakes_count += 1
                self.run.require(not refusal, f"{one.name} refuses {other.name}: {refusal}")

    def is_whole(self, host: Host, panel: Sequence[Host]) -> bool:
        """Tell whether a host holds what others hold, the roll too, and they hold it alive."""
        core = self.run.core(host)
        sums = core.state_sums()
        views = [self.run.core(one).member(self.run.node_id(host)) for one in panel]
        return (
            LACKS_ROLL not in core.own_state.features
            and core.roll_missing_count == 0
            and all(self.run.core(one).state_sums() == sums for one in panel)
            and all(view is not None and view.status.label == "alive" for view in views)
        )


def _offer(what: str, value: Any, core: Any, now: Instant) -> list[Effect]:
    effects: list[Effect] = getattr(core, what)(value, now)
    return effects


def _give(run: Run, host: Host, what: str, value: Any) -> None:
    run.invariants.disturbed(run.world, [])
    run.world.call(host, partial(_offer, what, value))


def _refuses(run: Run, host: Host, record: SignedRecord) -> bool:
    try:
        _give(run, host, "offer_credential", record)
    except MalformedInput:
        return True
    return False


def stolen_credential_key(run: Run) -> None:
    """The thief makes, takes over and takes out; the key is dropped; all come back within five seconds."""
    _steal(run, 0)


def stolen_credential_key_apart(run: Run) -> None:
    """As above; but those who come back meet only one another first, and some know what the thief signed."""
    _steal(run, _APART_NS)


def _steal(run: Run, apart_ns: int) -> None:
    theft = Theft(run)
    boot_known(run)
    taken_over, taken_out, *away = run.sample(
        2 + max(1, len(run.hosts) // _AWAY_SHARE), but_not=[run.hosts[0]]
    )
    for host in () if apart_ns else away:
        run.world.kill_node(host)
    run.invariants.unwell |= {taken_over.name, taken_out.name}
    run.invariants.disturbed(run.world, [host.name for host in (taken_over, taken_out, *away)])
    for record in theft.forgeries(taken_over, taken_out, 2):
        _give(run, run.pick(but_not=[taken_over, taken_out]), "offer_credential", record)
    hit = run.world.run_until_true(lambda: taken_out.core is None, EVERYWHERE_NS_MAX, _LOOK_NS)
    run.require(hit, f"{taken_out.name} was taken out, and goes on")
    run.world.run_for(SECOND_NS)
    run.world.kill_node(taken_over)  # as its shell does; the simulator's leaves one that was enrolled again
    for host in away if apart_ns else ():  # with the thief's word on their disks
        run.world.kill_node(host)

    began_ns = run.world.now_ns
    envelope, roll = theft.drop_key()
    operator = run.pick()
    _give(run, operator, "offer_trust", envelope)
    run.world.run_for(_LOOK_NS)
    for piece in roll.pieces:
        _give(run, operator, "offer_roll", piece)
    while theft.lacking():
        run.require(run.world.now_ns - began_ns < EVERYWHERE_NS_MAX, f"no roll at {theft.lacking()[:5]}")
        theft.shake_hands()
        run.world.run_for(_LOOK_NS)
    run.measure("roll_everywhere_s", run.world.now_ns - began_ns)
    theft.shake_hands()
    for record in theft.forgeries(taken_over, taken_out, 3):
        wrong = [
            host.name
            for host in run.sample(min(_SHAKING, len(run.running())))
            if not _refuses(run, host, record)
        ]
        run.require(not wrong, f"{wrong} take what the stolen key signs")
    _come_back(run, theft, [taken_over, taken_out, *away], apart_ns)
    thief_id = run.domain.node(_THIEF).node_id
    known = [host.name for host in run.running() if run.core(host).keys_of(thief_id) is not None]
    run.require(not known, f"the thief's node is known to {known[:5]}")
    run.measured["handshakes"] = theft.handshakes_count


def _come_back(run: Run, theft: Theft, returning: Sequence[Host], apart_ns: int) -> None:
    """Start those who were away within a second, and measure until each of them is whole.

    Args:
        apart_ns: so long nobody else reaches them; times count from then.
    """
    panel = run.sample(3)
    names = [host.name for host in returning]
    rule = run.world.partition("back", names, [host.name for host in run.running()]) if apart_ns else None
    started: dict[str, int] = {}
    for host in returning:
        run.world.run_for(SECOND_NS // len(returning))
        run.invariants.unwell.discard(host.name)
        run.world.start(host)
        started[host.name] = run.world.now_ns
        run.publish(host)
    if rule is not None:
        run.world.run_for(apart_ns)
        run.world.heal(rule)
        started = dict.fromkeys(started, run.world.now_ns)
    whole_ns: dict[str, int] = {}

    def all_whole() -> bool:
        for host in returning:
            run.require(host.core is not None, f"{host.name} ended again by what the thief signed")
            if host.name not in whole_ns and theft.is_whole(host, panel):
                whole_ns[host.name] = run.world.now_ns - started[host.name]
        return len(whole_ns) == len(returning)

    run.world.run_until_true(all_whole, EVERYWHERE_NS_MAX, _LOOK_NS)
    late = [host.name for host in returning if whole_ns.get(host.name, WHOLE_NS_MAX + 1) > WHOLE_NS_MAX]
    run.require(not late, f"{len(late)} of {len(returning)} are not whole after 5 s: {late[:5]}")
    times = sorted(whole_ns.values())
    run.measure("back_p50_s", times[len(times) // 2])
    run.measure("back_last_s", times[-1])
    theft.shake_hands()
    run.wait_equal_sums(run.invariants.converge_ns)


STOLEN_CREDENTIALS: Final[dict[str, Callable[[Run], None]]] = {
    "stolen-credential-key": stolen_credential_key,
    "stolen-credential-apart": stolen_credential_key_apart,
}
