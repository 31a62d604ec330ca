"""docs/DEATHS.md says what the code does: its tables are made from the code's."""

import pytest

from gossipmesh.gossip.failure.cases import MOVES, CaseInput, CaseState, Move
from gossipmesh.testing import state_table


def test_the_committed_page_is_what_the_code_says() -> None:
    assert state_table.main(["--check"]) == 0


def test_a_changed_move_makes_another_page(monkeypatch: pytest.MonkeyPatch) -> None:
    held = state_table.PAGE.read_text()
    move = MOVES[(CaseState.WATCHING, CaseInput.FOUND_SILENT)]
    changed = {(CaseState.WATCHING, CaseInput.FOUND_SILENT): Move(CaseState.DEAF, move.act)}
    monkeypatch.setattr(state_table, "MOVES", MOVES | changed)
    assert state_table.written(held) != held
    assert state_table.main(["--check"]) == 1


def test_every_event_and_state_is_told() -> None:
    table = state_table.moves_table().splitlines()
    assert len(table) == 2 + len(CaseInput)
    assert all(line.count("|") == len(CaseState) + 1 for line in table)


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the table 'moves'"):
        state_table.written("nothing here")
