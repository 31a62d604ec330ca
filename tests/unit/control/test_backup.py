"""An authority in one file and out of it: nothing offline in it, no token twice, the mesh asked first."""

import io
import random
import tarfile
from pathlib import Path

import msgspec
import pytest

from gossipmesh.control.asking import go_on_unasked, learn
from gossipmesh.control.backup import make_backup, require_asked, restore_backup
from gossipmesh.control.issuing import Issuer
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.opening import MeshOpening
from gossipmesh.control.requests import RequestRefused
from gossipmesh.control.revoking import take_out
from gossipmesh.control.roots import load_authority
from gossipmesh.control.trust_changes import sign_trust, successor
from gossipmesh.control.trust_folder import read_root_keys
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import WallSeconds
from gossipmesh.net import secret_files
from gossipmesh.net.entropy import random_bytes
from gossipmesh.testing.relayer import changed_envelope
from gossipmesh.trust.keys import SigningKey
from tests.unit.control.test_issuing import NOW, Desk, enrol_request, renew_request

LATER = WallSeconds(NOW + 300)
THEIRS = SigningKey(b"\x08" * 32)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path / "authority")
    made.issuer.enrol(enrol_request(made.token("shop/*")), NOW)
    return made


def written(desk: Desk, path: Path) -> Path:
    path.write_bytes(make_backup(desk.authority.directory, NOW))
    return path


def restored(desk: Desk, folder: Path) -> Path:
    restore_backup(written(desk, folder / "backup"), folder / "restored", LATER)
    return folder / "restored"


def issuer_at(directory: Path) -> Issuer:
    return Issuer(load_authority(directory), Ledger(directory), random_bytes)


def test_an_authority_comes_back_as_it_was_and_without_offline_keys(desk: Desk, tmp_path: Path) -> None:
    assert (desk.authority.directory / "root.key").exists()
    directory = restored(desk, tmp_path)
    again = load_authority(directory)
    assert (again.instance, again.trust_envelopes) == (
        desk.authority.instance,
        desk.authority.trust_envelopes,
    )
    assert not (directory / "root.key").exists()
    assert not (directory / "documents").exists()
    assert not (directory / "signers").exists()
    assert (directory / "credential.key").stat().st_mode & 0o777 == 0o600
    assert MeshOpening(directory).is_open(has_enrolled=False), "it founds no mesh"
    assert [deed.what for deed in Ledger(directory).log.deeds()] == [
        "token", "enrolled", "backup", "restored",
    ]  # fmt: skip
    issuer_at(directory).renew(renew_request(issued=LATER, serial=LATER), LATER)


