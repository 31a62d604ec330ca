"""A story of signed documents whose envelopes are changed on the way: equal Trust stays equal."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from gossipmesh.model.documents import TrustDocument
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.testing.builders import http_route
from gossipmesh.testing.relayer import changed_envelope
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.run import Run
from gossipmesh.trust.documents import AcceptedSet, PolicySet, TrustedDocuments
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, seal_envelope
from gossipmesh.trust.keys import SigningKey, Verifier
from gossipmesh.wire.versions import FEATURES, TRUST_FIELDS

ROOTS: Final = 3
THRESHOLD: Final = 2
REST_S: Final = 30
WHOLE_S: Final = 20


class Changing(TrustedDocuments):
    """What a member believes that shows all it holds in other envelopes, each time."""

    def __init__(self, *, trust_domain: str, verifier: Verifier, features: Sequence[str]) -> None:
        super().__init__(trust_domain=trust_domain, verifier=verifier, features=features)
        self._rng = random.Random(trust_domain)

    @property
    def trust_envelopes(self) -> list[bytes]:
        """Return the envelopes of all versions, changed."""
        return [changed_envelope(one, self._rng, THRESHOLD) for one in super().trust_envelopes]

    def in_force(self, scope: str) -> AcceptedSet | None:
        """Return the set in force, its envelope changed."""
        held = super().in_force(scope)
        if held is None:
            return None
        manifest = changed_envelope(held.raw.manifest, self._rng)
        return replace(held, raw=PolicySet(manifest, held.raw.bodies))


def changed_envelopes(run: Run) -> None:
    """Halves are given one Trust with other signatures each, and one member changes all it passes on.

    All are equal after the heal, a node that was away and one that changed its disk too, and nobody compares.
    """
    roots = [run.domain.signing_key(f"root/{number}") for number in range(ROOTS)]
    run.factory.features = tuple(sorted((*FEATURES, TRUST_FIELDS)))
    run.domain.trust_envelope = _signed(run, 1, roots)
    run.boot_and_settle()
    relayer, away = run.sample(2, but_not=[run.hosts[0]])
    _pass_on_changed(run, relayer)
    run.push_policy(run.pick(but_not=[relayer]), 1, [http_route("before")])
    run.settle()

    run.world.kill_agent(away)
    left, right = run.halves()
    rule = run.world.partition("halves", left, right)
    for side, signing in ((left, roots[:THRESHOLD]), (right, roots[-THRESHOLD:])):
        given = changed_envelope(_signed(run, 2, signing), run.script, THRESHOLD)
        _offer(run, [run.world.hosts[name] for name in side], given)
    run.world.run_for(5 * SECOND_NS)
    run.world.heal(rule)
    run.world.start(away)
    run.publish(away)
    run.wait_equal_sums(WHOLE_S * SECOND_NS)
    run.settle()
    _require_trust(run, 2)

    before_count = _comparisons(run)
    run.world.run_for(REST_S * SECOND_NS)
    at_rest_count = _comparisons(run) - before_count
    # One each in five minutes is due whatever the sums say, and both ends count it.
    run.require(at_rest_count <= len(run.hosts), f"{at_rest_count} comparisons within {REST_S} s of rest")


def _signed(run: Run, version: int, keys: Sequence[SigningKey]) -> bytes:
    """Return a version of Trust that names all root keys, signed by some."""
    named = tuple(run.domain.signing_key(f"root/{number}").public.hex() for number in range(ROOTS))
    document = msgspec.structs.replace(
        run.domain.trust_document(version), root_keys=named, root_threshold=THRESHOLD
    )
    return seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(document), list(keys)).to_bytes()


def _offer(run: Run, side: Sequence[Host], envelope: bytes) -> None:
    host = next(host for host in side if host.core is not None)
    run.world.call(host, lambda core, now: core.offer_trust(envelope, now))


def _pass_on_changed(run: Run, host: Host) -> None:
    """Have a member answer with changed envelopes from its next start on."""
    run.world.kill_agent(host)
    run.factory.documents_class = Changing
    run.world.start(host)
    run.factory.documents_class = TrustedDocuments
    run.publish(host)


def _require_trust(run: Run, version: int) -> None:
    held: list[TrustDocument | None] = [run.factory.documents[host.name].trust for host in run.running()]
    run.require(
        all(one is not None and one.version == version for one in held), f"Trust {version} is not everywhere"
    )


def _comparisons(run: Run) -> int:
    return sum(run.core(host).statistics().repairs_completed for host in run.running())


CHANGED_ENVELOPES: Final[dict[str, Callable[[Run], None]]] = {"changed-envelopes": changed_envelopes}
