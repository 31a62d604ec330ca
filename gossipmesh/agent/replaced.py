"""Why an agent must end and not be started again: its name or its very identity is in use elsewhere.

Ends at the sentence; the agent ends itself, and its engine with it.
"""

from pathlib import Path

from gossipmesh.gossip.base.effects import EnrolledAgain, IdentityCopied
from gossipmesh.model.errors import NodeReplaced


def replaced_by(
    event: EnrolledAgain | IdentityCopied, name: str, generation: int, folder: Path
) -> NodeReplaced:
    """Return what a person must know.

    Args:
        generation: of the credential held here.
        folder: where the identity of this node is kept.
    """
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
