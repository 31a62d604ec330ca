"""When the agent cannot be asked, the sentence says why and what to do."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gossipmesh.cli.admin_client import AdminClient, AgentRefused
from gossipmesh.model.errors import OperatorError
from tests.unit.cli.fake_agent import FakeAgent


def leave_nothing(path: Path) -> socket.socket | None:
    return None


def leave_a_socket_nobody_listens_on(path: Path) -> socket.socket | None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return None


def listen_and_say_nothing(path: Path) -> socket.socket | None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (leave_nothing, "there is no such socket; start one with"),
        (leave_a_socket_nobody_listens_on, "it is not running any more; start it"),
        (listen_and_say_nothing, "did not answer GET /v1/members within 0.05 s"),
    ],
)
def test_an_agent_that_cannot_be_reached(
    tmp_path: Path, prepare: Callable[[Path], socket.socket | None], sentence: str
) -> None:
    path = tmp_path / "agent.sock"
    listener = prepare(path)
    try:
        with pytest.raises(OperatorError) as caught:
            AdminClient(path, timeout_s=0.05).get_json("/v1/members")
    finally:
        if listener is not None:
            listener.close()
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_permission_and_a_path_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OperatorError, match="path too long"):
        AdminClient(tmp_path / ("x" * 120)).get_json("/v1/members")

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("gossipmesh.cli.admin_client._UnixConnection.connect", refuse)
    with pytest.raises(OperatorError, match="run this as root or as the agent's user"):
        AdminClient(tmp_path / "agent.sock").get_json("/v1/members")


def test_an_agents_error_keeps_its_code_and_nothing_there_is_none(tmp_path: Path) -> None:
    with FakeAgent({}).serving(tmp_path / "agent.sock"):
        client = AdminClient(tmp_path / "agent.sock")
        with pytest.raises(AgentRefused, match="no /v1/nowhere") as caught:
            client.get_json("/v1/nowhere")
        assert (caught.value.status, caught.value.code) == (404, "unknown")
        assert client.get_bytes("/v1/policy/set", scope="mesh") is None


def test_the_socket_is_the_option_then_the_variable_then_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOSSIPMESH_SOCKET", raising=False)
    assert AdminClient().path == Path("/var/lib/gossipmesh/agent.sock")
    monkeypatch.setenv("GOSSIPMESH_SOCKET", "/run/a.sock")
    assert AdminClient().path == Path("/run/a.sock")
    assert AdminClient("/run/b.sock").path == Path("/run/b.sock")
