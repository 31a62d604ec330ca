"""Chaos scenarios as data: what is started, what breaks, what is waited for, what must hold.

A scenario is a TOML file. Unknown fields are errors: a misspelt bound must not pass in silence.
"""

import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from gossipmesh.model.errors import OperatorError

STEP_KINDS: Final = (
    "kill",
    "pause",
    "restart-agent",
    "upgrade",
    "partition",
    "heal",
    "race",
    "push",
    "await",
    "load",
)
FAULT_KINDS: Final = ("kill", "pause", "upgrade", "partition", "race")
TARGETS: Final = ("agent", "engine", "workloads")


class MeshSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`network` is loopback or namespaces (partitions need the latter, and root)."""

    network: str = "loopback"


class LoadSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Idempotent GETs from every node but the victim, or `from_victim` too; rate 0 means no load."""

    rate_per_s: float = 40.0
    timeout_s: float = 10.0
    warm_up_s: float = 3.0
    warm_up_jitter_s: float = 2.0
    from_victim: bool = False
    hosts: tuple[str, ...] = ("cart.shop", "web.shop")


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing the nemesis does, in order.

    `do`: kill / pause (`targets` on the victim, pause `for_s`), restart-agent, upgrade (an agent is told to
    restart, ends by itself and is started again; `within_s` for each, then `for_s` of load), partition (the
    seed chooses `sides`), heal, race (pushes from one base on both sides), push (at one node of the first
    side, waiting `within_s`), await (`until`, `within_s`), load (let the load run `for_s`). `everywhere`:
    kill, restart-agent and upgrade take every node, not the victim. `name` is what a push, an upgrade or an
    await is called in the evidence.
    """

    do: str
    targets: tuple[str, ...] = ()
    for_s: float = 0.0
    until: str = ""
    within_s: float = 0.0
    name: str = ""
    sides: tuple[int, int] = (0, 0)
    everywhere: bool = False


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checker by name, with its parameters: every bound of a scenario stands here."""

    check: str
    params: dict[str, Any] = {}


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole scenario file; `victims` narrows whom the seed may choose (default: any node)."""

    name: str
    about: str
    steps: tuple[Step, ...]
    checks: tuple[Check, ...]
    mesh: MeshSection = MeshSection()
    load: LoadSection = LoadSection()
    victims: tuple[str, ...] = ()
    ready_within_s: float = 60.0


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        OperatorError: missing, not TOML, or not a scenario; says which field.
    """
    try:
        scenario = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Scenario)
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.toml"))) or "none here"
        raise OperatorError(f"there is no scenario {path}; known ones: {known}") from None
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise OperatorError(f"{path} is not a scenario: {error}") from error
    for step in scenario.steps:
        if step.do not in STEP_KINDS:
            raise OperatorError(f"{path}: {step.do!r} is no step; known are {', '.join(STEP_KINDS)}")
        unknown = [target for target in step.targets if target not in TARGETS]
        if unknown:
            raise OperatorError(f"{path}: {unknown[0]!r} is no target; known are {', '.join(TARGETS)}")
        if step.do in ("await", "push", "upgrade") and (not step.name or not step.within_s):
            raise OperatorError(f"{path}: the step {step.do!r} needs `name` and `within_s`")
    return scenario


def faults_expected(scenario: Scenario, nodes_count: int) -> int:
    """Return how many faults a run must have fired: one for each node a step strikes."""
    steps = [step for step in scenario.steps if step.do in FAULT_KINDS]
    return sum(nodes_count if step.everywhere else 1 for step in steps)


def needs_root(scenario: Scenario) -> bool:
    """Tell whether a scenario needs network namespaces."""
    return scenario.mesh.network == "namespaces"
