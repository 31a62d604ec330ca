"""Who founds a mesh, by the authority's word: whoever enrols while no node has said that it is open."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gossipmesh.control.audit import AuditLog
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.opening import FILE_NAME
from gossipmesh.control.requests import RequestRefused
from gossipmesh.model.enrolment import OpenReport
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import HOUR_S, WallSeconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.trust.keys import SigningKey
from tests.unit.control.test_issuing import NODE, NOW, SIGNING, Desk, enrol_request


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "authority")


def report(*, signed_by: SigningKey = SIGNING, **changes: Any) -> OpenReport:
    good = msgspec.structs.replace(OpenReport(spiffe_id=NODE, how="founder", issued=NOW), **changes)
    return msgspec.structs.replace(good, proof=signed_by.sign(good.proof_bytes()))


def enrolled(desk: Desk, name: str, *, of_before: bool = False) -> tuple[int | None, bool | None]:
    """Enrol a node; return what it is told of the others."""
    node = f"spiffe://mesh.test/node/{name}"
    request = enrol_request(desk.token(node=name), *([node] if of_before else [node, f"{node}/workloads"]))
    issued = desk.issuer.enrol(request, NOW)
    return issued.enrolled_count, issued.founder


def test_whoever_enrols_founds_the_mesh_until_one_says_that_it_is_open(desk: Desk) -> None:
    assert enrolled(desk, "n1") == (1, True)
    assert enrolled(desk, "n2") == (2, True)
    assert enrolled(desk, "n1") == (2, True), "once more, after it lost everything"
    desk.issuer.take_report(report(), NOW, "10.0.0.1")
    assert enrolled(desk, "n3") == (3, False)
    assert enrolled(desk, "n1") == (3, False)
    again = Issuer(desk.authority, desk.ledger, random_bytes)
    assert again.enrol(enrol_request(desk.token(node="n1"), NODE), NOW).founder is False


def test_the_first_that_says_so_is_on_record_and_no_other(desk: Desk) -> None:
    enrolled(desk, "n1")
    for _ in range(3):
        desk.issuer.take_report(report(), NOW, "10.0.0.1")
    log = AuditLog(desk.authority.directory)
    told = [(deed.node, deed.peer, deed.detail) for deed in log.deeds() if deed.what == "opened"]
    assert told == [("n1", "10.0.0.1", "founder")]


def test_a_ledger_of_a_build_before_has_an_open_mesh(desk: Desk) -> None:
    enrolled(desk, "n1")
    (desk.authority.directory / FILE_NAME).unlink()
    assert enrolled(desk, "n2") == (2, False)


def test_a_node_of_0_2_is_open_and_never_says_so(desk: Desk) -> None:
    assert enrolled(desk, "n1") == (1, True)
    assert enrolled(desk, "n2", of_before=True) == (2, True), "what it is told it does not read"
    assert enrolled(desk, "n3") == (3, False)
    assert enrolled(desk, "n1") == (3, False)


@pytest.mark.parametrize(
    ("code", "after_s", "wrong"),
    [
        ("proof", 0, report(signed_by=SigningKey(b"\x09" * 32))),
        ("proof", 0, msgspec.structs.replace(report(), how="by hand")),
        ("proof", 0, report(spiffe_id="spiffe://mesh.test/node/n9")),
        ("proof", 0, report(spiffe_id="spiffe://evil.test/node/n1")),
        ("malformed", 0, report(spiffe_id="../../n1")),
        ("clock", 2 * HOUR_S, report()),
    ],
)
def test_a_report_is_the_enrolled_keys(desk: Desk, code: str, after_s: int, wrong: OpenReport) -> None:
    enrolled(desk, "n1")
    with pytest.raises(RequestRefused) as refusal:
        desk.issuer.take_report(wrong, WallSeconds(NOW + after_s))
    assert refusal.value.code == code
    assert enrolled(desk, "n2") == (2, True)


def test_a_revoked_node_opens_no_mesh(desk: Desk) -> None:
    enrolled(desk, "n1")
    known = desk.ledger.enrolment("n1")
    assert known is not None
    desk.ledger.put_enrolment(msgspec.structs.replace(known, revoked=NOW))
    with pytest.raises(RequestRefused) as refusal:
        desk.issuer.take_report(report(), NOW)
    assert refusal.value.code == "revoked"


def test_a_damaged_file_enrols_nobody_and_says_what_to_do(desk: Desk) -> None:
    enrolled(desk, "n1")
    token = desk.token(node="n2")
    (desk.authority.directory / FILE_NAME).write_bytes(b"{")
    with pytest.raises(OperatorError, match="restore it from a backup"):
        desk.issuer.enrol(enrol_request(token, "spiffe://mesh.test/node/n2"), NOW)
    kept = desk.ledger.token(token.token_id)
    assert kept is not None
    assert kept.used is None
