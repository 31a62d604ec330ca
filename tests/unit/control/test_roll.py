"""The roll of an authority: everybody on record, as they stand, by the key in use."""

from pathlib import Path

import msgspec
import pytest

from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Enrolment
from gossipmesh.control.revoking import take_out
from gossipmesh.control.roll import keep_roll, list_nodes, put_down, read_roll
from gossipmesh.control.roots import Authority, load_authority
from gossipmesh.control.rotation import Rotation
from gossipmesh.control.trust_changes import require_roll_readers, require_trust_held
from gossipmesh.model import limits
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import DAY_S, WallSeconds
from gossipmesh.model.records import SignedRecord
from gossipmesh.net.entropy import random_bytes
from gossipmesh.trust.keys import Verifier
from gossipmesh.trust.records import open_credential_untrusted
from gossipmesh.trust.roll import decode_roll_page_untrusted
from gossipmesh.wire.codec import decode_untrusted
from tests.unit.control.test_issuing import NOW, Desk, enrol_request, renew_request
from tests.unit.control.test_rotation import now_of, publish

TOMORROW = WallSeconds(NOW + DAY_S)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path / "authority")
    made.issuer.enrol(enrol_request(made.token("shop/*")), NOW)
    return made


def turned(desk: Desk) -> Authority:
    """Return the authority with another credential key in use, both named by Trust."""
    rotation = Rotation("credential", now_of(desk))
    rotation.name(None, NOW, random_bytes)
    publish(desk, rotation.named())
    Rotation("credential", now_of(desk)).use()
    return now_of(desk)


def record_of(enrolment: Enrolment) -> SignedRecord:
    return decode_untrusted(enrolment.credential, SignedRecord, bytes_max=32_768)


def test_each_credential_says_what_it_said_and_the_new_key_signs_it(desk: Desk) -> None:
    (name,) = desk.ledger.nodes()
    before = desk.ledger.enrolment(name)
    assert before is not None
    authority = turned(desk)
    listed = list_nodes(authority, desk.ledger, NOW)
    (record,) = decode_roll_page_untrusted(listed.roll.pages[0])
    assert record.body == record_of(before).body
    keys = {record.key_id: authority.credential_key.public}
    credential = open_credential_untrusted(record, authority.trust_domain, keys, Verifier())
    assert (credential.generation, credential.serial) == (before.generation, before.serial)
    assert desk.ledger.enrolment(name) == before
    put_down(desk.ledger, listed)
    after = desk.ledger.enrolment(name)
    assert after is not None
    assert record_of(after) == record
    # The node's next renewal is answered by it: nothing is newer than what members have.
    issued = Issuer(authority, desk.ledger, random_bytes).renew(
        renew_request(issued=TOMORROW, serial=TOMORROW), TOMORROW
    )
    assert issued.credential == after.credential


def test_a_revoked_node_is_listed_by_its_tombstone_and_one_that_ended_not_at_all(desk: Desk) -> None:
    (name,) = desk.ledger.nodes()
    take_out(now_of(desk), desk.ledger, name, NOW, what="revoked")
    desk.ledger.put_enrolment(Enrolment("old", 1, 1, b"k" * 32, b"e" * 32, (), NOW - 9, NOW))
    listed = list_nodes(turned(desk), desk.ledger, NOW)
    assert [(one.node, one.revoked) for one in listed.enrolments] == [(name, NOW)]


def test_a_node_whose_credential_was_not_kept_gets_one(desk: Desk) -> None:
    """An authority of 0.2 kept none."""
    (name,) = desk.ledger.nodes()
    known = desk.ledger.enrolment(name)
    assert known is not None
    desk.ledger.put_enrolment(msgspec.structs.replace(known, credential=b""))
    listed = list_nodes(turned(desk), desk.ledger, NOW)
    (record,) = decode_roll_page_untrusted(listed.roll.pages[0])
    assert record == record_of(listed.enrolments[0])


def test_the_last_step_drops_the_stolen_key_though_nobody_has_renewed(desk: Desk) -> None:
    authority = turned(desk)
    rotation = Rotation("credential", authority)
    assert len(rotation.former_keys()) == 1
    with pytest.raises(OperatorError, match="--force"):
        rotation.dropped(NOW, force=False)
    listed = list_nodes(authority, desk.ledger, NOW)
    document = rotation.dropped(NOW, force=False, roll=listed.roll.name)
    publish(desk, document)
    assert now_of(desk).trust.roll == listed.roll.name
    # It goes with its key: the next one that is dropped in peace leaves none behind.
    put_down(desk.ledger, listed)
    later = turned(desk)
    renewed = Issuer(later, desk.ledger, random_bytes)
    renewed.renew(renew_request(issued=TOMORROW, serial=TOMORROW), TOMORROW)
    assert Rotation("credential", later).dropped(TOMORROW, force=False).roll == ""


def test_a_roll_is_kept_whole_or_said_to_be_damaged(desk: Desk) -> None:
    authority = load_authority(desk.authority.directory)
    roll = list_nodes(authority, desk.ledger, NOW).roll
    directory, domain = authority.directory, authority.trust_domain
    assert read_roll(directory, roll.name, domain) is None
    keep_roll(directory, roll)
    assert read_roll(directory, roll.name, domain) == roll
    path = directory / "roll" / f"{roll.name}.roll"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OperatorError, match="is damaged"):
        read_roll(directory, roll.name, domain)


def test_more_nodes_than_a_roll_holds_are_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROLL_PAGES_MAX", 0)
    with pytest.raises(OperatorError, match="do not fit a roll"):
        list_nodes(turned(desk), desk.ledger, NOW)


def test_members_that_stand_in_the_way_are_named() -> None:
    require_roll_readers([])
    require_trust_held(7, [])
    with pytest.raises(OperatorError, match=r"2 members do not read a roll .*: vm1, vm2; they would go on"):
        require_roll_readers(["vm2", "vm1"])
    with pytest.raises(OperatorError, match=r"they have Trust version 7, .*: vm2; wait until .* --force"):
        require_trust_held(7, ["vm2"])
