"""An agent of a mesh that exists only in a test: its admin API over a real Unix socket.

It verifies what it is offered with the real `TrustedDocuments`; what the other members make of it, the
test decides.
"""

import hashlib
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from gossipmesh.control.trust_folder import read_trust
from gossipmesh.model.documents import Signer, SignerRole, TrustDocument
from gossipmesh.model.errors import MalformedInput
from gossipmesh.trust.documents import PolicyRefusal, TrustedDocuments, decode_policy_set_untrusted
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, decode_envelopes_untrusted, seal_envelope
from gossipmesh.trust.keys import SigningKey, Verifier
from gossipmesh.trust.pem import signing_key_to_pem
from gossipmesh.trust.roll import decode_roll_index_untrusted
from gossipmesh.wire.codec import encode
from gossipmesh.wire.versions import FEATURES, MEMBER_FEATURES, POLICY_FEATURES

POLICY_KEY = SigningKey(b"\x01" * 32)
OTHER_KEY = SigningKey(b"\x02" * 32)
ROOT_KEY = SigningKey(b"\x03" * 32)
TRUST_DOMAIN = "mesh.test"


def trusting_node() -> TrustedDocuments:
    """Return the documents of a node that trusts POLICY_KEY and OTHER_KEY for the scope `mesh`."""
    signers = tuple(
        Signer(name, SignerRole.POLICY, key.public.hex(), ("mesh",))
        for name, key in (("policy", POLICY_KEY), ("other", OTHER_KEY))
    )
    trust = TrustDocument(1, TRUST_DOMAIN, ("PEM",), (), (ROOT_KEY.public.hex(),), 1, signers)
    documents = TrustedDocuments(trust_domain=TRUST_DOMAIN, verifier=Verifier(), features=POLICY_FEATURES)
    envelope = seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(trust), [ROOT_KEY])
    documents.load_trust_untrusted(envelope.to_bytes())
    return documents


def write_signer(path: Path, key: SigningKey = POLICY_KEY) -> Path:
    """Write a signer's key as an operator holds it."""
    path.touch(mode=0o600)
    path.write_bytes(signing_key_to_pem(key))
    return path


def documents_under(folder: Path) -> TrustedDocuments:
    """Return what a member holds that took every Trust of the authority in `folder`."""
    documents = TrustedDocuments(trust_domain=TRUST_DOMAIN, verifier=Verifier(), features=FEATURES)
    for envelope in read_trust(folder).trust_envelopes:
        documents.load_trust_untrusted(envelope)
    return documents


