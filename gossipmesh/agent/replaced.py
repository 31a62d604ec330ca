"""Why an agent must end and not be started again: its name or identity is in use elsewhere, or revoked.

Ends at the sentence; the agent ends itself, and its engine with it.
"""

from pathlib import Path

from gossipmesh.gossip.base.effects import EnrolledAgain, IdentityCopied, Revoked
from gossipmesh.model.errors import NodeReplaced, NodeRevoked


def replaced_by(
    event: EnrolledAgain | IdentityCopied | Revoked, name: str, generation: int, folder: Path
) -> NodeReplaced:
    """Return what a person must know.

    Args:
        generation: of the credential held here.
        folder: where the identity of this node is kept.
    """
    if isinstance(event, Revoked):
        return NodeRevoked(
            f"{name} was revoked (generation {generation} counts no more): nobody in the mesh takes what it "
            "says, so this agent and its engine end; if that is a mistake, or to have it back, run "
            f"`rm -r {folder}` and enrol {name} again (`gossipmesh token create --node {name}`)"
        )
    way_out = (
        f"to have this machine in the mesh, run `rm -r {folder}` and enrol it under a name of its own "
        "(`gossipmesh token create --node NAME`)"
    )
    if isinstance(event, EnrolledAgain):
        return NodeReplaced(
            f"{name} was enrolled again elsewhere (generation {event.generation}, here it is {generation}): "
            f"that machine is {name} now, so this agent and its engine end; {way_out}"
        )
    return NodeReplaced(
        f"{name} runs at {event.address} too, under the identity that is kept in {folder}: was this state "
        "folder copied, or the machine cloned? That agent goes on, so this one and its engine end; "
        f"{way_out}; to move {name} to this machine, stop it there, then start it here"
    )
