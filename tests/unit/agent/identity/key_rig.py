"""A mesh and an engine of no code, as the keeper of keys sees them."""

from gossipmesh.agent.identity.key_keeper import KeyKeeper
from gossipmesh.agent.identity.key_turning import Pins


class FakeUse:
    """Publishes to `sets`, holds what `peers` say, and shows what it is told once `engine` is true."""

    def __init__(self, keeper: KeyKeeper | None = None) -> None:
        self.keeper = keeper
        self.sets: list[Pins] = []
        self.peers: tuple[int, int] | None = (0, 0)
        self.engine = True
        self.able = True
        self.certified = False
        self.confirmed: dict[str, bytes] = {}

    def publish_pins(self, pins: Pins) -> bool:
        self.sets.append(pins)
        return True

    def holders(self) -> tuple[int, int] | None:
        return self.peers

    def show_keys(self) -> None:
        if self.engine and self.keeper is not None:
            self.confirmed = {name: key.pin for name, key in self.keeper.usable().items()}
            self.keeper.look()

    def shown_pins(self) -> dict[str, bytes]:
        return self.confirmed

    def engine_able(self) -> bool:
        return self.able

    def certified_only(self) -> bool:
        return self.certified
