"""A node that was away while the authority was given another root: what it shows, and that it renews."""

import random
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from gossipmesh.agent.identity.dropped import is_dropped, is_signer_dropped
from gossipmesh.agent.identity.enrolment import enrol, renew
from gossipmesh.agent.identity.identity_keeper import IdentityKeeper
from gossipmesh.agent.identity.identity_store import NodeIdentity, load_identity, write_identity
from gossipmesh.control.roots import Authority, load_authority
from gossipmesh.control.rotation import Rotation
from gossipmesh.control.trust_changes import sign_trust
from gossipmesh.control.trust_folder import read_root_keys, write_trust
from gossipmesh.model.documents import TrustDocument
from gossipmesh.model.errors import OperatorError
from gossipmesh.net.clock import wall_seconds
from gossipmesh.net.entropy import random_bytes
from gossipmesh.trust.carrier import carrier_root_pem
from gossipmesh.trust.svid import (
    LEAF_ENTROPY_BYTES,
    check_chain_untrusted,
    leaf_key_pem,
    read_leaf_key_untrusted,
    serial_of_chain,
)
from tests.unit.enrolment_kit import RunningAuthority, running_authority


def rotate(directory: Path, kind: str = "root") -> Authority:
    """Take all three steps at once, as after a theft; return the authority as it is then."""

    def rotation() -> Rotation:
        return Rotation(kind, load_authority(directory))

    def publish(document: TrustDocument) -> None:
        envelope = sign_trust(load_authority(directory).trust, document, read_root_keys(directory, ()))
        write_trust(directory, envelope, document.version)

    key_pem = leaf_key_pem(random_bytes(LEAF_ENTROPY_BYTES))
    if kind == "intermediate":
        key_pem = (directory / "root.key").read_bytes()
    key = read_leaf_key_untrusted(key_pem)
    rotation().name(key, wall_seconds(), random_bytes)
    publish(rotation().named())
    rotation().use()
    publish(rotation().dropped(wall_seconds(), force=True))
    return load_authority(directory)


async def taken_up(running: RunningAuthority, trust: TrustDocument) -> None:
    """Wait until the server issues by what is on disk, which it looks at though nobody can ask it."""
    with trio.fail_after(10):
        while not any(f"Trust is at version {trust.version}" in line for line in running.log):  # noqa: ASYNC110
            await trio.sleep(0.05)


async def enrolled(running: RunningAuthority, folder: Path) -> NodeIdentity:
    return await enrol(folder / "identity", running.token(folder / "token", "n1", ("shop/cart",)))


async def test_its_certificates_are_dropped_and_it_shows_the_carrier_until_it_has_others(
    tmp_path: Path,
) -> None:
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrolled(running, tmp_path)
        keys = [held.current for held in identity.holding.keys.values()]
        assert not any(is_dropped(key, running.authority.trust) for key in keys)
        assert identity.node_svid_under(running.authority.trust) == identity.node_svid

        trust = rotate(tmp_path / "authority").trust
        assert all(is_dropped(key, trust) for key in keys)
        assert not any(is_dropped(key, None) for key in keys), "nothing is known to be dropped"
        shown = identity.node_svid_under(trust)
        assert shown.key_pem == identity.node_svid.key_pem
        check_chain_untrusted(shown.chain_pem, carrier_root_pem("mesh.test"), wall_seconds())


async def test_it_renews_once_it_has_that_trust_and_its_file_can_be_read(tmp_path: Path) -> None:
    """What is on its disk is still by the old root then, beside a Trust that does not name it."""
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrolled(running, tmp_path)
        trust = rotate(tmp_path / "authority").trust
        leaves = {name: held.current for name, held in identity.holding.keys.items()}
        await taken_up(running, trust)
        with pytest.raises(OperatorError):
            await renew(identity, leaves)  # it knows no root of the authority's certificate
        renewal = await renew(identity, leaves, trust=trust)
        assert not any(is_dropped(key, trust) for key in renewal.keys.values())
        write_identity(tmp_path / "identity", renewal.identity)
        kept = load_identity(tmp_path / "identity")
        assert kept is not None
        assert kept.bundle_pem == "".join(trust.root_certificates).encode()


async def test_a_credential_counts_while_trust_names_its_signer(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrolled(running, tmp_path)
        former, trust = running.authority.trust, rotate(tmp_path / "authority", "credential").trust
        dropped = [is_signer_dropped(identity.credential, known) for known in (None, former, trust)]
        assert dropped == [False, False, True]


@pytest.mark.parametrize("kind", ["root", "intermediate", "credential"])
async def test_it_asks_as_soon_as_that_trust_comes(tmp_path: Path, kind: str) -> None:
    async with running_authority(tmp_path / "authority") as running, trio.open_nursery() as nursery:
        identity = await enrolled(running, tmp_path)
        known, renewed = running.authority.trust, trio.Event()
        keeper = IdentityKeeper(
            tmp_path / "identity",
            identity,
            wanted=list,
            on_renewed=lambda _: renewed.set(),
            rng=random.Random(1),
            trust=lambda: known,
        )
        nursery.start_soon(keeper.run)
        await trio.testing.wait_all_tasks_blocked()
        keeper.trust_changed()
        await trio.testing.wait_all_tasks_blocked()
        assert not renewed.is_set(), "nothing was dropped"
        known = rotate(tmp_path / "authority", kind).trust
        await taken_up(running, known)
        keeper.trust_changed()
        with trio.fail_after(10):
            await renewed.wait()
        nursery.cancel_scope.cancel()


async def test_a_certificate_whose_serial_number_is_revoked_is_shown_to_nobody(tmp_path: Path) -> None:
    async with running_authority(tmp_path / "authority") as running:
        identity = await enrolled(running, tmp_path)
        held = identity.holding.keys[identity.spiffe_id].current
        number = serial_of_chain(held.chain_pem)
        for serial, dropped in ((number + 1, False), (number, True)):
            trust = msgspec.structs.replace(running.authority.trust, revoked_leaves={f"{serial:x}": 2**33})
            assert is_dropped(held, trust) is dropped
            shown = identity.node_svid_under(trust).chain_pem
            assert (shown == identity.carrier_pem(identity.spiffe_id, held)) is dropped
