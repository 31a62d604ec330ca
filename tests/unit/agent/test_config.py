"""The configuration file: defaults, every mistake at once, each with its place."""

import os
from pathlib import Path

import pytest

from gossipmesh.agent.config import (
    AgentConfig,
    EngineChoice,
    EngineKind,
    parse_config_untrusted,
    read_config,
)
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.errors import OperatorError, UsageError
from gossipmesh.model.member import Address
from gossipmesh.wire.yaml_source import YamlErrors

HEAD = "apiVersion: gossipmesh.dev/v1\nkind: AgentConfig\n"
FILE = Path("/etc/gossipmesh/agent.yaml")


def _mistakes(text: str) -> list[str]:
    with pytest.raises(YamlErrors) as caught:
        parse_config_untrusted(text, FILE)
    return [str(problem) for problem in caught.value.problems]


def test_everything_has_a_default() -> None:
    config = parse_config_untrusted(HEAD, FILE)
    assert config.state_dir == Path("/var/lib/gossipmesh")
    assert config.access_log == AccessLogSettings(Path("/var/lib/gossipmesh/log/access.log"))
    assert config.gossip_bind == Address("0.0.0.0", 7948)
    assert config.gossip_advertise is None
    assert config.readiness_bind == Address("127.0.0.1", 15021)


def test_a_bind_that_is_no_wildcard_is_what_others_are_told() -> None:
    text = HEAD + "spec:\n  gossip: {bind: '10.0.0.7:7948'}\n  mesh: {bind: '[fd00::7]:15008'}\n"
    config = parse_config_untrusted(text, FILE)
    assert config.gossip_advertise == Address("10.0.0.7", 7948)
    assert config.mesh_advertise == Address("fd00::7", 15008)


def test_relative_paths_start_at_the_files_folder() -> None:
    text = HEAD + "spec:\n  stateDir: state\n  servicesDir: ../services\n  tokenFile: join.token\n"
    config = parse_config_untrusted(text, FILE)
    assert config.state_dir == Path("/etc/gossipmesh/state")
    assert config.services_dir == Path("/etc/gossipmesh/../services")
    assert config.token_file == Path("/etc/gossipmesh/join.token")
    assert config.access_log.path == Path("/etc/gossipmesh/state/log/access.log")


def test_five_mistakes_are_five_lines() -> None:
    text = HEAD + (
        "spec:\n"
        "  stateDirectory: /x\n"
        "  seeds: [node-1]\n"
        "  gossip: {bind: 7948}\n"
        "  api: {bind: 'localhost:15000'}\n"
        "  logLevel: loud\n"
    )
    mistakes = _mistakes(text)
    assert len(mistakes) == 5
    assert sorted(mistake.split(":")[1] for mistake in mistakes) == ["4", "5", "6", "7", "8"]
    assert any("did you mean `stateDir`" in mistake for mistake in mistakes)
    assert any("$.spec.seeds[0]: 'node-1' is not ADDRESS:PORT" in mistake for mistake in mistakes)


def test_seeds_are_addresses_or_names_and_those_of_the_command_line_come_first(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(HEAD + "spec:\n  seeds: [mesh.example.com:7948, '10.0.0.1:7948']\n")
    config = read_config(path, None, ["other.example.com:7949", "[fd00::1]:7948"])
    assert [str(seed) for seed in config.every_seed()] == [
        "other.example.com:7949",
        "[fd00::1]:7948",
        "mesh.example.com:7948",
        "10.0.0.1:7948",
    ]
    assert [str(seed) for seed in config.seeds] == ["mesh.example.com:7948", "10.0.0.1:7948"]


@pytest.mark.parametrize(
    ("seed", "said"),
    [
        ("10.0.0:7948", "'10.0.0:7948' is not ADDRESS:PORT or NAME:PORT"),
        ("mesh.example.com:0", "port 0 would be another one"),
        ("0.0.0.0:7948", "0.0.0.0 is no address others can connect to"),
    ],
)
def test_a_seed_that_is_none_is_said_wherever_it_was_given(seed: str, said: str, tmp_path: Path) -> None:
    (mistake,) = _mistakes(HEAD + f"spec: {{seeds: ['{seed}']}}\n")
    assert f"$.spec.seeds[0]: {said}" in mistake
    path = tmp_path / "agent.yaml"
    path.write_text(HEAD)
    with pytest.raises(UsageError) as caught:
        read_config(path, None, ["fine:1", seed])
    assert f"--seed: {said}" in str(caught.value)


def test_seeds_that_are_no_list_are_one_mistake() -> None:
    (mistake,) = _mistakes(HEAD + "spec: {seeds: '10.0.0.1:7948'}\n")
    assert "$.spec.seeds: a list expected" in mistake


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("  gossip: {bind: '127.0.0.1:0'}\n", "port 0 would be another one"),
        ("  mesh: {bind: '127.0.0.1:7948', advertise: '0.0.0.0:7948'}\n", "no address others can connect to"),
        ("  api: {bind: '127.0.0.1:15020'}\n", "127.0.0.1:15020 is spec.api.bind already"),
        ("  proxy: {bind: '127.0.0.1:70000'}\n", "is not ADDRESS:PORT"),
    ],
)
def test_addresses_that_cannot_work(spec: str, said: str) -> None:
    assert any(said in mistake for mistake in _mistakes(HEAD + "spec:\n" + spec))


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"cannot read the configuration .*: No such file") as caught:
        read_config(tmp_path / "agent.yaml")
    assert "\n" not in str(caught.value)


