"""Generations of scopes: which a new Trust begins, and announced sets of those not named here yet.

Ends at remembering: asking and judging are `documents`'. One announcement a scope, the latest, because each
announcer of the new generation has the Trust that names it, and any of them will do.
Paper: none. Deviation: none.
"""

from gossipmesh.gossip.base import kept
from gossipmesh.model.documents import TrustDocument, first_version_of, generation_of


def begun_generations(before: TrustDocument | None, now: TrustDocument | None) -> list[tuple[str, int]]:
    """Return the scopes of which `now` names another generation, each with its least version, sorted."""
    old = {} if before is None else before.floors
    new = {} if now is None else now.floors
    return [
        (scope, first_version_of(generation_of(floor)))
        for scope, floor in sorted(new.items())
        if generation_of(floor) != generation_of(old.get(scope, 0))
    ]


@kept.part("newer generations")
class NewerGenerations:
    """Who announced which set of a generation to come, by scope; scopes are those Trust names."""

    def __init__(self) -> None:
        self._by_scope: dict[str, tuple[bytes, tuple[str, int, bytes]]] = {}

    def keep(self, announced: tuple[str, int, bytes], announcer: bytes) -> None:
        """Remember (scope, version, hash) in place of what was announced of that scope before."""
        self._by_scope[announced[0]] = (announcer, announced)

    def take(self) -> list[tuple[bytes, tuple[str, int, bytes]]]:
        """Return (announcer, announcement) of every scope, and forget them: Trust has gone on."""
        taken = list(self._by_scope.values())
        self._by_scope.clear()
        return taken
