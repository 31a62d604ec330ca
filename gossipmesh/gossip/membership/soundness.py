"""What a verified record must keep to: its credential, and limits.

Ends where signatures begin: nothing here is verified, and nothing is merged. Deviation: no paper has bounds.
Rule: an IPv6 zone is the name of an interface; any other text would be kept, shown and passed on by everyone.
"""

import ipaddress
import re
from typing import Final

from gossipmesh.model import limits
from gossipmesh.model.errors import Untrusted
from gossipmesh.model.identity import (
    is_label,
    is_service_name,
    node_path,
    pattern_allows,
    service_of_path,
    workloads_path,
)
from gossipmesh.model.instant import DAY_S
from gossipmesh.model.member import Address, NodePhase, Order
from gossipmesh.model.records import (
    SEQUENCE_WHOLE,
    IdentityPins,
    KeySet,
    NodeCredential,
    NodeState,
    PolicyStatus,
    RecordKind,
    ServiceSet,
    SignedRecord,
)
from gossipmesh.model.service import EndpointHealth
from gossipmesh.trust.pins import PIN_BYTES
from gossipmesh.wire.codec import decode_untrusted

_LAG_MS_MAX: Final = 60_000
_ZONE: Final = re.compile(r"[0-9A-Za-z._-]{1,15}")  # the name of an interface, of the kernel's length


def require_order_untrusted(kind: int, epoch: int, sequence: int, wall_s: int) -> None:
    """Refuse an order its owner could never outbid: an epoch of a day that has not come, the last sequence.

    Raises:
        Untrusted: Remote's fault. State unchanged.
    """
    if epoch > wall_s + DAY_S:
        raise Untrusted("an epoch of a day that has not come: it could never be raised again")
    if sequence >= SEQUENCE_WHOLE and kind != RecordKind.VERDICT:
        raise Untrusted("a sequence that only a whole incarnation has")


def require_credential_sound_untrusted(credential: NodeCredential, wall_s: int) -> None:
    """Refuse a verified credential that could never be outbid, or is neither whole nor a tombstone.

    Raises:
        Untrusted: Remote's fault. State unchanged.
    """
    if credential.generation > wall_s + DAY_S or credential.serial > wall_s + DAY_S:
        raise Untrusted("a generation or serial of a day that has not come: it could never be raised again")
    if credential.is_tombstone and (
        credential.exchange_key or credential.spki_hashes or credential.service_patterns
    ):
        raise Untrusted("a tombstone that allows something")


def lasting(state: NodeState) -> Order:
    """Return the order a state counts as: a leave is the last of its incarnation, whatever else is signed."""
    order = state.order
    return Order(order.generation, order.epoch, SEQUENCE_WHOLE) if state.phase == NodePhase.LEFT else order


def lasting_order_untrusted(record: SignedRecord, order: Order) -> Order:
    """Return the order an unverified state counts as.

    Raises:
        MalformedInput: not a state. Remote's fault. State unchanged.
    """
    state = decode_untrusted(record.body, NodeState, bytes_max=limits.RECORD_BYTES_MAX)
    return lasting(state) if state.phase == NodePhase.LEFT else order


def state_is_sound(state: NodeState, name: str) -> bool:
    """Tell whether a verified state keeps to its credential's name and to limits."""
    bounded = (
        1 <= len(state.gossip_addresses) <= limits.ADDRESSES_PER_NODE_MAX
        and 1 <= len(state.mesh_addresses) <= limits.ADDRESSES_PER_NODE_MAX
        and all(_is_address(address) for address in (*state.gossip_addresses, *state.mesh_addresses))
        and len(state.policies) <= limits.SCOPES_MAX
        and all(_is_status_sound(status) for status in state.policies)
        and len(state.build) <= 64
        and len(state.features) <= 64
        and all(len(feature) <= 64 for feature in state.features)
        and 0 <= state.run_id < 2**63
        and 0 <= state.lag_ms <= _LAG_MS_MAX
        and 0 <= state.restarting_s <= limits.RESTARTING_S_MAX
    )
    return bounded and state.name == name and state.phase in tuple(NodePhase)


def _is_address(address: Address) -> bool:
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return False
    _, zoned, zone = address.host.partition("%")
    if zoned and not _ZONE.fullmatch(zone):
        return False
    return 1 <= address.port <= 65_535


def _is_status_sound(status: PolicyStatus) -> bool:
    hashes = (status.manifest_hash, status.refused_hash)
    return (
        len(status.scope) <= limits.SCOPE_BYTES_MAX
        and len(status.refused_reason) <= 256
        and all(len(item) <= 32 for item in hashes)
    )


def require_services_allowed_untrusted(services: ServiceSet, credential: NodeCredential) -> None:
    """Refuse a service set that its owner's credential does not allow.

    Raises:
        Untrusted: a service outside the patterns, or beyond limits. Remote's fault. State unchanged.
    """
    if len(services.entries) > limits.SERVICES_PER_NODE_MAX:
        raise Untrusted("more services than one node may have")
    names = [entry.registration for entry in services.entries]
    if names != sorted(dict.fromkeys(names)):
        raise Untrusted("service entries out of order or twice")
    for entry in services.entries:
        if not is_service_name(entry.service) or not is_label(entry.registration):
            raise Untrusted(f"{entry.service[:80]!r} is no service, or its registration no label")
        if not may_serve(credential, entry.service):
            raise Untrusted(f"the service {entry.service[:80]!r}, which its node may not serve")
        if len(entry.labels) > limits.LABELS_PER_SERVICE_MAX or not 1 <= entry.weight <= 65_535:
            raise Untrusted("a service entry beyond limits")
        if any(len(text.encode()) > limits.LABEL_BYTES_MAX for pair in entry.labels for text in pair):
            raise Untrusted("a service label beyond limits")
        if entry.health not in tuple(EndpointHealth) or len(entry.protocol) > 16:
            raise Untrusted("a service entry of unknown health or protocol")


def require_keys_allowed_untrusted(keys: KeySet, name: str, credential: NodeCredential) -> None:
    """Refuse a key set that says more than the credential of the node called `name` allows.

    One entry that is not allowed is the end of the whole set: a node that tries is not to be half believed.

    Raises:
        Untrusted: an identity that is not its node's, or beyond limits. Remote's fault. State unchanged.
    """
    if len(keys.entries) > limits.KEY_SET_ENTRIES_MAX:
        raise Untrusted("more identities in a key set than one node may have")
    paths = [entry.path for entry in keys.entries]
    if paths != sorted(dict.fromkeys(paths)):
        raise Untrusted("the entries of a key set out of order or twice")
    own = (node_path(name), workloads_path(name))
    for entry in keys.entries:
        service = service_of_path(entry.path)
        if entry.path not in own and (service is None or not may_serve(credential, service)):
            raise Untrusted(f"pins for {entry.path[:160]!r}, which is not its node's")
        if not _are_pins_sound(entry):
            raise Untrusted("pins of an identity beyond limits")


def may_serve(credential: NodeCredential, service: str) -> bool:
    """Tell whether a credential's patterns cover `service`."""
    return any(pattern_allows(pattern, service) for pattern in credential.service_patterns)


def _are_pins_sound(entry: IdentityPins) -> bool:
    pins = entry.pins
    return (
        1 <= len(pins) <= limits.PINS_PER_IDENTITY_MAX
        and all(len(pin) == PIN_BYTES for pin in pins)
        and len(set(pins)) == len(pins)
    )
