"""Readers: what the admin API says, as tables and as data."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gossipmesh.cli import main as root
from gossipmesh.cli.readers import duration_text
from tests.unit.cli.fake_agent import FakeAgent

ORDER = [1, 1_795_000_000, 4]
KEYS: dict[str, Any] = {
    "turns": 3,
    "next_turn_s": 7_500.0,
    "heard": True,
    "settled": True,
    "shown": {"spiffe://mesh.test/node/node1": "0123456789abcdef" * 2},
}

ANSWERS: dict[tuple[str, str], Any] = {
    ("GET", "/v1/members"): [
        {
            "name": "node1",
            "status": "alive",
            "order": ORDER,
            "phase": "serving",
            "since_s": 75,
            "gossip_address": "127.71.0.1:7948",
            "mesh_address": "127.71.0.1:15008",
            "build": "0.1.0",
            "self": True,
            "spiffe_id": "spiffe://mesh.test/node/node1",
            "node_id": "aa",
            "policies": [{"scope": "mesh", "version": 2, "hash": "ff", "refused_version": None}],
        },
        {
            "name": "node2",
            "status": "unattended",
            "order": ORDER,
            "phase": "serving",
            "since_s": 3,
            "gossip_address": "127.71.0.2:7948",
            "mesh_address": "127.71.0.2:15008",
            "build": "0.1.0",
            "self": False,
            "spiffe_id": "spiffe://mesh.test/node/node2",
            "node_id": "bb",
            "policies": [
                {
                    "scope": "mesh",
                    "version": 1,
                    "hash": "ee",
                    "refused_version": 2,
                    "refused_hash": "ff",
                    "refused_reason": "unsupported",
                }
            ],
        },
    ],
    ("GET", "/v1/services"): [
        {
            "service": "shop/cart",
            "protocol": "http",
            "endpoints": 4,
            "passing": 3,
            "nodes": ["node1", "node2"],
        }
    ],
    ("GET", "/v1/endpoints"): [
        {
            "service": "shop/cart",
            "registration": "cart",
            "node": "node1",
            "weight": 100,
            "address": "127.71.0.1:15008",
            "health": "passing",
            "draining": True,
            "labels": {"version": "v1"},
            "member_status": "alive",
        }
    ],
    ("GET", "/v1/check"): [
        {"name": "clock", "mark": "ok", "ok": True, "detail": "in step", "evidence": {"skew_s": 0}},
    ],
    ("GET", "/v1/identity"): [
        {"spiffe_id": "spiffe://mesh.test/node/node1", "not_before": 0, "not_after": 86_400},
        {"spiffe_id": "spiffe://mesh.test/ns/shop/svc/cart", "not_before": 0, "not_after": 4_000_000_000},
    ],
    ("GET", "/v1/proxy/snapshot"): {
        "version": "ab12",
        "sections": {"routes/cart.shop": {"rules": [1, 2]}, "limits": {"retries": 3}},
    },
    ("POST", "/v1/leave"): {"left": True},
    ("POST", "/v1/restart"): {"restarting": True},
    ("POST", "/v1/release"): {"released": 2},
    ("POST", "/v1/release/alarms"): {"released": 3},
    ("GET", "/v1/keys"): {**KEYS, "waits_for": ""},
    ("POST", "/v1/keys/turn"): {**KEYS, "waits_for": "the engine has not confirmed"},
}


class ReadAgent(FakeAgent):
    """Answers each reader from the table above."""

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path == "/v1/endpoints" and query != {"service": "shop/cart"}:
            return 200, []
        if (method, path) not in ANSWERS:
            return 404, {"error": f"no {path}", "code": "unknown"}
        return 200, ANSWERS[method, path]


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A socket with an agent behind it; its folder is short, for a socket's path may have 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="gm-"))
    with ReadAgent({}).serving(folder / "agent.sock"):
        yield str(folder / "agent.sock")
    shutil.rmtree(folder)


def read(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = root.run(list(words))
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, captured.out


READERS = {
    ("GET", "/v1/members"): ["members"],
    ("GET", "/v1/services"): ["services"],
    ("GET", "/v1/endpoints"): ["endpoints", "shop/cart"],
    ("GET", "/v1/check"): ["check"],
    ("GET", "/v1/identity"): ["identity", "show"],
    ("GET", "/v1/proxy/snapshot"): ["proxy", "snapshot"],
    ("POST", "/v1/leave"): ["leave"],
    ("POST", "/v1/restart"): ["restart"],
    ("POST", "/v1/release"): ["release"],
    ("POST", "/v1/release/alarms"): ["release", "--alarms"],
    ("GET", "/v1/keys"): ["keys", "show"],
    ("POST", "/v1/keys/turn"): ["keys", "turn"],
}


@pytest.mark.parametrize("request_", list(READERS), ids=lambda pair: pair[1])
def test_json_and_yaml_carry_exactly_what_the_agent_said(
    socket_path: str, capsys: pytest.CaptureFixture[str], request_: tuple[str, str]
) -> None:
    words = [*READERS[request_], "--socket", socket_path]
    assert json.loads(read(capsys, *words, "-o", "json")[1]) == ANSWERS[request_]
    assert yaml.load(read(capsys, *words, "-o", "yaml")[1], yaml.CSafeLoader) == ANSWERS[request_]  # noqa: TID251


def test_alarms_are_released_apart_from_the_rest(
    socket_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(capsys, "release", "--alarms", "--socket", socket_path) == (
        0,
        "Forgotten: 3 policy alarms.\n",
    )
    assert root.run(["release", "--alarms", "--open", "--socket", socket_path]) == 2
    assert "two commands" in capsys.readouterr().err


def test_keys_say_when_they_turn_and_what_a_turn_waits_for(
    socket_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, shown = read(capsys, "keys", "show", "--socket", socket_path)
    assert shown.splitlines() == [
        "The next turn is due in 2h5m; 3 so far.",
        "  spiffe://mesh.test/node/node1  0123456789abcdef",
    ]
    _, turned = read(capsys, "keys", "turn", "--stolen", "--socket", socket_path)
    assert "It waits: the engine has not confirmed." in turned.splitlines()


def test_members_show_status_age_incarnation_and_refused_policy(
    socket_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = read(capsys, "members", "--socket", socket_path)
    own, other = text.splitlines()[1:]
    assert code == 0
    assert own.split()[:4] == ["node1", "*", "alive", "serving"]
    assert "1m15s" in own
    assert "1.1795000000" in own
    assert "mesh:2" in own
    assert "mesh:1 (refused 2: unsupported)" in other
    assert "spiffe://" not in text
    assert (
        "spiffe://mesh.test/node/node2" in read(capsys, "members", "--socket", socket_path, "-o", "wide")[1]
    )


def test_services_and_endpoints_show_health(socket_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "3/4" in read(capsys, "services", "--socket", socket_path)[1]
    text = read(capsys, "endpoints", "shop/cart", "--socket", socket_path)[1]
    assert "passing (draining)" in text
    assert "version=v1" in text


def test_a_service_nobody_serves_is_said_on_stderr(
    socket_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["endpoints", "shop/nope", "--socket", socket_path]) == 0
    assert capsys.readouterr().err == "No node serves shop/nope.\n"


def test_an_identity_that_has_ended_says_so(socket_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended, good = read(capsys, "identity", "show", "--socket", socket_path)[1].splitlines()[1:]
    assert "EXPIRED" in ended
    assert "1970-01-02T00:00:00Z" in ended
    assert "EXPIRED" not in good


def test_without_an_agent_every_reader_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in READERS.values():
        assert root.run([*words, "--socket", str(tmp_path / "none.sock")]) == 1
        assert "no agent at" in capsys.readouterr().err


def test_ages_read_as_people_say_them() -> None:
    ages = {0: "0s", 59.9: "59s", 60: "1m0s", 3_661: "1h1m", 90_000: "1d1h"}
    assert {seconds: duration_text(seconds) for seconds in ages} == ages
    assert duration_text(None) == "-"


def test_an_interrupted_leave_says_that_the_agent_leaves_anyway(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gossipmesh.cli.admin_client.AdminClient.post_bytes", interrupt)
    assert root.run(["leave"]) == 130
    assert "interrupted: the agent was asked to leave, and does so" in capsys.readouterr().err
