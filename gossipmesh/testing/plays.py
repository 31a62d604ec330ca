"""What a scenario does to its mesh in a module of its own: by the name of the step, `scenario.PLAY_STEPS`.

A play takes the mesh, the victim's name and how long each of its parts may take. It returns what came of
it, which the evidence keeps as the fault's detail; numbers named `..._s` are told as measures.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple

from gossipmesh.testing import (
    clock_skew,
    cold_starts,
    copied_state,
    key_rotations,
    mixed_versions,
    month_without_signers,
    stolen_credential_key,
    stolen_intermediate,
    stolen_node_key,
    stolen_signer,
    suspensions,
)
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh


class Play(NamedTuple):
    """`about` is told when it begins; `breaks_victim`: load enters elsewhere, and its agent is not asked."""

    play: Callable[[Mesh, str, float], Awaitable[dict[str, Any]]]
    about: str
    breaks_victim: bool = False


PLAYS: Final[dict[str, Play]] = {
    cold_starts.COLD_START: Play(
        cold_starts.cold_start,
        "kill the authority, {victim} and its seeds, and start {victim} from its disk",
    ),
    copied_state.COPY_STATE: Play(copied_state.copy_state, "start a copy of the state of {victim} elsewhere"),
    mixed_versions.MIX_VERSIONS: Play(
        mixed_versions.mix_versions, "live with the release before, turn the keys of {victim}, upgrade"
    ),
    **{
        step: Play(
            partial(key_rotations.rotate, kind),
            f"kill {{victim}}, give the authority another {kind}, start {{victim}} again",
            breaks_victim=True,
        )
        for kind, step in key_rotations.ROTATE.items()
    },
    month_without_signers.SIGNERS_OFF: Play(
        month_without_signers.live_without_signers,
        "kill the authority for good and live thirty days, the agent of {victim} starts from its disk",
    ),
    clock_skew.SKEW_CLOCK: Play(
        clock_skew.skew_clock, "set the clock of {victim} an hour ahead, right, an hour behind, and right"
    ),
    stolen_credential_key.STEAL_CREDENTIAL_KEY: Play(
        stolen_credential_key.steal_credential_key,
        "steal the credential key, sign with it, {victim} a tombstone, and replace it with a roll",
        breaks_victim=True,
    ),
    stolen_intermediate.STEAL_INTERMEDIATE: Play(
        stolen_intermediate.steal_intermediate,
        "steal the intermediate, call with it, and answer in the place of {victim}",
    ),
    stolen_node_key.STEAL_NODE_KEY: Play(
        stolen_node_key.steal_node_key, "steal the keys of {victim}, use them, revoke it and enrol it again"
    ),
    stolen_signer.STEAL_SIGNER: Play(
        stolen_signer.steal_signer,
        "steal the policy signer's key, spread by {victim} what it signed, and give it another key",
        breaks_victim=True,
    ),
    suspensions.SUSPEND: Play(
        suspensions.suspend, "kill the authority, stop all agents and engines, resume them a month later"
    ),
}
BREAKING: Final = tuple(name for name, play in PLAYS.items() if play.breaks_victim)


def plays_s(evidence: Evidence) -> dict[str, dict[str, float | None]]:
    """Return by step how long each part of it took; None: it did not come about."""
    return {
        fault.kind: {
            part: took_s
            for part, took_s in fault.detail.items()
            if part.endswith("_s") and (took_s is None or isinstance(took_s, float))
        }
        for fault in evidence.faults
        if fault.kind in PLAYS
    }
