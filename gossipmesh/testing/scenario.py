"""Chaos scenarios as data: what is started, what breaks, what is waited for, what must hold.

A scenario is a TOML file. Unknown fields are errors: a misspelt bound must not pass in silence.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing import load, sessions
from gossipmesh.testing.layout import LAYOUTS

PLAY_STEPS: Final = (
    "cold-start",
    "copy-state",
    "mix-versions",
    "rotate-intermediate",
    "rotate-root",
    "signers-off",
    "skew-clock",
    "steal-credential-key",
    "steal-intermediate",
    "steal-node-key",
    "steal-signer",
    "suspend",
)
"""What `plays` has the modules of, each a whole course of events with real processes."""
STEP_KINDS: Final = (
    "kill",
    "pause",
    "restart-agent",
    "upgrade",
    "leave",
    "leave-rejoin",
    "enrol-again",
    "forget",
    "no-authority",
    "move",
    "lose-udp",
    "news",
    "mute",
    "unmute",
    "partition",
    "isolate",
    "heal",
    "race",
    "push",
    "call",
    "await",
    "load",
    *PLAY_STEPS,
)
FAULT_KINDS: Final = (
    "kill",
    "pause",
    "upgrade",
    "leave",
    "leave-rejoin",
    "enrol-again",
    "forget",
    "no-authority",
    "move",
    "lose-udp",
    "mute",
    "partition",
    "isolate",
    "race",
    *PLAY_STEPS,
)
REAL_STEPS: Final = (
    "leave",
    "leave-rejoin",
    "enrol-again",
    "forget",
    "no-authority",
    "move",
    "lose-udp",
    "news",
    "mute",
    "unmute",
    "isolate",
    "call",
    *PLAY_STEPS,
)
"""What the simulator cannot show, because requests are all it is about."""
REAL_CONDITIONS: Final = ("peers-turned",)
"""What the simulator cannot wait for: its nodes have no TLS keys."""
TIMED_STEPS: Final = (
    *("await", "push", "upgrade", "leave", "leave-rejoin"),
    *("enrol-again", "forget", "no-authority", "move", "news"),
    *PLAY_STEPS,
)
ADDRESSES: Final = ("fixed", "found")
PROGRAMS: Final = ("", "older", "faketime")
TARGETS: Final = ("agent", "engine", "workloads")


class MeshSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`network` is loopback or namespaces (partitions need the latter, and root); `layout` one of LAYOUTS.

    `addresses` fixed: each agent is configured with its own; found: it finds it itself, and it can be moved.
    `key_period` is every agent's `spec.keyPeriod`; empty: the usual one. `programs`: what agents run; empty:
    this build; older: the release before, on every other node; faketime: this build, by clocks that steps
    set.
    """

    network: str = "loopback"
    layout: str = "demo"
    addresses: str = "fixed"
    key_period: str = ""
    programs: str = ""


class LoadSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Idempotent GETs from every node but the victim, or `from_victim` too; rate 0 means no load.

    `mixed` are other kinds of requests (`gossipmesh.testing.load`), sent beside them at a rate of their own;
    `sessions` (`gossipmesh.testing.sessions`) are held open meanwhile, each for `session_life_s` or, with 0,
    as long as they last.
    """

    rate_per_s: float = 40.0
    timeout_s: float = 10.0
    warm_up_s: float = 3.0
    warm_up_jitter_s: float = 2.0
    from_victim: bool = False
    hosts: tuple[str, ...] = ("cart.shop", "web.shop")
    mixed: tuple[str, ...] = ()
    mixed_rate_per_s: float = 10.0
    sessions: tuple[str, ...] = ()
    session_life_s: float = 0.0


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing the nemesis does, in order.

    `do`: kill / pause (`targets` on the victim, pause `for_s`), restart-agent, upgrade (an agent is told to
    restart, ends by itself and is started again; `within_s` for each, then `for_s` of load), leave (drained
    and gone for good within `within_s`), leave-rejoin (the same, then started again: also within `within_s`,
    then `for_s` of load), enrol-again (the victim's name is enrolled elsewhere, its agent runs on; what
    becomes of it is watched for `within_s`), forget (the victim is taken out of the mesh; that it goes is
    watched for `within_s`),
    no-authority (the authority is killed for good; an endpoint comes, one dies, keys turn, the victim is
    killed and starts again, each `within_s`), move (the
    victim gets another address `gap_s` after its old one went or, below 0, before; all others have it
    `within_s`),
    lose-udp (for `for_s`, beside what follows: all datagrams of the victim, or `percent` of those of
    another node), news (a policy and a service of others and a service of the victim are published; each
    is everywhere `within_s`), mute (`percent` of all that the victim sends is dropped, and all that its
    engine answers, until `unmute`), partition (the seed chooses `sides`), isolate (the victim from all
    others), heal, race (pushes from one base on both sides), push (at one node of the first side, waiting
    `within_s`), call (one request of each of `kinds` to `host` from every node but the victim, not waited
    for until the end; then `for_s`), await (`until`, `within_s`), load (let the load run `for_s`).
    `everywhere`: kill, restart-agent, upgrade and leave-rejoin take every node, not the victim. `name` is
    what a push, an upgrade, a leave, a move or an await is called in the evidence. PLAY_STEPS are told in
    `plays`; each part of one takes `within_s` at most.
    """

    do: str
    targets: tuple[str, ...] = ()
    for_s: float = 0.0
    until: str = ""
    within_s: float = 0.0
    gap_s: float = 0.0
    percent: int = 100
    name: str = ""
    sides: tuple[int, int] = (0, 0)
    everywhere: bool = False
    kinds: tuple[str, ...] = ()
    host: str = ""


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checker by name, with its parameters: every bound of a scenario stands here."""

    check: str
    params: dict[str, Any] = {}


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole scenario file; `victims` narrows whom the seed may choose (default: any node).

    All steps are done `rounds` times, one round after the other.
    """

    name: str
    about: str
    steps: tuple[Step, ...]
    checks: tuple[Check, ...]
    mesh: MeshSection = MeshSection()
    load: LoadSection = LoadSection()
    victims: tuple[str, ...] = ()
    rounds: int = 1


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
    for what, names, known_names in _words(scenario):
        for name in names:
            if name not in known_names:
                raise OperatorError(f"{path}: {name!r} is no {what}; known are {', '.join(known_names)}")
    for step in scenario.steps:
        if step.do in TIMED_STEPS and (not step.name or not step.within_s):
            raise OperatorError(f"{path}: the step {step.do!r} needs `name` and `within_s`")
    return scenario


def _words(scenario: Scenario) -> list[tuple[str, Sequence[str], Sequence[str]]]:
    """Return (what, the words a scenario uses for it, the known ones)."""
    words: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("layout", [scenario.mesh.layout], list(LAYOUTS)),
        ("way to an address", [scenario.mesh.addresses], ADDRESSES),
        ("kind of programs", [scenario.mesh.programs], PROGRAMS),
        ("kind of request", scenario.load.mixed, list(load.KINDS)),
        ("session", scenario.load.sessions, sessions.KINDS),
    ]
    for step in scenario.steps:
        words += [("step", [step.do], STEP_KINDS), ("target", step.targets, TARGETS)]
        words.append(("kind of request", step.kinds, list(load.KINDS)))
    return words


def faults_expected(scenario: Scenario, nodes_count: int) -> int:
    """Return how many faults a run must have fired: one for each node a step strikes."""
    steps = [step for step in scenario.steps if step.do in FAULT_KINDS]
    return scenario.rounds * sum(nodes_count if step.everywhere else 1 for step in steps)


def can_be_simulated(scenario: Scenario) -> bool:
    """Tell whether the simulator knows everything the scenario does."""
    return not any(step.do in REAL_STEPS or step.until in REAL_CONDITIONS for step in scenario.steps)


def needs_root(scenario: Scenario) -> bool:
    """Tell whether a scenario needs network namespaces."""
    return scenario.mesh.network == "namespaces"
