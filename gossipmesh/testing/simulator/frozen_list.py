"""The frozen list: which runs the core's behaviour is held to, and the digest of each run's whole trace.

It is read here and played by `gossipmesh.testing.frozen`. `frozen_key` names the behaviour as a whole:
published evidence is kept under it, and stands for as long as the list is what it is.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

LIST: Final = Path(__file__).with_name("frozen.jsonl")
GRID: Final = "grid"  # the story of a cell of kinship's grid; any other is the name of a scenario
KEY_DIGITS: Final = 12


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run of the list; loss and starved in percent, the latter and `stamped` for cells of the grid.

    `quick` entries are those that `--quick` plays. `digest` and `lines` say what the run must show.
    """

    story: str
    nodes: int
    loss: float
    seed: int
    detector: str = "monitors"
    starved: float = 0.0
    stamped: bool = True
    quick: bool = False
    digest: str = ""
    lines: int = 0

    @property
    def name(self) -> str:
        """Return what the entry is called on command lines, unique in the list."""
        words = [self.story, f"{self.nodes}n", f"{self.loss:g}%", self.detector]
        if self.story == GRID:
            words += [f"starved{self.starved:g}%", "stamps" if self.stamped else "no-stamps"]
        return "/".join([*words, f"seed{self.seed}"])


def read_list(path: Path = LIST) -> list[Entry]:
    """Return the entries of a list in the order of their names."""
    return in_order(msgspec.json.decode(line, type=Entry) for line in path.read_bytes().splitlines())


def write_list(entries: Iterable[Entry], path: Path = LIST) -> None:
    """Write a list, one entry a line."""
    path.write_bytes(b"".join(msgspec.json.encode(entry) + b"\n" for entry in in_order(entries)))


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries sorted by name."""
    return sorted(entries, key=lambda entry: entry.name)


def key_of(entries: Iterable[Entry]) -> str:
    """Return a short hash over what runs there are and what each must show, in any order."""
    digest = hashlib.sha256()
    for entry in in_order(entries):
        digest.update(f"{entry.name} {entry.digest}\n".encode())
    return digest.hexdigest()[:KEY_DIGITS]


def frozen_key() -> str:
    """Return the key that evidence of the core, as the committed list has it, is kept under."""
    return key_of(read_list())
