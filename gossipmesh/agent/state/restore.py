"""From what is on disk to what the gossip core starts with: Trust, floors, sets in force, members.

Everything is verified again as if a stranger had sent it; what does not hold is left out and said.
"""

import ipaddress
import logging
import socket
from collections.abc import Sequence
from typing import Final

from gossipmesh.agent.identity.identity_store import NodeIdentity
from gossipmesh.agent.logs import fields
from gossipmesh.agent.state.alarm_records import restore_alarms
from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.gossip.base.settings import RestoredState
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.member import Address
from gossipmesh.model.opening import Enrolled, KeptOpening, Unconfirmed, unconfirmed_at_start
from gossipmesh.trust.documents import TrustedDocuments, decode_policy_set_untrusted
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.codec import decode_untrusted, encode
from gossipmesh.wire.versions import POLICY_FEATURES

log = logging.getLogger("gossipmesh.agent.restore")

_DOCUMENTATION_HOST: Final = "192.0.2.1"  # RFC 5737: routed like any host, and nothing is sent to it
_ANY_PORT: Final = 9
_OPENING_BYTES_MAX: Final = 256


def restore_documents(identity: NodeIdentity, store: StateStore, verifier: Verifier) -> TrustedDocuments:
    """Return Trust as enrolment and gossip brought it, with floors and sets of the last run.

    Raises:
        OperatorError: the identity's own Trust does not verify.
    """
    documents = TrustedDocuments(
        trust_domain=identity.trust_domain, verifier=verifier, features=POLICY_FEATURES
    )
    try:
        for envelope in identity.trust_envelopes:
            documents.load_trust_untrusted(envelope)
    except MalformedInput as error:
        raise OperatorError(
            f"the Trust this node enrolled with cannot be used ({error}); enrol it again"
        ) from None
    for _, envelope in store.items(PersistKind.TRUST):
        try:
            documents.load_trust_untrusted(envelope)
        except MalformedInput as error:
            log.error("a Trust document on disk is left out: %s", error)
    for key, value in store.items(PersistKind.FLOOR):
        try:
            version, manifest_hash = decode_untrusted(value, tuple[int, bytes], bytes_max=1_024)
            documents.restore_floor(key.decode(), version, manifest_hash)
        except (MalformedInput, UnicodeDecodeError) as error:
            log.error("a policy floor on disk is left out: %s", error)
    for key, value in store.items(PersistKind.POLICY_SET):
        try:
            documents.restore_untrusted(decode_policy_set_untrusted(value))
        except MalformedInput as error:
            log.error("a policy set on disk is left out: %s", error, extra=fields(scope=repr(key)))
    restore_alarms(store, documents)
    return documents


def remember_enrolment(store: StateStore, enrolled: Enrolled | None, now: WallSeconds) -> None:
    """Put on disk that this node has confirmed nothing, where that is so, and what the authority told it.

    Raises:
        StateLost: the disk does not take it. State unchanged.
    """
    if enrolled is not None and enrolled.enrolled_count is None:
        log.warning("the authority is of a build that says nothing of the others: this node opens unasked")
    unconfirmed = _unconfirmed(store, enrolled, now)
    if unconfirmed is None:
        return
    kept = _kept_opening(store)
    at = now if enrolled is not None or kept is None else kept.enrolled_at
    told = KeptOpening("", unconfirmed.enrolled_count, unconfirmed.is_founder, at)
    store.put(PersistKind.OPENING, b"", encode(told), durable=True)


def _kept_opening(store: StateStore) -> KeptOpening | None:
    value = store.get(PersistKind.OPENING, b"")
    try:
        return None if value is None else decode_untrusted(value, KeptOpening, bytes_max=_OPENING_BYTES_MAX)
    except MalformedInput as error:
        log.error("whether this node was open is not readable on disk: %s", error)
        return KeptOpening("")


def _unconfirmed(store: StateStore, enrolled: Enrolled | None, now: WallSeconds) -> Unconfirmed | None:
    return unconfirmed_at_start(
        _kept_opening(store),
        enrolled,
        now,
        has_run=store.get(PersistKind.EPOCH, b"") is not None,
        is_damaged=bool(store.damage),
    )


def restore_state(
    store: StateStore,
    now: WallSeconds,
    *,
    ends: WallSeconds,
    enrolled_now: bool,
    enrolled: Enrolled | None = None,
) -> RestoredState:
    """Return the last epoch and the members of the last run, and whether this node is open.

    A lost or damaged disk may have lost our last epoch, and peers hold records of ours that are newer
    than what we would sign: such a start takes civil time as its epoch, which is above any count of starts.
    A clock may be years ahead, and others take no epoch of days to come: so no later one than our credential
    `ends`.
    """
    for damage in store.damage:
        log.error("state on disk is damaged: %s", damage)
    value = store.get(PersistKind.EPOCH, b"")
    epoch = 0
    if value is not None:
        try:
            epoch = decode_untrusted(value, int, bytes_max=16)
        except MalformedInput as error:
            log.error("the epoch on disk is damaged: %s", error)
            value = None
    if (value is None or store.damage) and not enrolled_now:
        epoch = max(epoch, min(now, ends))
    elif store.torn:
        # The record that was cut may have been an epoch that was used, if a disk spoiled it afterwards.
        epoch += 1
    return RestoredState(
        epoch=epoch,
        members=tuple(store.items(PersistKind.MEMBER)[: limits.MEMBERS_MAX]),
        roll=tuple(piece for _, piece in store.items(PersistKind.ROLL)[: limits.ROLL_PAGES_MAX + 1]),
        floors_unknown=bool(store.damage),
        unconfirmed=_unconfirmed(store, enrolled, now),
    )


def own_address(bind: Address, advertise: Address | None, towards: Sequence[Address], key: str) -> Address:
    """Return the address others are told: `advertise`, or for a wildcard the one used towards others.

    Those of `towards` that a route leads to come first, then any route there is.

    Raises:
        OperatorError: there is no route to find it by.
    """
    if advertise is not None:
        return advertise
    wants_ipv6 = ":" in bind.host
    targets = [peer.host for peer in towards if (":" in peer.host) == wants_ipv6]
    for target in (*targets, "2001:db8::1" if wants_ipv6 else _DOCUMENTATION_HOST):
        host = _source_towards(target)
        # What holds on this machine, or on one link, is of no use to whoever is not there.
        if host is not None and (_is_near(target) or not _is_near(host)):
            return Address(host, bind.port)
    raise OperatorError(
        f"spec.{key}.bind is {bind.host} and this machine has no route to find its own address by; "
        f"set spec.{key}.advertise"
    )


def _source_towards(host: str) -> str | None:
    """Return the address that the kernel would send from; None without a route."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(Address(host, _ANY_PORT).socket_address())
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _is_near(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return address.is_loopback or address.is_link_local
