"""Which program is the engine: the words that start it, and who may have changed it."""

import sys
from pathlib import Path

import pytest

from gossipmesh.agent.config import EngineChoice, EngineKind
from gossipmesh.agent.engine.engine_choice import REFERENCE_MODULE, engine_words
from gossipmesh.model.errors import OperatorError


def program(folder: Path, mode: int = 0o755) -> Path:
    path = folder / "engine"
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def command(path: Path, *words: str, workers: int | None = None) -> EngineChoice:
    return EngineChoice(EngineKind.COMMAND, (str(path), *words), workers)


@pytest.mark.parametrize("kind", [EngineKind.AUTO, EngineKind.REFERENCE])
def test_the_engine_of_this_build(kind: EngineKind) -> None:
    words = engine_words(EngineChoice(kind))
    assert words[0] == sys.executable
    assert words[-1] == REFERENCE_MODULE


def test_a_command_is_run_as_it_was_given(tmp_path: Path) -> None:
    """By its own name, though a link leads elsewhere: an interpreter finds its libraries by that."""
    link = tmp_path / "link"
    link.symlink_to(program(tmp_path))
    assert engine_words(command(link, "-x")) == [str(link), "-x"]
    assert engine_words(command(link, workers=4)) == [str(link), "--workers", "4"]


@pytest.mark.parametrize(
    ("mode", "told"), [(0o775, "chmod go-w"), (0o757, "chmod go-w"), (0o600, "may not run")]
)
def test_a_program_that_others_may_change_or_nobody_may_run_is_none(
    tmp_path: Path, mode: int, told: str
) -> None:
    with pytest.raises(OperatorError, match=f"spec.engine.command.*{told}"):
        engine_words(command(program(tmp_path, mode)))


def test_a_program_in_a_folder_of_others_is_none(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(OperatorError, match=r"spec\.engine\.command: other users can replace"):
        engine_words(command(program(tmp_path / "open")))


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"spec\.engine\.command names .*/none: No such file"):
        engine_words(command(tmp_path / "none"))
    with pytest.raises(OperatorError, match="is a directory"):
        engine_words(command(tmp_path))
