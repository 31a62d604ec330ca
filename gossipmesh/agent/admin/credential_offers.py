"""A credential, most often a tombstone, that an operator hands to this agent for the whole mesh.

Ends at the core, which verifies it and tells everybody: any agent will do, also one of a mesh whose authority
is gone. Rule: what is refused is answered with its reason, and what is known already is no mistake.
"""

import base64
import binascii
from typing import Any

import msgspec

from gossipmesh.agent.admin.admin_views import Parts
from gossipmesh.agent.admin.http_server import Refused
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import node_name_of_spiffe_id
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.wire.codec import decode_untrusted


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request's body; `record` is base64 of the signed record as it travels."""

    record: str


def offer_credential(parts: Parts, body: bytes) -> dict[str, Any]:
    """Give a credential to the core; return whose it is, and whether it said anything new here.

    Raises:
        Refused: not a record, or one that the core does not take. State unchanged.
    """
    try:
        record, credential = _read_untrusted(body)
        name = node_name_of_spiffe_id(credential.spiffe_id) or ""
        before = parts.node.state_sums()
        parts.shell.step(lambda now: parts.inputs.offer_credential(record, now))
    except MalformedInput as error:
        raise Refused(409, "credential", f"the credential is refused: {error}") from None
    return {
        "node": name,
        "generation": credential.generation,
        "revoked": credential.is_tombstone,
        "news": parts.node.state_sums() != before,
    }


def _read_untrusted(body: bytes) -> tuple[SignedRecord, NodeCredential]:
    try:
        data = base64.b64decode(msgspec.json.decode(body, type=Offer).record, validate=True)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, binascii.Error, ValueError):
        raise MalformedInput('not {"record": BASE64}') from None
    record = decode_untrusted(data, SignedRecord, bytes_max=2 * limits.RECORD_BYTES_MAX)
    credential = decode_untrusted(record.body, NodeCredential, bytes_max=limits.RECORD_BYTES_MAX)
    return record, credential
