"""A member's key set: decoded when somebody asks, allowed by its credential, and told of when it changes.

Ends at values: which of the pins a peer must show is for whoever judges its certificate.
Rules:
1. Whatever order a credential and what was signed under an older one come in, the same is held: what the
   newer credential does not allow is let go.
2. Members of builds that publish no key sets are told of as they always were, and of their keys nothing is.
Paper: none. Deviation: none.
"""

from functools import lru_cache
from typing import Final

import msgspec

from gossipmesh.gossip.base.context import Context
from gossipmesh.gossip.base.effects import KeysChanged
from gossipmesh.gossip.membership.member import Member
from gossipmesh.gossip.membership.soundness import may_serve, require_keys_allowed_untrusted
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.identity import service_of_path
from gossipmesh.model.member_keys import MemberKeys
from gossipmesh.model.records import IdentityPins, KeySet, NodeCredential
from gossipmesh.wire.datagram import decode_record
from gossipmesh.wire.versions import KEY_SETS

_SETS_MAX: Final = 256  # so many stay decoded, over all cores of a process
_KEY_SETS: Final = msgspec.msgpack.Decoder(KeySet)


@lru_cache(_SETS_MAX)
def key_set_of(message: bytes) -> KeySet:
    """Return the key set in a message that was verified when it came."""
    return _KEY_SETS.decode(decode_record(message).body)


def may_publish_keys(member: Member) -> bool:
    """Tell whether a member is to be judged as one that publishes its keys.

    Of one whose state is not here yet nobody can tell, so no certificate counts for it: an intermediate's
    thief would be anybody to whoever just joined. Its first state, which is told, says how it is.
    """
    return publishes_keys(member) or (member.messages.state is None and not member.is_revoked)


def publishes_keys(member: Member) -> bool:
    """Tell whether a member has a key set, or says in its state that it publishes them."""
    state = member.state
    return member.messages.keys is not None or (state is not None and KEY_SETS in state.features)


def keys_are_allowed(member: Member, credential: NodeCredential) -> bool:
    """Tell whether a member's key set, if it has one, is of nothing but what a credential of its allows."""
    if member.messages.keys is None:
        return True
    try:
        require_keys_allowed_untrusted(key_set_of(member.messages.keys), member.name, credential)
    except Untrusted:
        return False
    return True


def services_are_allowed(member: Member, credential: NodeCredential) -> bool:
    """Tell whether a member's services, if it has any, are covered by a credential of its."""
    return all(may_serve(credential, entry.service) for entry in member.entries or ())


def allowed_entries(
    entries: tuple[IdentityPins, ...], credential: NodeCredential
) -> tuple[IdentityPins, ...]:
    """Return the entries of a node's own key set that a later credential of its still allows."""
    services = {entry.path: service_of_path(entry.path) for entry in entries}
    return tuple(
        entry
        for entry in entries
        if (service := services[entry.path]) is None or may_serve(credential, service)
    )


def keys_of(member: Member) -> MemberKeys:
    """Return what a member's TLS keys are judged by."""
    credential, message = member.credential, member.messages.keys
    return MemberKeys(
        node_id=member.node_id,
        name=member.name,
        generation=credential.generation,
        serial=credential.serial,
        ends=credential.ends,
        has_key_sets=may_publish_keys(member),
        is_revoked=credential.is_tombstone,
        entries=None if message is None else key_set_of(message).entries,
    )


def tell_keys(ctx: Context, member: Member, *, is_gone: bool = False) -> None:
    """Tell what a member's TLS keys are judged by from now on."""
    ctx.notify(KeysChanged(member.node_id, member.name, None if is_gone else keys_of(member)))
