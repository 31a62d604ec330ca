"""Targets between a node and its authority: requests that good keys sign, and answers."""

from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

from gossipmesh.agent.identity import enrolment
from gossipmesh.agent.identity.authority_client import AuthorityClient
from gossipmesh.agent.identity.identity_store import open_stored_untrusted
from gossipmesh.control.pacing import Bucket
from gossipmesh.control.server import _decode_untrusted
from gossipmesh.model.enrolment import EnrolRequest, OpenReport, RenewRequest
from gossipmesh.model.errors import OperatorError
from gossipmesh.net.tls import AnonymousContext
from gossipmesh.trust.peer_identity import PeerFacts
from tests.fuzz.decoders import Target
from tests.fuzz.enrolled import NODE, NOW, PLACE, Enrolled, signed


class Answering(AuthorityClient):
    """An authority that answers with what it is given."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer = answer

    async def post(
        self,
        authorities: Sequence[str],
        context: AnonymousContext,
        facts: PeerFacts,
        target: str,
        body: bytes,
    ) -> bytes:
        return self._answer


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what waits for nothing, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited for something")


def proven(request: Any, data: bytes) -> Any:
    """Sign what was mutated, every other time: else the proof is of what it was before."""
    return signed(request) if len(data) % 2 else request


def request_targets() -> list[Target]:
    made = Enrolled("requests")
    made.issuer._renewals = Bucket(2**40, 1)

    def feed_enrol(data: bytes) -> tuple[int, int]:
        made.token_path.write_bytes(made.unspent)
        request = proven(_decode_untrusted(data, EnrolRequest), data)
        issued = made.issuer.enrol(request, NOW, "10.0.0.1")
        assert issued.svids[0].spiffe_id == NODE
        assert all(svid.spiffe_id.startswith("spiffe://mesh.test/") for svid in issued.svids)
        return 0, 1

    def feed_renew(data: bytes) -> tuple[int, int]:
        request = proven(_decode_untrusted(data, RenewRequest), data)
        before = made.ledger.enrolment("n1")
        issued = made.issuer.renew(request, NOW, "10.0.0.1")
        after = made.ledger.enrolment("n1")
        assert before is not None
        assert after is not None
        assert after.generation == before.generation
        assert after.serial > before.serial
        assert issued.svids[0].spiffe_id == NODE
        return 0, 1

    def feed_open(data: bytes) -> tuple[int, int]:
        made.issuer.take_report(proven(_decode_untrusted(data, OpenReport), data), NOW, "10.0.0.1")
        return 0, 1

    enrol = [msgspec.json.encode(signed(made.enrol_request()))]
    renew = [msgspec.json.encode(signed(made.renew_request()))]
    report = [msgspec.json.encode(signed(OpenReport(NODE, "by peers", NOW)))]
    return [
        Target("enrol-request", 2, "json", enrol, feed_enrol, 0, 1, True),
        Target("renew-request", 2, "json", renew, feed_renew, 0, 1, True),
        Target("open-report", 2, "json", report, feed_open, 0, 1, True),
    ]


def answer_target() -> Target:
    made = Enrolled("answers")
    identity = open_stored_untrusted(made.stored())
    leaves = {name: held.current for name, held in identity.holding.keys.items()}
    answer = made.issuer.renew(signed(made.renew_request()), NOW)

    def feed(data: bytes) -> tuple[int, int]:
        """Whatever the authority answers, what is kept of it holds."""
        asked = enrolment.renew(
            identity, leaves, clock=lambda: NOW, client=Answering(data), authorities=(PLACE,)
        )
        renewal = finished(asked)
        assert renewal.identity.credential_body.signing_key == identity.signing.public
        assert renewal.keys.keys() <= {key.pin for key in leaves.values()}
        return 0, 1

    corpus = [msgspec.json.encode(answer), msgspec.json.encode(made.issued)]
    return Target("issued-answer", 2, "json", corpus, feed, 0, 1, True, (OperatorError,))


def enrolment_targets() -> list[Target]:
    """Return every target of this module."""
    return [*request_targets(), answer_target()]
