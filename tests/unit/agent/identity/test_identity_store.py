"""The identity file: what does not belong together is not loaded."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.agent.identity.identity_store import FILE_NAME, load_identity, stored_of, upgrade_identity
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import WallSeconds
from gossipmesh.trust.carrier import carrier_root_pem
from gossipmesh.trust.svid import check_chain_untrusted, spki_hash_of_key
from tests.unit.enrolment_kit import running_authority

NODE = "spiffe://mesh.test/node/one"
IN_2100 = WallSeconds(4_102_444_800)


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


def current(identity: dict[str, Any], number: int) -> dict[str, str]:
    entry: dict[str, str] = identity["keys"][number]["current"]
    return entry


def swap_key(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    current(ours, 0)["key"] = current(theirs, 0)["key"]


def swap_chain(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    current(ours, 0)["chain"] = current(theirs, 0)["chain"]


def swap_keys(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["keys"] = theirs["keys"]


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


def node_keys_gone(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["keys"] = ours["keys"][1:]


def next_is_no_key(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["keys"][0]["next"] = {"key": "-----BEGIN PRIVATE KEY-----"}


def foreign_name(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours["keys"][0]["spiffe_id"] = "spiffe://evil.test/node/one"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (swap_key, "does not match its certificate"),
        (swap_chain, "is of spiffe://mesh.test/node/two"),
        (swap_keys, "no key for spiffe://mesh.test/node/one"),
        (swap_credential, "not the credential's"),
        (swap_seed, "not the credential's"),
        (swap_exchange, "not the credential's"),
        (short_seed, "wrong length"),
        (no_trust, "no Trust"),
        (other_domain, "Trust of 'mesh.test'"),
        (newer_format, "its format is 99"),
        (node_keys_gone, "no key for"),
        (next_is_no_key, "not a private key"),
        (foreign_name, "of another trust domain"),
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
    assert list(identity.svids) == [NODE, f"{NODE}/workloads", "spiffe://mesh.test/ns/shop/svc/cart"]
    assert identity.node_svid.not_before < identity.node_svid.not_after
    assert identity.credential_body.node_id == identity.credential_body.node_id
    text = (two_nodes / "one" / FILE_NAME).read_text()
    for shown in (
        repr(identity),
        repr(identity.node_svid),
        repr(stored_of(identity)),
        repr(identity.holding),
    ):
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


def as_format_1(identity: dict[str, Any]) -> dict[str, Any]:
    """Return what a build before keys turned would have written of this identity."""
    keys = identity.pop("keys")
    identity.pop("turned")
    svids = [{"spiffe_id": one["spiffe_id"], **one["current"]} for one in keys]
    return {**identity, "version": 1, "svids": svids}


async def test_a_file_of_format_1_is_read_with_its_keys_in_use(two_nodes: Path) -> None:
    path = two_nodes / "one" / FILE_NAME
    now = load_identity(two_nodes / "one")
    assert now is not None
    path.write_text(json.dumps(as_format_1(read(two_nodes / "one"))))
    before = load_identity(two_nodes / "one")
    assert before is not None
    assert list(before.holding.keys) == list(now.holding.keys)
    for name, keys in before.holding.keys.items():
        assert keys.current == now.holding.keys[name].current
        assert (keys.is_used, keys.former) == (True, None)
        assert keys.next.pin not in now.holding.pins[name]
    assert json.loads(path.read_text())["version"] == 1, "whoever only reads it leaves it as it is"


async def test_its_owner_writes_format_1_anew_once(two_nodes: Path) -> None:
    path = two_nodes / "one" / FILE_NAME
    path.write_text(json.dumps(as_format_1(read(two_nodes / "one"))))
    before = load_identity(two_nodes / "one")
    assert before is not None
    assert upgrade_identity(two_nodes / "one", before)
    after = load_identity(two_nodes / "one")
    assert after is not None
    assert after.holding == before.holding
    assert not upgrade_identity(two_nodes / "one", after)


async def test_a_key_without_a_certificate_is_shown_by_a_carrier_leaf(two_nodes: Path) -> None:
    identity = read(two_nodes / "one")
    current(identity, 0)["chain"] = ""
    (two_nodes / "one" / FILE_NAME).write_text(json.dumps(identity))
    found = load_identity(two_nodes / "one")
    assert found is not None
    assert NODE not in found.svids
    shown = found.node_svid
    assert shown.key_pem == found.holding.keys[NODE].current.key_pem
    facts = check_chain_untrusted(shown.chain_pem, carrier_root_pem("mesh.test"), IN_2100)
    assert (facts.spiffe_id, facts.spki_hash) == (NODE, spki_hash_of_key(shown.key_pem))


async def test_a_certificate_that_ran_out_is_not_shown(two_nodes: Path) -> None:
    identity = load_identity(two_nodes / "one")
    assert identity is not None
    keys = identity.holding.keys[NODE]
    ended = msgspec.structs.replace(keys.current, not_after=1)
    held = {**identity.holding.keys, NODE: msgspec.structs.replace(keys, current=ended)}
    returned = replace(identity, holding=msgspec.structs.replace(identity.holding, keys=held))
    assert identity.node_svid.chain_pem == keys.current.chain_pem
    assert returned.node_svid.chain_pem == returned.carrier_pem(NODE, ended)
