"""What an agent says that must end because another machine is the node."""

from pathlib import Path

from gossipmesh.agent.replaced import replaced_by
from gossipmesh.gossip.base.effects import EnrolledAgain, IdentityCopied, Revoked
from gossipmesh.model.member import Address

FOLDER = Path("/var/lib/gossipmesh/identity")
WAY_OUT = f"run `rm -r {FOLDER}` and enrol it under a name of its own (`gossipmesh token create --node NAME`)"


def test_a_name_enrolled_again() -> None:
    failure = replaced_by(EnrolledAgain(3), "shop1", 2, FOLDER)
    assert failure.exit_code == 78
    assert str(failure).startswith("shop1 was enrolled again elsewhere (generation 3, here it is 2)")
    assert str(failure).endswith(WAY_OUT)


def test_a_copied_identity() -> None:
    failure = replaced_by(IdentityCopied(Address("10.0.0.7", 7948)), "shop1", 2, FOLDER)
    assert failure.exit_code == 78
    assert str(failure).startswith(
        f"shop1 runs at 10.0.0.7:7948 too, under the identity that is kept in {FOLDER}"
    )
    assert "copied, or the machine cloned?" in str(failure)
    assert WAY_OUT in str(failure)
    assert str(failure).endswith("to move shop1 to this machine, stop it there, then start it here")


def test_a_revoked_node() -> None:
    failure = replaced_by(Revoked(3), "shop1", 2, FOLDER)
    assert failure.exit_code == 77
    assert str(failure).startswith("shop1 was revoked (generation 2 counts no more)")
    assert str(failure).endswith(
        f"run `rm -r {FOLDER}` and enrol shop1 again (`gossipmesh token create --node shop1`)"
    )
