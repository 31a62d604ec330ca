"""The roll as an authority makes and keeps it: every credential on record, signed by the key in use.

Rules:
1. What stands on record is signed as it stands, tombstones too; what has ended is left out. So a node's name,
   generation and serial stay, and only whose word they are is another.
2. It lies in DIR/roll under its name, whole, before any Trust names it.
Ends at values and files; what the roll is made of is `trust.roll`'s, handing it out is the command's.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec

from gossipmesh.control.credentials import RECORD_BYTES_MAX, sign_credential
from gossipmesh.control.ledger import Enrolment, Ledger
from gossipmesh.control.roots import Authority
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.identity import node_id_of, node_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.records import SignedRecord
from gossipmesh.net.secret_files import read_secret, write_secret
from gossipmesh.trust.keys import key_id
from gossipmesh.trust.records import signed_bytes
from gossipmesh.trust.roll import Roll, RollTooLarge, make_roll, roll_of_pieces_untrusted
from gossipmesh.wire.codec import decode_untrusted, encode

_FILE_BYTES_MAX = (limits.ROLL_PAGES_MAX + 1) * (limits.ROLL_PIECE_BYTES_MAX + 5) + 5


class Listed(NamedTuple):
    """A roll, and the records that are to be put down once it is published."""

    roll: Roll
    enrolments: tuple[Enrolment, ...]


def list_nodes(authority: Authority, ledger: Ledger, now: WallSeconds) -> Listed:
    """Return the roll of everybody on record, by the credential key in use. State unchanged.

    Raises:
        OperatorError: a damaged record, or more than a roll holds. State unchanged.
    """
    found = (ledger.enrolment(name) for name in ledger.nodes())
    standing = [one for one in found if one is not None and one.ends > now]
    standing.sort(key=lambda one: node_id_of(node_spiffe_id(authority.trust_domain, one.node)))
    anew = tuple(_signed_anew(authority, one, now) for one in standing)
    try:
        roll = make_roll(authority.trust_domain, [_record_of(one) for one in anew])
    except RollTooLarge as error:
        raise OperatorError(
            f"the {len(anew)} nodes on record do not fit a roll ({error}): `authority forget` those that are "
            "gone, or let every node renew and drop the old key without a roll"
        ) from None
    return Listed(roll, anew)


def put_down(ledger: Ledger, listed: Listed) -> None:
    """Answer renewals by the credentials of the roll from now on; one renewed meanwhile stays as it is.

    Raises:
        OperatorError: not written; who has no new record gets a credential signed anew when it renews.
    """
    with ledger.changing():
        for one in listed.enrolments:
            known = ledger.enrolment(one.node)
            if known is not None and (known.generation, known.serial) == (one.generation, one.serial):
                ledger.put_enrolment(one)


def keep_roll(directory: Path, roll: Roll) -> None:
    """Put a roll into the authority's folder.

    Raises:
        OperatorError: the disk does not take it. State unchanged.
    """
    write_secret(_path(directory, roll.name), encode(list(roll.pieces)))


def read_roll(directory: Path, name: str, trust_domain: str) -> Roll | None:
    """Return the roll that Trust calls `name`, None where it does not lie in the folder.

    Raises:
        OperatorError: it is damaged. State unchanged.
    """
    path = _path(directory, name)
    if not path.exists():
        return None
    try:
        pieces = decode_untrusted(read_secret(path), tuple[bytes, ...], bytes_max=_FILE_BYTES_MAX)
        roll = roll_of_pieces_untrusted(pieces, trust_domain)
        if roll.name != name:
            raise MalformedInput("it is another roll")
    except MalformedInput as error:
        raise OperatorError(f"{path} is damaged ({error}); take it from a copy of the folder") from None
    return roll


def _path(directory: Path, name: str) -> Path:
    return directory / "roll" / f"{name}.roll"


def _record_of(enrolment: Enrolment) -> SignedRecord:
    return decode_untrusted(enrolment.credential, SignedRecord, bytes_max=RECORD_BYTES_MAX)


def _signed_anew(authority: Authority, enrolment: Enrolment, now: WallSeconds) -> Enrolment:
    """Return an enrolment whose credential the key in use has signed."""
    if not enrolment.credential:  # of a build before these were kept: its leaves' keys are not known
        return sign_credential(authority, enrolment, (), now)
    key = authority.credential_key
    name = key_id(key.public)
    record = _record_of(enrolment)
    if record.key_id == name:
        return enrolment
    signature = key.sign(signed_bytes(authority.trust_domain, record.kind, record.body))
    anew = SignedRecord(record.kind, record.body, signature, name)
    return msgspec.structs.replace(enrolment, credential=encode(anew))
