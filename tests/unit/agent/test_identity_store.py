"""The identity file: what does not belong together is not loaded."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.agent.enrolment import enrol
from gossipmesh.agent.identity_store import FILE_NAME, load_identity, stored_of
from gossipmesh.model.errors import OperatorError
from tests.unit.enrolment_kit import running_authority


@pytest.fixture
async def two_nodes(tmp_path: Path) -> Path:
    """Folders `one` and `two`, each with a good identity of its own node."""
    async with running_authority(tmp_path / "authority") as running:
        for name in ("one", "two"):
            token = running.token(tmp_path / f"{name}.token", name, ("shop/cart",))
            await enrol(tmp_path / name, token)
    return tmp_path


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / FILE_NAME).read_text())
    return content


Change = Callable[[dict[str, Any], dict[str, Any]], None]


def svid(identity: dict[str, Any], number: int) -> dict[str, str]:
    entry: dict[str, str] = identity["svids"][number]
    return entry


def swap_key(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    svid(ours, 0)["key"] = svid(theirs, 0)["key"]


def swap_chain(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    svid(ours, 0)["chain"] = svid(theirs, 0)["chain"]


def swap_svid(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["svids"] = theirs["svids"]


def swap_credential(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["credential"] = theirs["credential"]


def swap_seed(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["signing_seed"] = theirs["signing_seed"]


def swap_exchange(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["exchange_seed"] = theirs["exchange_seed"]


def short_seed(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["signing_seed"] = base64.b64encode(b"short").decode()


def no_trust(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["trust"] = []


def other_domain(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["trust_domain"] = "evil.test"


def newer_format(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["version"] = 99


def node_svid_gone(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["svids"] = ours["svids"][1:]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (swap_key, "does not match its certificate"),
        (swap_chain, "is of spiffe://mesh.test/node/two"),
        (swap_svid, "no SVID for spiffe://mesh.test/node/one"),
        (swap_credential, "not the credential's"),
        (swap_seed, "not the credential's"),
        (swap_exchange, "not the credential's"),
        (short_seed, "wrong length"),
        (no_trust, "no Trust"),
        (other_domain, "Trust of 'mesh.test'"),
        (newer_format, "its format is 99"),
        (node_svid_gone, "no SVID for"),
    ],
)
async def test_parts_of_two_identities_are_not_one(two_nodes: Path, change: Change, sentence: str) -> None:
    identity = read(two_nodes / "one")
    change(identity, read(two_nodes / "two"))
    (two_nodes / "one" / FILE_NAME).write_text(json.dumps(identity))
    with pytest.raises(OperatorError, match=sentence) as error:
        load_identity(two_nodes / "one")
    assert "enrol this node again" in str(error.value)


async def test_what_was_enrolled_is_loaded(two_nodes: Path) -> None:
    identity = load_identity(two_nodes / "one")
    assert identity is not None
    assert (identity.name, identity.trust_domain) == ("one", "mesh.test")
    assert list(identity.svids) == ["spiffe://mesh.test/node/one", "spiffe://mesh.test/ns/shop/svc/cart"]
    assert identity.node_svid.not_before < identity.node_svid.not_after
    assert identity.credential_body.node_id == identity.credential_body.node_id
    text = (two_nodes / "one" / FILE_NAME).read_text()
    for shown in (repr(identity), repr(identity.node_svid), repr(stored_of(identity))):
        assert "PRIVATE" not in shown
        assert base64.b64encode(identity.signing.seed()).decode() not in shown
    assert base64.b64encode(identity.signing.seed()).decode() in text


@pytest.mark.parametrize("cut", [0, 1, 100, -2])
async def test_a_torn_file_is_a_sentence(two_nodes: Path, cut: int) -> None:
    path = two_nodes / "one" / FILE_NAME
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(OperatorError, match="is damaged"):
        load_identity(two_nodes / "one")


async def test_open_permissions_are_refused_with_the_cure(two_nodes: Path) -> None:
    path = two_nodes / "one" / FILE_NAME
    path.chmod(0o644)
    with pytest.raises(OperatorError, match=r"chmod 600 .*identity\.json"):
        load_identity(two_nodes / "one")
    path.chmod(0o600)
    path.parent.chmod(0o755)
    with pytest.raises(OperatorError, match=r"chmod 700 .*one"):
        load_identity(two_nodes / "one")


def test_no_identity_is_none(tmp_path: Path) -> None:
    assert load_identity(tmp_path / "nowhere") is None
    (tmp_path / "empty").mkdir(mode=0o700)
    assert load_identity(tmp_path / "empty") is None
