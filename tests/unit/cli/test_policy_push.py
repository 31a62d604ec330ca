"""`policy push` and its siblings, over a real Unix socket, against a mesh the test makes up."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.cli import policy as policy_command
from gossipmesh.cli.admin_client import AdminClient
from gossipmesh.cli.main import run
from gossipmesh.cli.push_flow import Push, PushSettings, verdict
from gossipmesh.cli.push_plan import WAIT_ALIVE
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.policy import Metadata, Subset, SubsetSpec
from gossipmesh.trust.manifest import (
    EMPTY_BASE,
    BaseSet,
    build_manifest,
    encode_documents,
    sign_set,
    upsert,
)
from tests.unit.cli.fake_agent import OTHER_KEY, POLICY_KEY, TRUST_DOMAIN, FakeAgent, write_signer

CANARY = str(Path(__file__).parents[3] / "configs/policies/shop-cart-canary.yaml")
SUBSET = """\
apiVersion: gossipmesh.dev/v1
kind: Subset
metadata: {name: NAME, namespace: shop}
spec: {service: cart, labels: {version: v9}}
"""

Gossipmesh = Callable[..., tuple[int, str, str]]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    agent = FakeAgent({"node-2": ("alive", True), "node-3": ("alive", True)})
    with agent.serving(tmp_path / "agent.sock"):
        yield agent


@pytest.fixture
def gossipmesh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Gossipmesh:
    """Run a `policy` command; returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("GOSSIPMESH_SOCKET", str(tmp_path / "agent.sock"))
    monkeypatch.setattr("gossipmesh.cli.push_flow.SETTLE_S", 0.0)
    signer = write_signer(tmp_path / "policy.key")

    def command(*arguments: str, signed: bool = False) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["policy", *arguments, *(["--signer", str(signer)] if signed else [])])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_push_reaches_every_member_and_a_second_one_changes_nothing(
    agent: FakeAgent, gossipmesh: Gossipmesh
) -> None:
    code, out, err = gossipmesh("push", "-f", CANARY, "--wait", signed=True)
    assert (code, agent.runs[0]) == (0, 1), err
    assert f"published mesh version 1 ({agent.runs[1][:8]}): 3 added\n" in out
    assert "all 3 members run it" in out
    code, out, _ = gossipmesh("push", "-f", CANARY, "--wait", signed=True)
    assert (code, out, agent.offers_count) == (0, "nothing to change: mesh is as the files say\n", 1)


def test_a_dry_run_says_what_would_change_and_sends_nothing(
    agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path
) -> None:
    agent.services = {"shop/cart": [{"labels": {"version": "v1"}}]}
    code, out, err = gossipmesh("push", "-f", CANARY, "--dry-run")
    assert (code, agent.offers_count) == (3, 0)
    assert out.splitlines() == [
        "+ HTTPRoute/shop/cart would be added",
        "+ Subset/shop/cart-v1 would be added",
        "+ Subset/shop/cart-v2 would be added",
    ]
    assert "no registration of shop/cart carries version=v2 now [GM2001]" in err
    assert "v1 now" not in err
    gossipmesh("push", "-f", CANARY, signed=True)
    assert gossipmesh("push", "-f", CANARY, "--dry-run")[:2] == (0, "nothing would change\n")
    extra = write(tmp_path / "extra.yaml", SUBSET.replace("NAME", "cart-v9"))
    code, out, _ = gossipmesh("push", "-f", CANARY, "-f", extra, "--dry-run", "-o", "json")
    assert (code, json.loads(out)["changes"]) == (3, [{"name": "Subset/shop/cart-v9", "action": "added"}])


def test_upsert_keeps_prune_removes_delete_deletes(
    agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path
) -> None:
    gossipmesh("push", "-f", CANARY, signed=True)
    extra = write(tmp_path / "extra.yaml", SUBSET.replace("NAME", "cart-v9"))
    assert gossipmesh("push", "-f", extra, signed=True)[0] == 0
    assert len(agent.documents.in_force("mesh").documents) == 4  # type: ignore[union-attr]
    code, _, err = gossipmesh("push", "-f", extra, "--prune", signed=True)
    assert (code, agent.runs[0]) == (0, 3), err
    assert gossipmesh("delete", "subset", "shop/cart-v9", signed=True)[0] == 0
    assert agent.documents.in_force("mesh").documents == ()  # type: ignore[union-attr]
    code, _, err = gossipmesh("delete", "subset", "shop/cart-v9", signed=True)
    assert code == 1
    assert "Subset/shop/cart-v9 is not in the scope 'mesh'" in err


