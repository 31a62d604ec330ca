"""`authority init`: whole or not at all, private, and readable by others' tools."""

import json
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope as OracleEnvelope
from securesystemslib.signer import SSlibKey

from gossipmesh.control.certificates import make_intermediate, make_root, to_pem
from gossipmesh.control.given_intermediate import read_given
from gossipmesh.control.roots import Plan, create_authority, load_authority, offline_keys_here
from gossipmesh.control.trust_folder import read_root_keys
from gossipmesh.model.documents import Access
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.instant import DAY_S, WallSeconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.trust.pem import signing_key_from_pem_untrusted
from gossipmesh.trust.svid import leaf_key_pem, read_leaf_key_untrusted

NOW = WallSeconds(1_800_000_000)


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_makes_everything_private(tmp_path: Path) -> None:
    create_authority(Plan("mesh.test", tmp_path / "a"), NOW, random_bytes)
    assert files(tmp_path / "a")
    for path in [tmp_path / "a", *(tmp_path / "a").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_two_of_three_root_keys_unless_dev(tmp_path: Path) -> None:
    trust = create_authority(Plan("mesh.test", tmp_path / "a"), NOW, random_bytes).trust
    assert (len(trust.root_keys), trust.root_threshold) == (3, 2)
    dev = create_authority(Plan("mesh.test", tmp_path / "b", dev=True), NOW, random_bytes).trust
    assert (len(dev.root_keys), dev.root_threshold) == (1, 1)


def test_thresholds_are_those_asked_for_and_one_key_more_is_made(tmp_path: Path) -> None:
    signers = (("a", "mesh"), ("b", "mesh"), ("c", "edge"))
    plan = Plan(
        "mesh.test",
        tmp_path / "a",
        signers=signers,
        root_threshold=4,
        policy_threshold={"mesh": 2},
        access=Access.DENY,
    )
    trust = create_authority(plan, NOW, random_bytes).trust
    assert (trust.root_threshold, len(trust.root_keys)) == (4, 5)
    assert (trust.policy_threshold, trust.access) == ({"mesh": 2}, Access.DENY)
    assert len(list((tmp_path / "a" / "documents").glob("*.key"))) == 5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policy_threshold": {"mesh": 2}}, "mesh=2 cannot be met: 1 signers of 'mesh'"),
        ({"policy_threshold": {"edge": 1}}, "edge=1 cannot be met: 0 signers"),
        ({"policy_threshold": {"mesh": 0}}, "cannot be met"),
        ({"root_threshold": 0}, "is 1 to 8, not 0"),
        ({"root_threshold": 9}, "is 1 to 8, not 9"),
        ({"root_threshold": 2, "dev": True}, "one document root key"),
    ],
)
def test_a_threshold_that_nobody_can_meet_makes_nothing(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(OperatorError, match=sentence):
        create_authority(Plan("mesh.test", tmp_path / "a", **changes), NOW, random_bytes)
    assert not (tmp_path / "a").exists()


def test_the_first_trust_verifies_with_another_implementation(tmp_path: Path) -> None:
    trust = create_authority(Plan("mesh.test", tmp_path / "a"), NOW, random_bytes).trust
    envelope = OracleEnvelope.from_dict(json.loads((tmp_path / "a" / "trust.json").read_text()))
    keys = []
    for text, signature in zip(trust.root_keys, envelope.signatures.values(), strict=True):
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
        keys.append(SSlibKey.from_crypto(public, signature.keyid))
    assert len(envelope.verify(keys, threshold=3)) == 3


def test_signers_get_a_key_and_a_scope_each(tmp_path: Path) -> None:
    plan = Plan("mesh.test", tmp_path / "a", signers=[("ana", "mesh"), ("edge", "edge")])
    trust = create_authority(plan, NOW, random_bytes).trust
    named = {signer.name: signer for signer in trust.signers}
    assert named["edge"].scopes == ("edge",)
    key = signing_key_from_pem_untrusted((tmp_path / "a" / "signers" / "ana.key").read_bytes())
    assert named["ana"].public_key == key.public.hex()


def test_path_lengths_leave_room_for_delegates(tmp_path: Path) -> None:
    create_authority(Plan("mesh.test", tmp_path / "a"), NOW, random_bytes)
    for name, length in (("root", 2), ("intermediate", 1)):
        words = ["openssl", "x509", "-in", f"{name}.pem", "-noout", "-ext", "basicConstraints"]
        shown = subprocess.run(words, cwd=tmp_path / "a", capture_output=True, text=True, check=True).stdout
        assert f"CA:TRUE, pathlen:{length}" in shown


def test_the_root_key_goes_where_it_is_told(tmp_path: Path) -> None:
    out = tmp_path / "stick.key"
    create_authority(Plan("mesh.test", tmp_path / "a", root_key_out=out), NOW, random_bytes)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert not (tmp_path / "a" / "root.key").exists()
    load_authority(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trust_domain": "Mesh"}, "cannot be a trust domain"),
        ({"signers": [("a", "mesh"), ("a", "edge")]}, "two signers have one name"),
        ({"signers": [("a", "")]}, "is not NAME:SCOPE"),
        ({"root_key_out": Path("/dev/null")}, "never overwritten"),
        ({"root_key_out": Path("/nonexistent/root.key")}, "cannot write /nonexistent/root.key"),
        ({"directory": Path("/dev/null/a")}, "cannot create"),
    ],
)
def test_refuses_in_a_sentence_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    plan = Plan(**{"trust_domain": "mesh.test", "directory": tmp_path / "a", **changes})  # type: ignore[arg-type]
    with pytest.raises(OperatorError, match=sentence):
        create_authority(plan, NOW, random_bytes)
    assert list(tmp_path.iterdir()) == []