def test_a_log_larger_than_any_secret_is_in_it(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mesh of ten thousand nodes writes as much in a day."""
    monkeypatch.setattr(secret_files, "SECRET_BYTES_MAX", 16_384)
    for _ in range(30):
        desk.ledger.log.append(NOW, "opened", detail="x" * 400 + "\u20ac" * 400)
    log = desk.authority.directory / "log" / "000001.jsonl"
    assert log.stat().st_size > 16_384
    assert (restored(desk, tmp_path) / "log" / "000001.jsonl").read_bytes().startswith(log.read_bytes())


def test_no_token_of_before_is_redeemed_at_a_restored_authority(desk: Desk, tmp_path: Path) -> None:
    """It was redeemed after the backup, for all the restored one knows."""
    token = desk.token("shop/*")
    directory = restored(desk, tmp_path)
    with pytest.raises(RequestRefused, match="used already"):
        issuer_at(directory).enrol(enrol_request(token), LATER)


def test_it_signs_nothing_before_the_mesh_was_asked(desk: Desk, tmp_path: Path) -> None:
    directory = restored(desk, tmp_path)
    with pytest.raises(OperatorError, match=r"was restored from a backup.*ask-mesh"):
        require_asked(directory)
    learn(directory, desk.authority.trust_envelopes, [], LATER)
    require_asked(directory)


def test_where_nobody_answers_it_goes_on_on_record(desk: Desk, tmp_path: Path) -> None:
    directory = restored(desk, tmp_path)
    go_on_unasked(directory, LATER)
    require_asked(directory)
    assert [deed.what for deed in Ledger(directory).log.deeds()][-1] == "goes on unasked"


def test_what_was_signed_since_the_backup_is_learned(desk: Desk, tmp_path: Path) -> None:
    """One enrolled anew by other keys, one new, one revoked, and a newer Trust."""
    desk.issuer.enrol(enrol_request(desk.token(node="n2"), "spiffe://mesh.test/node/n2"), NOW)
    backup = written(desk, tmp_path / "backup")
    anew = enrol_request(desk.token("web/*"), "spiffe://mesh.test/node/n1", signing_key=THEIRS.public)
    anew = msgspec.structs.replace(anew, proof=THEIRS.sign(anew.proof_bytes()))
    records = [desk.issuer.enrol(anew, LATER).credential]
    third = enrol_request(desk.token(node="n3"), "spiffe://mesh.test/node/n3")
    records.append(desk.issuer.enrol(third, LATER).credential)
    records.append(take_out(desk.authority, desk.ledger, "n2", LATER, what="revoked").record)
    folder = desk.authority.directory
    newer = successor(desk.authority.trust, authorities=("authority.example.com:8443",))
    envelope = sign_trust(desk.authority.trust, newer, read_root_keys(folder, ()))
    trust = (*desk.authority.trust_envelopes, envelope.to_bytes())

    directory = tmp_path / "restored"
    restore_backup(backup, directory, LATER)
    learned = learn(directory, trust, [*records, b"noise", records[0][:-70] + bytes(70)], LATER)
    assert (learned.trusts, learned.enrolled, learned.revoked) == (1, ("n1", "n3"), ("n2",))
    assert load_authority(directory).trust.authorities == newer.authorities
    issuer = issuer_at(directory)
    with pytest.raises(RequestRefused) as refusal:
        issuer.renew(renew_request(issued=LATER), LATER)
    assert refusal.value.code == "proof", "the keys of before were superseded"
    renewal = renew_request("spiffe://mesh.test/node/n1", issued=LATER, serial=LATER, signed_by=THEIRS)
    issuer.renew(renewal, LATER)
    gone = "spiffe://mesh.test/node/n2"
    with pytest.raises(RequestRefused) as refusal:
        issuer.renew(renew_request(gone, spiffe_id=gone, issued=LATER), LATER)
    assert refusal.value.code in ("revoked", "proof")
    assert learn(directory, trust, records, LATER).enrolled == ()


@pytest.mark.parametrize("seed", range(4))
def test_an_agent_that_holds_trust_in_other_envelopes_is_believed(
    desk: Desk, tmp_path: Path, seed: int
) -> None:
    """Whoever passes Trust on may change its envelope; it says what it said, and in our form it is kept."""
    newer = successor(desk.authority.trust, authorities=("authority.example.com:8443",))
    signed = sign_trust(desk.authority.trust, newer, read_root_keys(desk.authority.directory, ()))
    trust = (*desk.authority.trust_envelopes, signed.to_bytes())
    rng = random.Random(seed)
    directory = restored(desk, tmp_path)
    learned = learn(directory, [changed_envelope(one, rng, 3) for one in trust], [], LATER)
    assert learned.trusts == 1
    assert (directory / "trust" / "00002.envelope").read_bytes() == signed.to_bytes()
    with pytest.raises(OperatorError, match="cannot be read"):
        learn(directory, [b"noise"], [], LATER)


def test_another_meshs_agent_is_not_believed(desk: Desk, tmp_path: Path) -> None:
    directory = restored(desk, tmp_path)
    other = Desk(tmp_path / "other")
    with pytest.raises(OperatorError, match="not this authority's"):
        learn(directory, other.authority.trust_envelopes, [], LATER)
    longer = (*desk.authority.trust_envelopes, other.authority.trust_envelopes[0])
    with pytest.raises(OperatorError, match="does not follow"):
        learn(directory, longer, [], LATER)
    with pytest.raises(OperatorError):
        require_asked(directory)


def changed(content: bytes) -> bytes:
    return content.replace(b'"node":"n1"', b'"node":"n9"', 1)


def with_a_strange_file(content: bytes) -> bytes:
    packed = io.BytesIO(content)
    with tarfile.open(fileobj=packed, mode="a") as archive:
        archive.addfile(tarfile.TarInfo("../../etc/passwd"), io.BytesIO(b""))
    return packed.getvalue()


def with_a_link(content: bytes) -> bytes:
    packed = io.BytesIO(content)
    with tarfile.open(fileobj=packed, mode="a") as archive:
        link = tarfile.TarInfo("root.key")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        archive.addfile(link)
    return packed.getvalue()


@pytest.mark.parametrize("change", [changed, with_a_strange_file, with_a_link, lambda _: b"noise"])
def test_a_file_that_is_no_backup_leaves_nothing(desk: Desk, tmp_path: Path, change: object) -> None:
    path = written(desk, tmp_path / "backup")
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(OperatorError, match=r"damaged|no backup of an authority"):
        restore_backup(path, tmp_path / "restored", LATER)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["authority", "backup"]
    with pytest.raises(OperatorError, match="is not empty"):
        restore_backup(path, desk.authority.directory, LATER)