def test_what_others_refer_to_is_not_deleted(agent: FakeAgent, gossipmesh: Gossipmesh) -> None:
    gossipmesh("push", "-f", CANARY, signed=True)
    code, _, err = gossipmesh("delete", "Subset", "shop/cart-v2", signed=True)
    assert (code, agent.runs[0]) == (1, 1)
    assert "HTTPRoute/shop/cart in force still refers to Subset/shop/cart-v2 [GM1032]" in err


@pytest.mark.parametrize(
    ("status", "wait"),
    [
        ("alive", "--wait"),
        ("suspect", "--wait"),
        *((s, "--wait=all") for s in ("alive", "dead", "unattended")),
    ],
)
def test_wait_names_who_has_not_confirmed(
    agent: FakeAgent, gossipmesh: Gossipmesh, status: str, wait: str
) -> None:
    agent.others["node-3"] = (status, False)
    code, out, err = gossipmesh("push", "-f", CANARY, wait, "--timeout", "1ms", signed=True)
    assert code == 1
    assert "published mesh version 1" in out
    assert f"not confirmed by node-3 ({status}, runs no policy)" in err


@pytest.mark.parametrize("status", ["dead", "unattended"])
def test_wait_waits_for_nobody_who_cannot_answer_and_names_it(
    agent: FakeAgent, gossipmesh: Gossipmesh, status: str
) -> None:
    """One machine that crashed must not fail every push until its credential ends."""
    agent.others["node-3"] = (status, False)
    code, out, err = gossipmesh("push", "-f", CANARY, "--wait", signed=True)
    assert code == 0
    assert "all 2 members that are alive run it" in out
    assert f"warning: not waited for: node-3 ({status}, runs no policy); who comes back takes the set" in err
    code, out, _ = gossipmesh("delete", "--wait", "HTTPRoute", "shop/cart", "-o", "json", signed=True)
    told = json.loads(out)
    assert (code, told["outcome"], told["waited"], told["missing"]) == (0, "reached", True, [])
    assert told["absent"] == [{"member": "node-3", "reason": f"{status}, runs no policy"}]


