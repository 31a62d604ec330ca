"""What a member's TLS keys are judged by: the credential it has and the pins it published, together."""

import msgspec

from gossipmesh.model.identity import NodeId
from gossipmesh.model.records import IdentityPins


class MemberKeys(msgspec.Struct, frozen=True):
    """What a member's TLS keys are judged by, as the rest of the agent reads it.

    `generation`, `serial` and `ends` are its credential's. `has_key_sets`: it says that it publishes key
    sets, or has done so in this generation, or its state is not known yet. `entries`: its key set, sorted by
    path; None for none.
    """

    node_id: NodeId
    name: str
    generation: int
    serial: int
    ends: int
    has_key_sets: bool
    is_revoked: bool
    entries: tuple[IdentityPins, ...] | None