class FakeAgent:
    """Node-1's admin API; `others` maps each other member to (status, follows what node-1 runs)."""

    def __init__(self, others: dict[str, tuple[str, bool]]) -> None:
        self.documents = trusting_node()
        self.others = others
        self.unreachable: set[str] = set()
        self.refusals: dict[str, str] = {}
        self.claims: dict[str, tuple[int, str]] = {}
        self.features: dict[str, tuple[str, ...]] = {}
        self.services: dict[str, list[dict[str, Any]]] = {}
        self.offers_count = 0
        self.refuse_offers = False
        self.alarms: list[dict[str, Any]] = []
        self.rolls: list[str] = []  # those it was given whole
        self.takes_rolls = True
        self._pieces: list[bytes] = []

    @property
    def runs(self) -> tuple[int, str]:
        """Return (version, hash) of what node-1 runs."""
        accepted = self.documents.in_force("mesh")
        return (0, "") if accepted is None else (accepted.version, accepted.manifest_hash.hex())

    def members(self) -> list[dict[str, Any]]:
        """Return the rows of GET /v1/members."""
        rows = [_row("node-1", "alive", self.runs)]
        rows[0]["features"] = list(self.features.get("node-1", MEMBER_FEATURES))
        for name, (status, follows) in self.others.items():
            row = _row(name, status, self.claims.get(name, self.runs if follows else (0, "")))
            row["features"] = list(self.features.get(name, MEMBER_FEATURES))
            row["reachability"] = "unreachable" if name in self.unreachable else "reachable"
            if name in self.refusals:
                version, manifest_hash = self.runs
                row["policies"][0] |= {
                    "refused_version": version,
                    "refused_hash": manifest_hash,
                    "refused_reason": self.refusals[name],
                }
            rows.append(row)
        return rows

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Return (status, value); bytes are sent as they are, the rest as JSON."""
        accepted = self.documents.in_force(query.get("scope", "mesh"))
        if (method, path) == ("POST", "/v1/policy/offer"):
            return self._take_offer(body)
        if (method, path) == ("POST", "/v1/trust/offer"):
            return self._take_trust(body)
        if (method, path) == ("POST", "/v1/roll/offer"):
            return self._take_piece(body)
        if path == "/v1/trust":
            return 200, encode(self.documents.trust_envelopes)
        if path == "/v1/policy/set":
            return (
                (404, {"error": "no set", "code": "none"})
                if accepted is None
                else (200, accepted.raw.to_bytes())
            )
        answers: dict[str, Any] = {
            "/v1/status": {
                "trust_domain": TRUST_DOMAIN,
                "trust": {"generations": {"mesh": self.documents.generation("mesh")}},
            },
            "/v1/members": self.members(),
            "/v1/policy/status": {"members": self.members(), "alarms": self.alarms},
            "/v1/services": [{"service": name} for name in self.services],
            "/v1/endpoints": self.services.get(query.get("service", ""), []),
        }
        return (200, answers[path]) if path in answers else (404, {"error": f"no {path}", "code": "unknown"})

    def _take_offer(self, body: bytes) -> tuple[int, Any]:
        self.offers_count += 1
        if self.refuse_offers:
            return 503, {"error": "the disk is slow", "code": "not-in-force"}
        try:
            accepted = self.documents.check_untrusted(decode_policy_set_untrusted(body))
        except PolicyRefusal as refusal:
            return 409, {"error": refusal.reason, "code": refusal.code}
        self.documents.adopt(accepted)
        return 200, {"scope": "mesh", "version": accepted.version, "hash": accepted.manifest_hash.hex()}

    def _take_trust(self, body: bytes) -> tuple[int, Any]:
        try:
            for envelope in decode_envelopes_untrusted(body):
                self.documents.load_trust_untrusted(envelope)
        except MalformedInput as error:
            return 409, {"error": str(error), "code": "trust"}
        assert self.documents.trust is not None
        return 200, {"version": self.documents.trust.version}

    def _take_piece(self, piece: bytes) -> tuple[int, Any]:
        assert self.documents.trust is not None
        name = self.documents.trust.roll
        is_index = hashlib.sha256(piece).hexdigest() == name
        self._pieces = [piece] if is_index else [*self._pieces, piece]
        missing = len(decode_roll_index_untrusted(self._pieces[0], TRUST_DOMAIN)) + 1 - len(self._pieces)
        if missing == 0:
            self.rolls.append(name)
        return 200, {"missing": missing if self.takes_rolls else None}

    @contextmanager
    def serving(self, path: Path) -> Iterator["FakeAgent"]:
        """Answer on the Unix socket at `path` while the context lasts."""
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                target = urlsplit(self.path)
                query = dict(parse_qsl(target.query))
                status, value = agent.answer(self.command, target.path, query, self.rfile.read(length))
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _answer

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        with socketserver.UnixStreamServer(str(path), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


def _row(name: str, status: str, runs: tuple[int, str]) -> dict[str, Any]:
    policy = {"scope": "mesh", "version": runs[0], "hash": runs[1], "refused_version": 0, "refused_hash": ""}
    return {
        "name": name,
        "status": status,
        "policies": [{**policy, "refused_reason": ""}],
        "self": name == "node-1",
    }