def test_never_overwrites_an_authority(tmp_path: Path) -> None:
    create_authority(Plan("mesh.test", tmp_path / "a"), NOW, random_bytes)
    before = {path: path.read_bytes() for path in files(tmp_path / "a")}
    with pytest.raises(OperatorError, match="not empty"):
        create_authority(Plan("mesh.test", tmp_path / "a"), NOW, random_bytes)
    assert {path: path.read_bytes() for path in files(tmp_path / "a")} == before


class TestLoading:
    def test_an_absent_authority_is_a_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(OperatorError, match="authority init"):
            load_authority(tmp_path / "nowhere")

    @pytest.mark.parametrize("name", ["intermediate.key", "credential.key", "authority.json", "root.pem"])
    def test_open_permissions_name_the_file_and_the_cure(self, tmp_path: Path, name: str) -> None:
        create_authority(Plan("mesh.test", tmp_path / "a"), NOW, random_bytes)
        (tmp_path / "a" / name).chmod(0o640)
        with pytest.raises(OperatorError, match=rf"chmod 600 .*{name}"):
            load_authority(tmp_path / "a")

    @pytest.mark.parametrize(
        "name", ["intermediate.key", "credential.key", "root.pem", "trust/00001.envelope"]
    )
    def test_anothers_file_in_its_place_is_noticed(self, tmp_path: Path, name: str) -> None:
        create_authority(Plan("mesh.test", tmp_path / "a"), NOW, random_bytes)
        create_authority(Plan("mesh.test", tmp_path / "b"), NOW, random_bytes)
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
        with pytest.raises(OperatorError, match="is damaged"):
            load_authority(tmp_path / "a")

    def test_serving_needs_no_offline_key(self, tmp_path: Path) -> None:
        create_authority(Plan("mesh.test", tmp_path / "a"), NOW, random_bytes)
        (tmp_path / "a" / "root.key").unlink()
        for path in (tmp_path / "a" / "documents").iterdir():
            path.unlink()
        assert load_authority(tmp_path / "a").trust_domain == "mesh.test"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of five pages: fewer than an authority has files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20k,mode=0700", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.namespace
def test_on_a_full_disk_there_is_no_half_authority(small_disk: Path) -> None:
    with pytest.raises(OperatorError, match="No space left on device"):
        create_authority(Plan("mesh.test", small_disk / "a"), NOW, random_bytes)
    assert list(small_disk.iterdir()) == []


