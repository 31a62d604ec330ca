"""Stories of a policy signer whose key was stolen: the scope is shut, and the next Trust opens it again."""

from collections.abc import Callable
from typing import Final

import msgspec

from gossipmesh.gossip.base.effects import Persist, PersistKind
from gossipmesh.model.documents import first_version_of
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.testing.builders import http_route
from gossipmesh.testing.simulator import enemy
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.documents import AcceptedSet
from gossipmesh.wire.codec import encode

NEXT: Final = first_version_of(1)
EVERYWHERE_S: Final = 20


def stolen_signer(run: Run) -> None:
    """A thief spreads the last version there is; Trust 2 and the set signed anew win, one node being away."""
    run.boot_and_settle()
    run.push_policy(run.pick(), 1, [http_route("before")])
    run.settle()
    thief, away = run.sample(2, but_not=[run.hosts[0]])
    stolen = run.domain.documents().check_untrusted(run.domain.policy_set(NEXT - 1, [http_route("open")]))
    _plant(run, thief, stolen)
    _wait_everywhere(run, NEXT - 1)
    enemy.refused_at_the_door(run, run.pick(), "generation", run.domain.policy_set(NEXT, [http_route("x")]))

    run.world.kill_agent(away)
    envelope = _next_trust(run)
    documents = run.domain.documents()
    documents.load_trust_untrusted(envelope)
    anew = documents.check_untrusted(run.domain.policy_set(NEXT + 1, [http_route("before")]))
    run.invariants.signed(anew.scope, anew.version, anew.manifest_hash)
    operator = run.pick(but_not=[thief])
    run.world.call(operator, lambda core, now: core.offer_trust(envelope, now))
    run.world.run_for(SECOND_NS)
    began_ns = run.world.now_ns
    run.offer(operator, anew.raw)
    _wait_everywhere(run, NEXT + 1)
    run.measure("undone_everywhere_s", run.world.now_ns - began_ns)
    run.world.start(away)
    run.publish(away)
    _wait_everywhere(run, NEXT + 1)
    enemy.refused_at_the_door(run, run.pick(), "signature", stolen.raw)
    run.settle()
    run.require_policy("mesh", NEXT + 1)


def _plant(run: Run, thief: Host, stolen: AcceptedSet) -> None:
    """Start a node with a set on its disk that nobody publishes."""
    run.invariants.signed(stolen.scope, stolen.version, stolen.manifest_hash)
    run.world.kill_agent(thief)
    floor = encode([stolen.version, stolen.manifest_hash])
    thief.disk.write(Persist(PersistKind.POLICY_SET, b"mesh", stolen.raw.to_bytes(), durable=True))
    thief.disk.write(Persist(PersistKind.FLOOR, b"mesh", floor, durable=True))
    run.world.start(thief)
    run.publish(thief)


def _next_trust(run: Run) -> bytes:
    """Return Trust 2: another key for the signer, and the next generation; the domain signs with it now."""
    domain = run.domain
    domain.signers["policy"] = domain.signing_key("signer/policy again")
    return domain.sign_trust(msgspec.structs.replace(domain.trust_document(2), floors={"mesh": NEXT}))


def _wait_everywhere(run: Run, version: int) -> None:
    def runs() -> bool:
        held = [run.factory.documents[host.name].in_force("mesh") for host in run.running()]
        return all(one is not None and one.version == version for one in held)

    done = run.world.run_until_true(runs, EVERYWHERE_S * SECOND_NS, SECOND_NS // 10)
    run.require(done, f"version {version} does not run everywhere after {EVERYWHERE_S} s")


STOLEN_SIGNERS: Final[dict[str, Callable[[Run], None]]] = {"stolen-signer": stolen_signer}
