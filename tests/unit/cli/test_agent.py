"""`gossipmesh agent` hands its words to the agent's own process."""

import os
from pathlib import Path

import pytest

from gossipmesh.agent.__main__ import main
from gossipmesh.cli.main import run

HEAD = "apiVersion: gossipmesh.dev/v1\nkind: AgentConfig\nspec: {stateDir: state}\n"


@pytest.mark.parametrize(
    ("given", "handed"),
    [
        ((), ["a.yaml", ""]),
        (("--token-file", "t"), ["a.yaml", "t"]),
        (("--seed", "a.test:1", "--seed", "10.0.0.1:2"), ["a.yaml", "", "a.test:1", "10.0.0.1:2"]),
        (("--seed", "a.test:1", "--token-file", "t"), ["a.yaml", "t", "a.test:1"]),
    ],
)
def test_what_is_given_is_handed_over(
    given: tuple[str, ...], handed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda _, words, __: became.append(words))
    run(["agent", "--config", "a.yaml", *given])
    assert became[0][became[0].index("gossipmesh.agent") + 1 :] == handed


def test_a_seed_that_is_none_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(HEAD)
    assert main([str(path), "", "mesh.example.com"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("gossipmesh: --seed: 'mesh.example.com' is not ADDRESS:PORT or NAME:PORT, such as")
    assert not (tmp_path / "state").exists()
