"""`authority rotate signer`: the next Trust and the set signed anew, handed to an agent that checks both."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gossipmesh.cli.main import run
from gossipmesh.control.roots import Plan, create_authority
from gossipmesh.control.trust_folder import read_signing_key, read_trust
from gossipmesh.model.documents import first_version_of
from gossipmesh.net.entropy import random_bytes
from gossipmesh.trust.documents import PolicyRefusal, TrustedDocuments
from gossipmesh.trust.envelope import decode_envelope_untrusted
from gossipmesh.trust.keys import SigningKey, Verifier
from gossipmesh.trust.manifest import BaseSet, SignedSet, build_manifest, sign_set
from gossipmesh.wire.versions import FEATURES
from tests.unit.cli.fake_agent import TRUST_DOMAIN, FakeAgent, documents_under

NEXT = first_version_of(1)
CANARY = str(Path(__file__).parents[3] / "configs/policies/shop-cart-canary.yaml")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An authority of two root keys in three and two signers; a parameter is the policy threshold."""
    plan = Plan(
        TRUST_DOMAIN,
        tmp_path / "a",
        signers=(("policy", "mesh"), ("second", "mesh")),
        policy_threshold=getattr(request, "param", {}),
    )
    create_authority(plan, 1_700_000_000, random_bytes)
    return tmp_path / "a"


@pytest.fixture
def agent(folder: Path, tmp_path: Path) -> Iterator[FakeAgent]:
    agent = FakeAgent({"node-2": ("alive", True)})
    agent.documents = documents_under(folder)
    with agent.serving(tmp_path / "agent.sock"):
        yield agent