def test_offline_keys_may_be_under_a_passphrase(tmp_path: Path) -> None:
    """Serving needs none of them; who signs the next Trust gives the passphrase."""
    plan = Plan("mesh.test", tmp_path / "a", passphrase=b"correct horse")
    authority = create_authority(plan, NOW, random_bytes)
    root_key = (tmp_path / "a" / "root.key").read_bytes()
    assert b"ENCRYPTED" in root_key
    assert read_leaf_key_untrusted(root_key, b"correct horse")
    for wrong in (None, b"wrong"):
        with pytest.raises(MalformedInput, match="under a passphrase"):
            read_leaf_key_untrusted(root_key, wrong)
    keys = read_root_keys(tmp_path / "a", (), lambda _: b"correct horse")
    assert {key.public.hex() for key in keys} == set(authority.trust.root_keys)
    with pytest.raises(OperatorError, match=r"1\.key is under a passphrase; give it"):
        read_root_keys(tmp_path / "a", ())
    with pytest.raises(OperatorError, match="under a passphrase, and this is not it"):
        read_root_keys(tmp_path / "a", (), lambda _: b"wrong")
    assert offline_keys_here(authority) == []


def test_offline_keys_that_lie_open_beside_a_serving_authority_are_told(tmp_path: Path) -> None:
    authority = create_authority(Plan("mesh.test", tmp_path / "a"), NOW, random_bytes)
    (warning,) = offline_keys_here(authority)
    assert "root.key, " in warning
    assert "3.key lie open beside" in warning
    (tmp_path / "a" / "root.key").unlink()
    shutil.rmtree(tmp_path / "a" / "documents")
    assert offline_keys_here(authority) == []
    dev = create_authority(Plan("mesh.test", tmp_path / "dev", dev=True), NOW, random_bytes)
    assert offline_keys_here(dev) == []


class TestGivenIntermediate:
    """A company's CA signs the intermediate; nodes take what it issues, or `init` says why not."""

    def files(self, folder: Path, *, signer: int = 1) -> tuple[Path, Path, Path]:
        keys = {number: leaf_key_pem(bytes([number]) * 48) for number in (1, 2, 3)}
        private = {number: read_leaf_key_untrusted(pem) for number, pem in keys.items()}
        root = make_root(private[1], "Company root", NOW, bytes(18) + b"\x01")
        made = make_intermediate(
            private[2].public_key(), "Company mesh", root, private[signer], NOW, bytes(18) + b"\x03"
        )
        paths = (folder / "root.pem", folder / "intermediate.pem", folder / "issuing.key")
        for path, content in zip(paths, (to_pem(root), to_pem(made), keys[2]), strict=True):
            path.write_bytes(content)
            path.chmod(0o600)
        return paths

    def test_it_issues_in_place_of_one_of_our_own(self, tmp_path: Path) -> None:
        given = read_given(*self.files(tmp_path), "mesh.test", NOW)
        authority = create_authority(Plan("mesh.test", tmp_path / "a", given=given), NOW, random_bytes)
        assert not (tmp_path / "a" / "root.key").exists()
        assert authority.root_pem == (tmp_path / "root.pem").read_text()
        assert authority.trust.intermediates == ((tmp_path / "intermediate.pem").read_text(),)

    def test_what_no_node_would_take_is_refused(self, tmp_path: Path) -> None:
        root, intermediate, key = self.files(tmp_path, signer=3)
        with pytest.raises(
            OperatorError, match="cannot issue for this mesh: a certificate its issuer did not"
        ):
            read_given(root, intermediate, key, "mesh.test", NOW)
        root, intermediate, key = self.files(tmp_path)
        with pytest.raises(OperatorError, match="cannot issue for this mesh: "):
            read_given(root, intermediate, key, "mesh.test", WallSeconds(NOW + 6 * 365 * DAY_S))
        with pytest.raises(OperatorError, match="cannot issue"):
            read_given(root, root, key, "mesh.test", NOW)
        key.write_bytes(leaf_key_pem(b"\x09" * 48))
        with pytest.raises(OperatorError, match="is not its key"):
            read_given(root, intermediate, key, "mesh.test", NOW)
        with pytest.raises(OperatorError, match="cannot read"):
            read_given(tmp_path / "none", intermediate, key, "mesh.test", NOW)