@pytest.mark.parametrize(("becomes", "said"), [("dead", "dead, runs no policy"), ("left", "left meanwhile")])
def test_who_goes_while_it_is_waited_for_is_waited_for_no_more(
    agent: FakeAgent, gossipmesh: Gossipmesh, monkeypatch: pytest.MonkeyPatch, becomes: str, said: str
) -> None:
    agent.others["node-3"] = ("alive", False)
    waits: list[float] = []

    def meanwhile(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            agent.others["node-3"] = (becomes, False)

    monkeypatch.setattr(policy_command, "pause", meanwhile)
    code, _, err = gossipmesh("push", "-f", CANARY, "--wait", "--timeout", "1h", signed=True)
    assert (code, len(waits)) == (0, 3), "alive, it was waited for"
    assert f"not waited for: node-3 ({said})" in err


def test_who_is_not_reached_by_this_node_alone_is_not_waited_for(
    agent: FakeAgent, gossipmesh: Gossipmesh
) -> None:
    agent.others["node-3"] = ("alive", False)
    agent.unreachable = {"node-3"}
    code, _, err = gossipmesh("push", "-f", CANARY, "--wait", signed=True)
    assert code == 0
    assert "not waited for: node-3 (alive, unreachable from this node, runs no policy)" in err


def test_a_node_that_hears_half_of_the_mesh_waits_for_the_other_half(
    agent: FakeAgent, gossipmesh: Gossipmesh
) -> None:
    """Cut off, it would otherwise call a push done that nobody has heard of."""
    agent.others = {"node-2": ("alive", True), "node-3": ("alive", False), "node-4": ("alive", False)}
    agent.unreachable = {"node-3", "node-4"}
    code, _, err = gossipmesh("push", "-f", CANARY, "--wait", "--timeout", "1ms", signed=True)
    assert code == 1
    assert "not confirmed by node-3 (alive, unreachable from this node, runs no policy), node-4" in err


@pytest.mark.parametrize("words", [["--wait=dead"], ["--wait", "all"]])
def test_a_wait_for_nobody_known_is_wrong_usage(
    agent: FakeAgent, gossipmesh: Gossipmesh, words: list[str]
) -> None:
    assert gossipmesh("push", "-f", CANARY, *words, signed=True)[0] == 2
    assert agent.offers_count == 0


def test_a_member_that_left_is_not_waited_for(agent: FakeAgent, gossipmesh: Gossipmesh) -> None:
    agent.others["node-3"] = ("left", False)
    assert gossipmesh("push", "-f", CANARY, "--wait", signed=True)[0] == 0


def test_wait_says_who_refused_and_why(agent: FakeAgent, gossipmesh: Gossipmesh) -> None:
    agent.others["node-3"] = ("alive", False)
    agent.refusals["node-3"] = "features: it requires http-route"
    code, out, err = gossipmesh("push", "-f", CANARY, "--wait", "-o", "json", signed=True)
    assert code == 1
    assert "node-3 refused it: features: it requires http-route" in err
    result = json.loads(out)
    assert result["outcome"] == "refused"
    assert result["reached"] == ["node-1", "node-2"]
    _, out, _ = gossipmesh("status", "-o", "json")
    row = next(row for row in json.loads(out) if row["member"] == "node-3")
    assert (row["state"], row["refused_reason"]) == ("refused", "features: it requires http-route")


@pytest.mark.parametrize("wait", [["--wait"], []])
def test_the_loser_of_a_race_hears_of_the_winner(
    agent: FakeAgent, gossipmesh: Gossipmesh, wait: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node-3 comes back from the other side of a partition with a greater hash of the same version."""
    members = agent.members

    def after_the_heal() -> list[dict[str, Any]]:
        if agent.runs[0]:
            agent.claims["node-3"] = (1, "ff" * 32)
        return members()

    monkeypatch.setattr(agent, "members", after_the_heal)
    code, _, err = gossipmesh("push", "-f", CANARY, *wait, signed=True)
    assert code == 1
    assert "is superseded by version 1 (ffffffff): see `gossipmesh policy list`" in err


def test_a_push_built_on_ours_is_followed_and_not_called_a_loss(
    agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path
) -> None:
    """A second operator adds to our set before the last member has confirmed it."""
    agent.others["node-3"] = ("alive", False)
    extra = write(tmp_path / "extra.yaml", SUBSET.replace("NAME", "cart-v9"))
    signer = str(tmp_path / "policy.key")

    def pause(seconds: float) -> None:
        if agent.runs[0] == 1:
            run(["policy", "push", "-f", extra, "--signer", signer])
            agent.others["node-3"] = ("alive", True)

    settings = PushSettings("mesh", wait=WAIT_ALIVE, timeout_s=10, rebase=False)
    flow = Push(AdminClient(), settings, clock=lambda: 0.0, pause=pause, tell=lambda _: None)
    published = flow.publish(lambda _: _one_subset(), POLICY_KEY, created=0)
    assert published is not None
    assert published.target[0] == 1
    assert published.heir == agent.runs
    assert verdict(published, settings) is None


def test_rebase_builds_on_the_winner_until_it_holds(
    agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path
) -> None:
    """A rival's greater hash of the same version arrives right after ours."""
    rival = sign_set(
        build_manifest(EMPTY_BASE, _one_subset(), trust_domain=TRUST_DOMAIN, scope="mesh", created=1),
        _one_subset(),
        [POLICY_KEY],
    )
    bodies = encode_documents(
        [Subset("gossipmesh.dev/v1", Metadata("b", "shop"), SubsetSpec("b", {"v": "1"}))]
    )
    settings = PushSettings("mesh", wait=WAIT_ALIVE, timeout_s=10, rebase=True)

    def pause(_: float) -> None:
        if agent.runs[0] == 1 and agent.runs[1] != rival.manifest_hash.hex():
            agent.documents.adopt(agent.documents.check_untrusted(rival.policy_set))
        else:
            agent.others["node-3"] = ("alive", True)

    agent.others["node-3"] = ("suspect", False)
    created = next(
        second
        for second in range(2, 100)
        if _hash_of(bodies, second) < rival.manifest_hash  # so that the rival wins
    )
    told: list[str] = []
    now = iter(range(10_000))
    flow = Push(AdminClient(), settings, clock=lambda: next(now) / 100, pause=pause, tell=told.append)
    published = flow.publish(lambda base: upsert(base, bodies, prune=False), POLICY_KEY, created=created)
    assert "another push won over version 1: building on it" in told
    assert published is not None
    assert published.target == agent.runs
    names = [entry.name for entry in published.signed.manifest.entries]
    assert names == ["Subset/shop/a", "Subset/shop/b"]


def _hash_of(bodies: dict[str, bytes], created: int) -> bytes:
    manifest = build_manifest(EMPTY_BASE, bodies, trust_domain=TRUST_DOMAIN, scope="mesh", created=created)
    return sign_set(manifest, bodies, [POLICY_KEY]).manifest_hash


def test_a_stale_base_is_refused_and_rebase_waits_for_the_agent_to_catch_up(
    agent: FakeAgent, gossipmesh: Gossipmesh
) -> None:
    agent.claims["node-2"] = (4, "aa" * 32)
    code, _, err = gossipmesh("push", "-f", CANARY, signed=True)
    assert (code, agent.offers_count) == (1, 0)
    assert "the base is stale: node-2 already runs version 4 (aaaaaaaa)" in err

    now, edits = [0.0], []

    def pause(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 0.3:
            agent.claims.clear()

    def edit(base: BaseSet) -> dict[str, bytes]:
        edits.append(base.version)
        return {}

    settings = PushSettings("mesh", wait=WAIT_ALIVE, timeout_s=5, rebase=True)
    flow = Push(AdminClient(), settings, clock=lambda: now[0], pause=pause, tell=lambda _: None)
    assert flow.publish(edit, POLICY_KEY, created=0) is None
    assert edits == [0]
    agent.claims["node-2"] = (4, "aa" * 32)
    now[0] = -10.0
    with pytest.raises(OperatorError, match="stayed stale for 5 s"):
        flow.publish(edit, POLICY_KEY, created=0)


def test_wait_follows_the_members_until_the_last_one_confirms(
    agent: FakeAgent, gossipmesh: Gossipmesh
) -> None:
    agent.others["node-3"] = ("suspect", False)
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 3:
            agent.others["node-3"] = ("alive", True)

    settings = PushSettings("mesh", wait=WAIT_ALIVE, timeout_s=10, rebase=False)
    flow = Push(AdminClient(), settings, clock=lambda: now[0], pause=pause, tell=lambda _: None)
    published = flow.publish(lambda _: _one_subset(), POLICY_KEY, created=0)
    assert published is not None
    assert verdict(published, settings) is None
    assert 3 < published.seconds < 4


def _one_subset() -> dict[str, bytes]:
    spec = SubsetSpec("cart", {"version": "v1"})
    return encode_documents([Subset("gossipmesh.dev/v1", Metadata("a", "shop"), spec)])


def test_a_base_of_another_signer_needs_its_public_key(
    agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path
) -> None:
    other = str(write_signer(tmp_path / "other.key", OTHER_KEY))
    assert gossipmesh("push", "-f", CANARY, "--signer", other)[0] == 0
    extra = write(tmp_path / "extra.yaml", SUBSET.replace("NAME", "cart-v9"))
    code, _, err = gossipmesh("push", "-f", extra, signed=True)
    assert code == 1
    assert "cannot build on what this agent runs" in err
    assert "--accept-signer" in err
    accept = OTHER_KEY.public.hex()
    assert gossipmesh("push", "-f", extra, "--accept-signer", accept, signed=True)[0] == 0
    assert agent.runs[0] == 2


def test_a_signer_key_that_others_can_read_is_refused(
    agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path
) -> None:
    (tmp_path / "policy.key").chmod(0o644)
    code, _, err = gossipmesh("push", "-f", CANARY, signed=True)
    assert (code, agent.offers_count) == (1, 0)
    assert "chmod 600" in err
    assert err.count("\n") == 1


def test_usage_and_missing_things_are_one_sentence(gossipmesh: Gossipmesh, tmp_path: Path) -> None:
    code, _, err = gossipmesh("push", "-f", "nowhere.yaml", signed=True)
    assert (code, err.count("\n")) == (1, 1)
    assert "no policy file at nowhere.yaml" in err
    code, _, err = gossipmesh("push", "-f", CANARY, signed=True)
    assert (code, err.count("\n")) == (1, 1)
    assert f"no agent at {tmp_path}/agent.sock: there is no such socket" in err
    assert gossipmesh("push", "-f", CANARY)[0] == 2
    assert gossipmesh("get", "Route", "shop/cart")[0] == 2
    assert gossipmesh("push", "-f", CANARY, "--timeout", "soon", signed=True)[0] == 2
    broken = write(tmp_path / "broken.key", "no key")
    Path(broken).chmod(0o600)
    code, _, err = gossipmesh("push", "-f", CANARY, "--signer", broken)
    assert (code, "is no signer's key" in err) == (1, True)


def test_get_prints_what_push_takes_back(agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path) -> None:
    gossipmesh("push", "-f", CANARY, signed=True)
    code, out, _ = gossipmesh("get", "httproute", "shop/cart")
    assert code == 0
    assert out.startswith("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n")
    again = write(tmp_path / "again.yaml", out)
    assert gossipmesh("push", "-f", again, "--dry-run")[:2] == (0, "nothing would change\n")
    code, _, err = gossipmesh("get", "HTTPRoute", "shop/nothing")
    assert (code, "there are HTTPRoute/shop/cart" in err) == (1, True)


def test_five_mistakes_are_five_lines_and_nothing_is_sent(
    agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path
) -> None:
    text = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: Cart, namespace: shop}
spec:
  parentRef: []
  parentRefs: [{name: cart}]
  rules:
    - backendRefs:
        - {group: gossipmesh.dev, kind: Subset, name: cart-v3, weight: ninety}
      timeouts: {request: 10 seconds}
"""
    file = write(tmp_path / "five.yaml", text)
    code, out, err = gossipmesh("push", "-f", file, signed=True)
    assert (code, out, agent.offers_count) == (1, "", 0)
    places = [line.removeprefix(file).split(": ")[:2] for line in err.splitlines()[:-1]]
    assert places == [
        [":3:18", "$.metadata.name"],
        [":5:3", "$.spec.parentRef"],
        [":9:55", "$.spec.rules[0].backendRefs[0].name"],
        [":9:72", "$.spec.rules[0].backendRefs[0].weight"],
        [":10:27", "$.spec.rules[0].timeouts.request"],
    ]
    assert err.splitlines()[-1].startswith("gossipmesh: 5 problems in ")


def test_status_rows_compare_with_the_newest() -> None:
    agent = FakeAgent({"node-2": ("dead", False), "node-3": ("left", False), "node-4": ("alive", False)})
    agent.claims = {"node-2": (3, "bb"), "node-4": (4, "cc")}
    rows = policy_command.status_rows(agent.members())
    assert [(row["member"], row["version"], row["state"]) for row in rows] == [
        ("node-1", 0, "none"),
        ("node-2", 3, "behind"),
        ("node-4", 4, "current"),
    ]


INTERRUPTED = {
    "before anything": ("/v1/status", "interrupted: nothing was sent, so nothing is published"),
    "reading the base": ("/v1/policy/set", "interrupted: nothing was sent, so nothing is published"),
    "while it is sent": (
        "/v1/policy/offer",
        "was being handed to the agent; `gossipmesh policy status` says what is",
    ),
}


@pytest.mark.parametrize("when", INTERRUPTED)
def test_an_interrupted_push_says_what_is_published(
    agent: FakeAgent, gossipmesh: Gossipmesh, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    place, sentence = INTERRUPTED[when]
    request = AdminClient._request

    def interrupted(self: AdminClient, method: str, target: str, body: bytes | None = None) -> bytes:
        if target.startswith(place):
            raise KeyboardInterrupt
        return request(self, method, target, body)

    monkeypatch.setattr(AdminClient, "_request", interrupted)
    code, _, told = gossipmesh("push", "-f", CANARY, "--wait", signed=True)
    assert code == 130
    assert sentence in told
    assert "Traceback" not in told


@pytest.mark.parametrize("words", [["--wait"], []])
def test_an_interrupted_wait_names_what_is_published(
    agent: FakeAgent, gossipmesh: Gossipmesh, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    agent.others["node-9"] = ("alive", False)
    monkeypatch.setattr("gossipmesh.cli.push_flow.SETTLE_S", 60.0)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(policy_command, "pause", interrupt)
    code, _, told = gossipmesh("push", "-f", CANARY, *words, signed=True)
    version, manifest_hash = agent.runs
    assert code == 130
    assert f"interrupted: version {version} ({manifest_hash[:8]}) is published and spreads by itself" in told


def test_an_interrupted_dry_run_is_quiet(
    agent: FakeAgent, gossipmesh: Gossipmesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Push, "prepare", interrupt)
    code, _, told = gossipmesh("push", "-f", CANARY, "--dry-run")
    assert (code, "interrupted" in told) == (130, False)


NARROW = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: narrow, namespace: shop}
spec:
  parentRefs: [{name: cart}]
  rules: [{matches: [{path: {value: /items}}], backendRefs: [{name: cart}]}]
"""
WIDE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: wide, namespace: shop}
spec:
  parentRefs: [{name: cart}]
  rules: [{backendRefs: [{name: cart}]}]
"""
DENY = """\
apiVersion: gossipmesh.dev/v1
kind: AccessPolicy
metadata: {name: deny, namespace: shop}
spec: {targetRef: {name: cart}, action: Deny, rules: [{to: [{methods: [DELTE]}]}]}
"""


def test_a_push_that_leaves_requests_to_nobody_warns_and_goes(
    agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path
) -> None:
    narrow, wide = write(tmp_path / "narrow.yaml", NARROW), write(tmp_path / "wide.yaml", WIDE)
    for words in (["--dry-run"], []):
        code, _, told = gossipmesh("push", "-f", narrow, *words, signed=True)
        assert code == (3 if words else 0)
        assert "requests to shop/cart that no rule takes are answered with 404: all but /items/*" in told
        assert told.count("[GM2003]") == 1
    code, _, told = gossipmesh("push", "-f", wide, signed=True)
    assert (code, "GM2003" in told) == (0, False)
    code, _, told = gossipmesh("delete", "HTTPRoute", "shop/wide", signed=True)
    assert (code, "[GM2003]" in told) == (0, True)
    code, _, told = gossipmesh("delete", "HTTPRoute", "shop/narrow", signed=True)
    assert (code, "GM2003" in told) == (0, False)
    gossipmesh("push", "-f", wide, "-f", narrow, signed=True)
    code, _, told = gossipmesh("push", "-f", narrow, "--prune", signed=True)
    assert (code, "[GM2003]" in told) == (0, True)


def test_what_can_never_match_is_neither_signed_nor_sent(
    agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path
) -> None:
    deny = write(tmp_path / "deny.yaml", DENY)
    code, _, told = gossipmesh("push", "-f", deny, signed=True)
    assert code == 1
    assert "did you mean DELETE?" in told
    assert "[GM1021]" in told
    assert agent.offers_count == 0
    code, _, told = gossipmesh("push", "-f", deny, "--allow-method", "DELTE", signed=True)
    assert (code, agent.offers_count) == (0, 1)
    foreign = "{from: [{identities: ['spiffe://other.test/ns/shop/svc/web']}]}"
    write(tmp_path / "deny.yaml", DENY.replace("{to: [{methods: [DELTE]}]}", foreign))
    code, _, told = gossipmesh("push", "-f", deny, signed=True)
    assert (code, agent.offers_count) == (1, 1)
    assert f"this mesh is {TRUST_DOMAIN}" in told


def test_a_set_in_force_that_can_never_match_stays_and_is_built_on(
    agent: FakeAgent, gossipmesh: Gossipmesh, tmp_path: Path
) -> None:
    """An older build signed it; nodes take it, and so does whoever changes something else."""
    deny, wide = write(tmp_path / "deny.yaml", DENY), write(tmp_path / "wide.yaml", WIDE)
    gossipmesh("push", "-f", deny, "--allow-method", "DELTE", signed=True)
    code, _, _ = gossipmesh("push", "-f", wide, signed=True)
    assert (code, agent.runs[0]) == (0, 2)


def test_a_real_interrupt_while_waiting_is_one_sentence(agent: FakeAgent, tmp_path: Path) -> None:
    """Ctrl-C as a shell sends it, to a process that waits for a member that never confirms."""
    agent.others["node-9"] = ("alive", False)
    signer = write_signer(tmp_path / "policy.key")
    words = [sys.executable, "-P", "-m", "gossipmesh.cli.main", "policy", "push", "-f", CANARY, "--wait"]
    words += ["--timeout", "60s", "--signer", str(signer), "--socket", str(tmp_path / "agent.sock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as push:
        assert push.stderr is not None
        progress = push.stderr.readline()  # it is told once somebody runs the set
        push.send_signal(signal.SIGINT)
        _, told = push.communicate(timeout=30)
    assert "3 of 4 members run it" in progress
    version, manifest_hash = agent.runs
    assert push.returncode == 130
    assert told.strip() == (
        f"gossipmesh: interrupted: version {version} ({manifest_hash[:8]}) is published and "
        "spreads by itself; "
        "`gossipmesh policy status` says who runs it"
    )
