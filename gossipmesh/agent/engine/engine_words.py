"""What this node says of its engine to the mesh: which kinds of policy its build can execute and it cannot.

Ends at the words; who pushes policy reads them (`cli.push_plan`), before anything is signed.
"""

from collections.abc import Callable

from gossipmesh.model.engine_features import SECTION_FEATURES
from gossipmesh.traffic.policies import kinds_beyond
from gossipmesh.trust.manifest import FEATURE_OF_KIND


class EngineWords:
    """Says it when it changes."""

    def __init__(
        self, features: Callable[[], frozenset[str]], say: Callable[[tuple[str, ...]], None]
    ) -> None:
        """`features`: what every engine attached now can; `say` tells the mesh."""
        self._features = features
        self._say = say
        self._said: tuple[str, ...] = ()

    def look(self) -> None:
        """Say what is to be said; called every second."""
        features = self._features() & SECTION_FEATURES
        lacks = tuple(sorted(FEATURE_OF_KIND[kind] for kind in kinds_beyond(features)))
        if lacks != self._said:
            self._said = lacks
            self._say(lacks)
