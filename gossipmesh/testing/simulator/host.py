"""A simulated machine: a disk, perhaps an agent (the core), perhaps an engine, a clock of its own.

`read_late_ns` makes its agent a starved reader: all it reads it reads late by a draw from that range,
in order, while its timers are on time. `is_stamped`: its kernel says when a datagram arrived.
`has_address` is false while it has none: nothing it sends leaves it.
"""

import random
from collections.abc import Callable

from gossipmesh.gossip.base.effects import Persist, StreamId
from gossipmesh.gossip.replay.recorded_inputs import RecordedInputs
from gossipmesh.gossip.replay.recorder import FlightRecorder
from gossipmesh.model.instant import SECOND_NS, Instant
from gossipmesh.model.member import Address
from gossipmesh.model.opening import Enrolled
from gossipmesh.testing.simulator.core import Core
from gossipmesh.testing.simulator.disk import Disk
from gossipmesh.testing.simulator.network import Connection, End

WALL_START_S = 1_750_000_000  # an arbitrary summer day; only its difference to validity times matters
GOSSIP_PORT = 7948
MESH_PORT = 15008
SOCKET_QUEUE_PACKETS = 2_048  # what a 4 MB receive buffer holds of datagrams of this size


class Host:
    """One machine. `run` counts its agent's starts; events of an earlier run are void.

    `identity` is the name that its agent is enrolled under: another machine's, where that one was copied.
    """

    def __init__(self, index: int, name: str, seed: str, identity: str | None = None) -> None:
        self.index = index
        self.name = name
        self.take_address(f"10.0.{index // 250}.{index % 250 + 1}")
        self.identity = identity or name
        self.disk = Disk()
        self.generation = 1
        self.enrolled: Enrolled | None = None  # what an authority said of opening; None: nobody speaks of it
        self.core: Core | None = None
        self.recorder: FlightRecorder | None = None
        self.run = 0
        self.is_up = True
        self.engine_is_up = True
        self.engine_is_paused = False
        self.is_paused = False
        self.has_left = False
        self.must_end = False
        self.timer_at_ns = -1
        self.timers_in_a_row_count = 0
        self.crash_after_effects: int | None = None
        self.unwritten: list[Persist] = []  # what waits for the write before it
        self.is_writing = False
        self.written_ticket = 0  # what its core is to be told
        self.wall_skew_s = 0
        self.read_late_ns: tuple[int, int] | None = None
        self.is_stamped = True
        self.last_read_ns = 0
        self.paused_at_ns = 0
        self.inbox: list[Callable[[], None]] = []
        self.connections: dict[StreamId, tuple[Connection, End]] = {}
        self._next_accepted = 1
        self._seed = seed
        self._origin_ns = 0

    @property
    def inputs(self) -> Core | RecordedInputs:
        """Return where the shell hands inputs over: the core that runs, or the recorder beside it."""
        assert self.core is not None, self.name
        return self.core if self.recorder is None else self.recorder.inputs

    @property
    def is_running(self) -> bool:
        """Tell whether an agent runs here, paused or not."""
        return self.core is not None

    def take_address(self, text: str) -> None:
        """Be found at an address, and send from it."""
        self.address = Address(text, GOSSIP_PORT)
        self.mesh_address = Address(text, MESH_PORT)
        self.has_address = True

    def begin_run(self) -> random.Random:
        """Count a start: a new origin of the monotonic clock, and the generator of this run."""
        self.run += 1
        self.has_left = self.must_end = False
        rng = random.Random(f"{self._seed}/{self.name}/{self.run}")
        self._origin_ns = rng.randrange(10 * SECOND_NS, 1_000_000 * SECOND_NS)
        self._next_accepted = 1
        self.timer_at_ns = -1
        self.timers_in_a_row_count = 0
        self.is_paused = False
        self.last_read_ns = 0
        return rng

    def end_run(self) -> None:
        """Forget the process: its core, its queue and its streams."""
        self.core = None
        self.inbox.clear()
        self.connections.clear()
        self.is_paused = False
        self.crash_after_effects = None
        self.unwritten.clear()
        self.is_writing = False
        self.written_ticket = 0

    def instant(self, now_ns: int) -> Instant:
        """Return this process's monotonic time at a virtual time."""
        return Instant(now_ns + self._origin_ns)

    def virtual(self, instant: Instant) -> int:
        """Return the virtual time of one of this process's instants."""
        return instant - self._origin_ns

    def wall_offset_s(self) -> int:
        """Return what this process adds to its monotonic seconds to get wall seconds."""
        return WALL_START_S - self._origin_ns // SECOND_NS + self.wall_skew_s

    def next_accepted_stream(self) -> StreamId:
        """Return a new odd stream id."""
        stream = StreamId(self._next_accepted)
        self._next_accepted += 2
        return stream
