"""`authority rotate credential`: members are asked before a new key is used; a stolen one goes at once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gossipmesh.cli.main import run
from gossipmesh.control.roots import Plan, create_authority, load_authority
from gossipmesh.control.trust_folder import read_trust
from gossipmesh.net.entropy import random_bytes
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.versions import FEATURES, HOLDS_TRUST, LACKS_ROLL, MEMBER_FEATURES, ROLLS
from tests.unit.cli.fake_agent import TRUST_DOMAIN, FakeAgent

Command = Callable[..., tuple[int, str, str]]


def saying(version: int, *more: str) -> tuple[str, ...]:
    return (*MEMBER_FEATURES, f"{HOLDS_TRUST}{version}", *more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_authority(Plan(TRUST_DOMAIN, tmp_path / "a"), 1_700_000_000, random_bytes)
    return tmp_path / "a"


@pytest.fixture
def agent(folder: Path, tmp_path: Path) -> Iterator[FakeAgent]:
    agent = FakeAgent({"node-2": ("alive", True), "node-3": ("dead", False)})
    agent.features = {"node-1": saying(99), "node-2": saying(99), "node-3": saying(1)}
    agent.documents = TrustedDocuments(trust_domain=TRUST_DOMAIN, verifier=Verifier(), features=FEATURES)
    for envelope in read_trust(folder).trust_envelopes:
        agent.documents.load_trust_untrusted(envelope)
    with agent.serving(tmp_path / "agent.sock"):
        yield agent


@pytest.fixture
def rotate(folder: Path, agent: FakeAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        socket = str(tmp_path / "agent.sock")
        code = run(["authority", "rotate", "credential", "--dir", str(folder), "--socket", socket, *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_a_new_key_is_used_once_every_member_has_its_trust(
    folder: Path, agent: FakeAgent, rotate: Command
) -> None:
    before = load_authority(folder).credential_key.public
    assert rotate()[0] == 0
    agent.features["node-2"] = saying(1)
    code, _, err = rotate()
    assert code == 1
    assert "1 members do not say that they have Trust version 2" in err
    assert "node-2" in err
    assert "node-3" not in err  # it is dead, and learns of it when it is back
    assert load_authority(folder).credential_key.public == before
    agent.features["node-2"] = MEMBER_FEATURES  # of a build that never says so
    assert "node-2" in rotate()[2]
    assert rotate("--force")[0] == 0
    assert load_authority(folder).credential_key.public != before


def test_a_stolen_key_is_replaced_by_one_command_with_a_roll(
    folder: Path, agent: FakeAgent, rotate: Command
) -> None:
    stolen = load_authority(folder).credential_key.public
    agent.features["node-2"] = saying(1)  # nobody is waited for
    code, out, err = rotate("--stolen")
    assert code == 0, err
    assert "Trust version 3 names the stolen credential key" in out
    now = load_authority(folder)
    assert stolen.hex() not in str(now.trust.signers)
    assert now.trust.roll
    assert agent.documents.trust == now.trust
    assert agent.rolls == [now.trust.roll]
    # Again: a member lacks it still, so that it is handed out once more and no key is changed.
    agent.features["node-2"] = saying(3, LACKS_ROLL)
    assert "the agent at" in rotate("--stolen")[1]
    assert load_authority(folder).trust == now.trust
    assert agent.rolls == [now.trust.roll, now.trust.roll]
    # And again, once everybody has it: the key in use was stolen as well.
    agent.features["node-2"] = saying(3)
    assert "Trust version 5" in rotate("--stolen")[1]
    assert load_authority(folder).credential_key.public != now.credential_key.public


def test_a_command_that_was_cut_off_goes_on_where_it_was(
    folder: Path, agent: FakeAgent, rotate: Command
) -> None:
    stolen = load_authority(folder).credential_key.public
    assert rotate("--step", "name")[0] == 0
    assert rotate("--step", "use")[0] == 0
    code, out, err = rotate("--stolen")
    assert (code, "Trust version 3 names the stolen" in out) == (0, True), err
    assert stolen.hex() not in str(load_authority(folder).trust.signers)


def test_members_that_read_no_roll_are_named_before_anything_is_made(
    folder: Path, agent: FakeAgent, rotate: Command
) -> None:
    agent.features["node-3"] = tuple(feature for feature in saying(1) if feature != ROLLS)
    code, _, err = rotate("--stolen")
    assert code == 1
    assert "1 members do not read a roll" in err
    assert "node-3" in err
    assert load_authority(folder).trust.version == 1
    assert not (folder / "next").exists()


def test_an_agent_that_does_not_take_the_whole_roll_is_told(
    folder: Path, agent: FakeAgent, rotate: Command
) -> None:
    agent.takes_rolls = False
    code, _, err = rotate("--stolen")
    assert code == 1
    assert "does not say that it has the whole roll" in err
    agent.takes_rolls = True
    agent.features["node-2"] = saying(1)
    assert "has it now" in rotate("--stolen")[1]
