"""An agent's parts as the turning of keys sees them: who publishes pins, who holds them, who shows keys."""

from collections.abc import Callable

from gossipmesh.agent.identified_engine import IdentifiedEngine
from gossipmesh.agent.key_turning import Pins


class AgentKeyUse:
    """The mesh and the engine, as `key_keeper.KeyUse` asks for them."""

    def __init__(self, engine: IdentifiedEngine, publish: Callable[[Pins], bool]) -> None:
        """`publish` signs a key set and sends it on its way."""
        self._engine = engine
        self._publish = publish

    def publish_pins(self, pins: Pins) -> bool:
        """Have the core sign these as the node's key set."""
        return self._publish(pins)

    def holders(self) -> tuple[int, int] | None:
        """Return how many live peers hold it, and of how many."""
        return (0, 0)

    def show_keys(self) -> None:
        """Have the engine show the keys in use."""
        self._engine.show_keys()

    def shown_pins(self) -> dict[str, bytes]:
        """Return what the engine has confirmed."""
        return self._engine.shown_pins()

    def engine_able(self) -> bool:
        """Tell whether the engine judges by key sets."""
        return self._engine.supervisor.takes_pins