def test_the_token_file_given_by_hand_wins(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(HEAD + "spec: {tokenFile: a.token}\n")
    assert read_config(file).token_file == tmp_path / "a.token"
    assert read_config(file, tmp_path / "b.token").token_file == tmp_path / "b.token"


def _parsed(key: str) -> AgentConfig:
    return parse_config_untrusted(f"{HEAD}spec:\n  {key}\n", FILE)


def test_an_access_log_may_be_a_path_alone_or_have_bounds_of_its_own() -> None:
    """The first is how it was written before there were bounds."""
    config = _parsed("accessLog: /var/log/gm.log")
    assert config.access_log == AccessLogSettings(Path("/var/log/gm.log"))
    config = _parsed("accessLog: {path: logs/a.log, maxBytes: 1000000, keep: 2, sample: 0.1}")
    assert config.access_log == AccessLogSettings(Path("/etc/gossipmesh/logs/a.log"), 1_000_000, 2, 0.1)
    config = _parsed("accessLog: {sample: 0}")
    assert config.access_log == AccessLogSettings(
        Path("/var/lib/gossipmesh/log/access.log"), 67_108_864, 4, 0.0
    )


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("accessLog: {maxBytes: 1000}", "65536"),
        ("accessLog: {keep: 0}", "1"),
        ("accessLog: {keep: 101}", "100"),
        ("accessLog: {sample: 1.5}", "1"),
        ("accessLog: {maxbytes: 100000}", "maxBytes"),
        ("accessLog: [a]", "accessLog"),
    ],
)
def test_bounds_of_an_access_log_that_cannot_be_are_mistakes(spec: str, said: str) -> None:
    (mistake,) = _mistakes(f"{HEAD}spec: {{{spec}}}\n")
    assert said in mistake


def test_a_configuration_others_could_change_is_refused_with_its_cure(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("apiVersion: gossipmesh.dev/v1\nkind: AgentConfig\n")
    path.chmod(0o664)
    with pytest.raises(OperatorError, match=r"chmod go-w .*agent\.yaml"):
        read_config(path)
    path.chmod(0o644)
    assert read_config(path).log_level == "info"


def test_a_pipe_is_no_configuration_and_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "agent.yaml")
    with pytest.raises(OperatorError, match="is a pipe"):
        read_config(tmp_path / "agent.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a week", "'a week' is not a duration"),
        ("1s", "keys that turn every 1s: give 5s to 720h"),
        ("721h", "keys that turn every 721h"),
    ],
)
def test_a_period_of_keys_that_cannot_be_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(YamlErrors, match=sentence):
        parse_config_untrusted(
            f"apiVersion: gossipmesh.dev/v1\nkind: AgentConfig\nspec:\n  keyPeriod: {text}\n", tmp_path / "c"
        )


def test_keys_turn_weekly_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    head = "apiVersion: gossipmesh.dev/v1\nkind: AgentConfig\n"
    assert parse_config_untrusted(head, tmp_path / "c").key_period_s == 604_800
    spec = f"{head}spec:\n  keyPeriod: 30s\n"
    assert parse_config_untrusted(spec, tmp_path / "c").key_period_s == 30


def test_an_engine_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(HEAD)
    assert read_config(path).engine == EngineChoice(EngineKind.AUTO, (), None, 45.0)
    spec = "{kind: command, command: [/opt/engine, -v], workers: 4, drainTimeout: 90s}"
    path.write_text(f"{HEAD}spec:\n  engine: {spec}\n")
    assert read_config(path).engine == EngineChoice(EngineKind.COMMAND, ("/opt/engine", "-v"), 4, 90.0)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("{kind: command}", "$.spec.engine.command: an engine of kind command needs one"),
        ("{kind: command, command: [engine]}", "a program's whole path first"),
        ("{command: [/opt/engine]}", "$.spec.engine.command: a command is for kind: command, not for auto"),
        (
            "{kind: reference, workers: 2}",
            "$.spec.engine.workers: an engine of kind reference is one process",
        ),
        ("{drainTimeout: 2h}", "$.spec.engine.drainTimeout: 2h to finish what is open: give up to 60m"),
        ("{drainTimeout: 0s}", "$.spec.engine.drainTimeout: "),
        ("{kind: envoy}", "$.spec.engine.kind: "),
    ],
)
def test_an_engine_that_cannot_be(engine: str, said: str) -> None:
    (mistake,) = _mistakes(f"{HEAD}spec:\n  engine: {engine}\n")
    assert said in mistake
