"""Another key for the authority: named before it is used, dropped when nothing of the old one is needed."""

from pathlib import Path

import pytest

from gossipmesh.control.issuing import Issuer
from gossipmesh.control.loaded import LoadedAuthority
from gossipmesh.control.roots import Authority, Plan, create_authority, load_authority
from gossipmesh.control.rotation import Rotation, mark
from gossipmesh.control.trust_changes import sign_trust
from gossipmesh.control.trust_folder import read_root_keys, write_trust
from gossipmesh.model.documents import TrustDocument
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import DAY_S, WallSeconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.trust.svid import check_chain_untrusted, leaf_key_pem, read_leaf_key_untrusted
from tests.unit.control.test_issuing import NOW, Desk, enrol_request, renew_request

LATER = WallSeconds(NOW + 2 * DAY_S)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path / "authority")
    made.issuer.enrol(enrol_request(made.token("shop/*")), NOW)
    return made


def now_of(desk: Desk) -> Authority:
    return load_authority(desk.authority.directory)


def publish(desk: Desk, document: TrustDocument) -> None:
    directory = desk.authority.directory
    write_trust(
        directory,
        sign_trust(now_of(desk).trust, document, read_root_keys(directory, ())),
        document.version,
    )


def root_key(desk: Desk, kind: str) -> object:
    if kind == "credential":
        return None
    if kind == "root":
        return read_leaf_key_untrusted(leaf_key_pem(b"\x55" * 48))
    return read_leaf_key_untrusted((desk.authority.directory / "root.key").read_bytes())


@pytest.mark.parametrize("kind", ["credential", "intermediate", "root"])
def test_each_key_turns_in_three_steps_and_nodes_are_served_throughout(desk: Desk, kind: str) -> None:
    """A node renews after every step; what it is answered holds under the Trust of that moment."""
    directory = desk.authority.directory
    before = now_of(desk)

    def renewed(at: WallSeconds) -> None:
        authority = now_of(desk)
        issuer = Issuer(authority, desk.ledger, random_bytes)
        issued = issuer.renew(renew_request(issued=at, serial=at), at)
        bundle = "".join(authority.trust.root_certificates).encode()
        check_chain_untrusted(issued.svids[0].chain.encode(), bundle, at)

    rotation = Rotation(kind, before)
    assert rotation.next_step() == "name"
    with pytest.raises(OperatorError):
        rotation.dropped(NOW, force=True)
    rotation.name(root_key(desk, kind), NOW, random_bytes)  # type: ignore[arg-type]
    with pytest.raises(OperatorError, match="no Trust names a new"):
        rotation.use()
    publish(desk, rotation.named())
    renewed(NOW)
    assert now_of(desk).credential_key.public == before.credential_key.public
    assert now_of(desk).intermediate == before.intermediate

    rotation = Rotation(kind, now_of(desk))
    assert rotation.next_step() == "use"
    rotation.use()
    mark(directory, f"rotate {kind}: use", NOW)
    after = now_of(desk)
    assert (after.credential_key.public != before.credential_key.public) is (kind == "credential")
    assert (after.intermediate != before.intermediate) is (kind != "credential")
    assert (after.root_pem != before.root_pem) is (kind == "root")

    rotation = Rotation(kind, after)
    assert rotation.next_step() == "drop"
    with pytest.raises(OperatorError, match="with --force"):
        rotation.dropped(NOW, force=False)
    renewed(LATER)
    document = Rotation(kind, now_of(desk)).dropped(LATER, force=False)
    publish(desk, document)
    renewed(LATER)
    assert (len(document.signers), len(document.intermediates), len(document.root_certificates)) == (2, 1, 1)
    assert Rotation(kind, now_of(desk)).next_step() == "name"


def test_a_step_done_again_makes_nothing_new(desk: Desk) -> None:
    rotation = Rotation("credential", now_of(desk))
    rotation.name(None, NOW, random_bytes)
    first = rotation.named()
    rotation.name(None, NOW, random_bytes)
    assert rotation.named() == first


def test_another_key_than_the_roots_signs_no_intermediate(desk: Desk) -> None:
    wrong = read_leaf_key_untrusted(leaf_key_pem(b"\x56" * 48))
    rotation = Rotation("intermediate", now_of(desk))
    with pytest.raises(OperatorError, match="not the key of the X"):
        rotation.name(wrong, NOW, random_bytes)
    assert rotation.next_step() == "name"


def test_a_server_takes_up_what_a_command_changed_and_nothing_half_done(desk: Desk) -> None:
    told: list[str] = []
    loaded = LoadedAuthority(desk.authority, told.append)
    assert loaded.look() is desk.authority
    rotation = Rotation("credential", now_of(desk))
    rotation.name(None, NOW, random_bytes)
    publish(desk, rotation.named())
    assert loaded.look().trust.version == 2
    key_file = desk.authority.directory / "credential.key"
    old = key_file.read_bytes()
    key_file.write_bytes(b"half")
    assert loaded.look().trust.version == 2
    assert "is not taken up" in told[-1]
    key_file.write_bytes(old)
    Rotation("credential", now_of(desk)).use()
    assert loaded.look().credential_key.public != desk.authority.credential_key.public
    other = create_authority(Plan("mesh.test", desk.authority.directory.parent / "b"), NOW, random_bytes)
    assert LoadedAuthority(other, told.append).look() is other
