"""A scope of two signers who share no key: one makes a set, the other signs its file, anybody pushes it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gossipmesh.cli.main import run
from gossipmesh.control.roots import Plan, create_authority
from gossipmesh.net.entropy import random_bytes
from tests.unit.cli.fake_agent import TRUST_DOMAIN, FakeAgent, documents_under

CANARY = str(Path(__file__).parents[3] / "configs/policies/shop-cart-canary.yaml")
SIGNERS = (("ann", "mesh"), ("ben", "mesh"), ("cat", "mesh"), ("edge", "edge"))
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The folder with the keys of three signers, two of whom are needed, and of another scope's."""
    plan = Plan(TRUST_DOMAIN, tmp_path / "a", signers=SIGNERS, policy_threshold={"mesh": 2}, dev=True)
    create_authority(plan, 1_700_000_000, random_bytes)
    return tmp_path / "a" / "signers"


@pytest.fixture
def agent(keys: Path, tmp_path: Path) -> Iterator[FakeAgent]:
    agent = FakeAgent({"node-2": ("alive", True)})
    agent.documents = documents_under(keys.parent)
    with agent.serving(tmp_path / "agent.sock"):
        yield agent


@pytest.fixture
def policy(
    tmp_path: Path, agent: FakeAgent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.setenv("GOSSIPMESH_SOCKET", str(tmp_path / "agent.sock"))
    monkeypatch.setattr("gossipmesh.cli.push_flow.SETTLE_S", 0.0)

    def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["policy", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def drafted(tmp_path: Path, keys: Path, policy: Command) -> Path:
    """A set that one of the two needed has signed."""
    path = tmp_path / "mesh.set"
    code, out, err = policy("push", "-f", CANARY, "--signer", keys / "ann.key", "--out", path)
    assert code == 0, err
    assert "nothing was published" in out
    return path


def test_two_signers_who_sit_apart_publish_one_set(
    drafted: Path, keys: Path, agent: FakeAgent, policy: Command
) -> None:
    assert agent.offers_count == 0
    code, out, err = policy("push", "--set", drafted)
    assert code == 1
    assert "1 distinct signers of the scope, 2 needed" in err
    assert "`gossipmesh policy sign` adds a signature" in err
    code, out, err = policy("sign", drafted, "--signer", keys / "ben.key")
    assert code == 0, err
    assert "+ HTTPRoute/shop/cart" in out
    assert "signed by ann, ben, 2 needed: `gossipmesh policy push --set` publishes it" in out
    code, out, err = policy("push", "--set", drafted, "--wait")
    assert code == 0, err
    assert "all 2 members run it" in out
    assert agent.runs[0] == 1


def test_who_signs_twice_counts_once_and_who_only_looks_signs_nothing(
    drafted: Path, keys: Path, policy: Command
) -> None:
    before = drafted.read_bytes()
    assert "signed by ann, 2 needed: 1 more to sign it" in policy("sign", drafted)[1]
    assert drafted.read_bytes() == before
    assert "signed by ann, 2 needed" in policy("sign", drafted, "--signer", keys / "ann.key")[1]
    _, out, _ = policy("sign", drafted, "--documents", "-o", "json")
    shown = json.loads(out)
    assert (shown["signed_by"], shown["needed"], shown["version"]) == (["ann"], 2, 1)
    assert set(shown["documents"]) == {change["name"] for change in shown["changes"]}


def test_a_signer_of_another_scope_signs_nothing(drafted: Path, keys: Path, policy: Command) -> None:
    before = drafted.read_bytes()
    code, _, err = policy("sign", drafted, "--signer", keys / "edge.key")
    assert code == 1
    assert "names no signer of 'mesh' with that key: nothing was signed" in err
    assert drafted.read_bytes() == before


def test_a_set_on_another_base_is_neither_signed_nor_published(
    drafted: Path, keys: Path, agent: FakeAgent, policy: Command
) -> None:
    both = ("--signer", keys / "ben.key", "--signer", keys / "cat.key")
    assert policy("push", "-f", CANARY, "--prune", *both)[0] == 0
    for words in (("sign", drafted, "--signer", keys / "ben.key"), ("push", "--set", drafted)):
        code, _, err = policy(*words)
        assert code == 1
        assert "was made on version 0 (-), and the next one is made on 1" in err
    assert agent.offers_count == 1


def test_what_is_no_set_is_a_sentence(tmp_path: Path, drafted: Path, keys: Path, policy: Command) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(b"noise")
    code, _, err = policy("sign", noise)
    assert code == 1
    assert "is no policy set" in err
    code, _, err = policy("sign", tmp_path / "nothing")
    assert code == 1
    assert "cannot read" in err
    other = drafted.read_bytes().replace(b"cart", b"bank", 1)
    noise.write_bytes(other)
    assert policy("sign", noise, "--signer", keys / "ben.key")[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("push",),
        ("push", "-f", CANARY, "--set", "x"),
        ("push", "--set", "x", "--rebase"),
        ("push", "--set", "x", "--out", "y"),
        ("push", "--set", "x", "--signer", "z"),
        ("push", "--set", "x", "--dry-run"),
    ],
)
def test_a_set_is_published_as_it_is(words: tuple[str, ...], policy: Command) -> None:
    assert policy(*words)[0] == 2