@pytest.fixture
def gossipmesh(
    tmp_path: Path, agent: FakeAgent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.setenv("GOSSIPMESH_SOCKET", str(tmp_path / "agent.sock"))
    monkeypatch.setattr("gossipmesh.cli.push_flow.SETTLE_S", 0.0)

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def push(folder: Path, gossipmesh: Command, *words: str, signer: str = "policy.key") -> tuple[int, str, str]:
    return gossipmesh("policy", "push", "-f", CANARY, "--signer", str(folder / "signers" / signer), *words)


def stolen(agent: FakeAgent, key: SigningKey, version: int) -> SignedSet:
    """Put a set in force as a thief with a node of its own would, whatever its version."""
    base = BaseSet(version - 1, b"", {}, {})
    manifest = build_manifest(base, {}, trust_domain=TRUST_DOMAIN, scope="mesh", created=1)
    signed = sign_set(manifest, {}, [key])
    agent.documents.adopt(agent.documents.check_untrusted(signed.policy_set))
    return signed


def test_one_command_undoes_a_stolen_signer(folder: Path, agent: FakeAgent, gossipmesh: Command) -> None:
    old = read_signing_key(folder / "signers" / "policy.key")
    stolen(agent, old, NEXT - 1)
    code, _, err = push(folder, gossipmesh)
    assert code == 1
    assert "generation" in err

    code, out, err = gossipmesh("authority", "rotate", "signer", "policy", "--dir", str(folder), "-f", CANARY)

    assert code == 0, err
    assert "Trust version 2" in out
    assert f"published mesh version {NEXT + 1}" in out
    assert "  HTTPRoute/shop/cart\n" in out
    assert agent.runs[0] == NEXT + 1
    assert read_trust(folder).trust_envelopes == agent.documents.trust_envelopes
    assert read_signing_key(folder / "signers" / "policy.key.until-1").public == old.public
    with pytest.raises(PolicyRefusal, match="no signature verifies"):
        stolen(agent, old, NEXT + 2)
    assert push(folder, gossipmesh, "--prune")[:2] == (0, "nothing to change: mesh is as the files say\n")


def test_what_is_in_force_is_signed_anew_as_it_is(
    folder: Path, agent: FakeAgent, gossipmesh: Command
) -> None:
    assert push(folder, gossipmesh)[0] == 0
    before = agent.documents.in_force("mesh")
    code, out, err = gossipmesh("authority", "rotate", "signer", "second", "--dir", str(folder))
    assert code == 0, err
    after = agent.documents.in_force("mesh")
    assert before is not None
    assert after is not None
    assert after.raw.bodies == before.raw.bodies
    assert after.version == NEXT + 1
    assert "all 2 members run it" in out


def test_a_push_begins_the_generation_that_trust_names(
    folder: Path, agent: FakeAgent, gossipmesh: Command
) -> None:
    """Where the command was interrupted between Trust and the set, a push by the new key goes on."""
    assert push(folder, gossipmesh)[0] == 0
    agent.refuse_offers = True
    code, out, err = gossipmesh("authority", "rotate", "signer", "policy", "--dir", str(folder))
    assert code == 1
    assert "Trust version 2" in out
    assert "is not signed anew" in err
    agent.refuse_offers = False
    former = read_signing_key(folder / "signers" / "policy.key.until-1").public.hex()
    code, out, err = push(folder, gossipmesh, "--accept-signer", former)
    assert code == 0, err
    assert agent.runs[0] == NEXT + 1


def test_an_agent_that_is_behind_is_handed_what_it_lacks(
    folder: Path, agent: FakeAgent, gossipmesh: Command
) -> None:
    first = agent.documents
    assert gossipmesh("authority", "rotate", "signer", "policy", "--dir", str(folder))[0] == 0
    agent.documents = TrustedDocuments(trust_domain=TRUST_DOMAIN, verifier=Verifier(), features=FEATURES)
    agent.documents.load_trust_untrusted(first.trust_envelopes[0])
    code, out, err = gossipmesh("authority", "rotate", "signer", "policy", "--dir", str(folder))
    assert code == 0, err
    assert "Trust version 3" in out
    assert agent.documents.generation("mesh") == 2


@pytest.mark.parametrize("seed", range(3))
def test_an_agent_whose_trust_came_in_other_envelopes_is_one_of_the_mesh(
    folder: Path, agent: FakeAgent, gossipmesh: Command, seed: int
) -> None:
    """Two of three root keys are enough, and who passes an envelope on may have left the third out."""
    held = read_trust(folder).trust_envelopes[0]
    agent.documents = TrustedDocuments(trust_domain=TRUST_DOMAIN, verifier=Verifier(), features=FEATURES)
    signatures = decode_envelope_untrusted(held).signatures
    two = signatures[:seed] + signatures[seed + 1 :]
    agent.documents.load_trust_untrusted(
        msgspec.structs.replace(decode_envelope_untrusted(held), signatures=two).to_bytes()
    )
    assert agent.documents.trust_envelopes != [held]
    code, out, err = gossipmesh("authority", "rotate", "signer", "policy", "--dir", str(folder))
    assert code == 0, err
    assert "Trust version 2" in out


def test_nothing_is_made_when_it_cannot_be_finished(
    folder: Path, tmp_path: Path, agent: FakeAgent, gossipmesh: Command
) -> None:
    offline = tmp_path / "offline"
    offline.mkdir(mode=0o700)
    for name in ("2.key", "3.key"):
        (folder / "documents" / name).rename(offline / name)
    before = sorted(path.name for path in folder.rglob("*"))
    rotation = ("authority", "rotate", "signer")
    refused = [
        (
            (*rotation, "nobody", "--dir", str(folder)),
            "names no policy signer 'nobody'; there are: policy (m",
        ),
        ((*rotation, "policy", "--dir", str(folder)), "needs 2 of the 3 document root keys"),
        ((*rotation, "policy", "--dir", str(tmp_path / "b")), "no authority in"),
        ((*rotation, "policy", "--dir", str(folder), "--socket", str(tmp_path / "none")), "no agent at"),
    ]
    for words, sentence in refused:
        code, _, err = gossipmesh(*words)
        assert code == 1
        assert sentence in err
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert agent.documents.trust is not None
    assert agent.documents.trust.version == 1
    given = [word for name in ("2.key", "3.key") for word in ("--root-key", str(offline / name))]
    assert gossipmesh(*rotation, "policy", "--dir", str(folder), *given)[0] == 0


@pytest.mark.parametrize("folder", [{"mesh": 2}], indirect=True)
def test_a_scope_of_two_signers_is_pushed_and_rotated_by_both(
    folder: Path, agent: FakeAgent, gossipmesh: Command
) -> None:
    second = str(folder / "signers" / "second.key")
    code, _, err = push(folder, gossipmesh)
    assert (code, agent.runs[0]) == (1, 0)
    assert "1 distinct signers of the scope, 2 needed" in err
    assert push(folder, gossipmesh, "--signer", second)[0] == 0
    rotation = ("authority", "rotate", "signer", "policy", "--dir", str(folder))
    code, _, err = gossipmesh(*rotation)
    assert code == 1
    assert "needs 2 signers and 1 are here" in err
    assert agent.runs[0] == 1
    code, _, err = gossipmesh(*rotation, "--signer", second)
    assert code == 0, err
    assert agent.runs[0] == NEXT + 1
