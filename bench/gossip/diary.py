"""A simulated mesh, who told what when in it, and the figures so far: what chapters are written in."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from gossipmesh.gossip import rehearsal
from gossipmesh.gossip.base.effects import (
    Effect,
    MemberChanged,
    Notify,
    PolicyApplied,
    SendDatagram,
    SendStream,
    ServicesChanged,
)
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.simulator.host import Host
from gossipmesh.testing.simulator.invariants import Invariants
from gossipmesh.testing.simulator.run import Run
from gossipmesh.testing.simulator.world import World
from gossipmesh.trust.keys import Verifier

VERDICTS_MAX: Final = 4_000_000
QUIET_NS: Final = 180 * SECOND_NS
DOWN: Final = (MemberStatus.DEAD, MemberStatus.UNATTENDED)


class Diary(Invariants):
    """The simulator's invariants, and who told what when."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: set[tuple[str, str]] = set()
        self.whole_ns = 0  # when the newest pair (observer, other) came to see each other
        self.told: list[tuple[int, str, str, MemberStatus]] = []
        self.services_ns: dict[tuple[str, bytes], int] = {}
        self.policies_ns: dict[tuple[str, int], int] = {}
        self.sent_bytes: Counter[tuple[str, int]] | None = None  # by host and second, while somebody counts

    def stepped(self, world: World, host: Host, effects: Sequence[Effect]) -> None:
        """Count what a step sends, when that is wanted, then check it as always."""
        if self.sent_bytes is not None:
            second = world.now_ns // SECOND_NS
            for effect in effects:
                if isinstance(effect, SendDatagram | SendStream):
                    self.sent_bytes[host.name, second] += len(effect.payload)
        super().stepped(world, host, effects)

    def notified(self, world: World, host: Host, effect: Notify) -> None:
        """Write down what a core tells, then check it as always."""
        event = effect.event
        if isinstance(event, MemberChanged) and event.name != host.name:
            self.told.append((world.now_ns, host.name, event.name, event.status))
            pair = (host.name, event.name)
            if event.status is MemberStatus.ALIVE and pair not in self.alive:
                self.alive.add(pair)
                self.whole_ns = world.now_ns
            elif event.status is not MemberStatus.ALIVE:
                self.alive.discard(pair)
        elif isinstance(event, ServicesChanged):
            self.services_ns[host.name, event.node_id] = world.now_ns
        elif isinstance(event, PolicyApplied):
            self.policies_ns[host.name, event.version] = world.now_ns
        super().notified(world, host, effect)


class Day:
    """A run, its diary, and the figures so far."""

    def __init__(self, nodes_count: int, loss_ratio: float, seed: int, detector: str | None) -> None:
        verifier = Verifier(VERDICTS_MAX)
        self.run = Run(
            seed, nodes_count=nodes_count, loss_ratio=loss_ratio, verifier=verifier, detector=detector
        )
        self.diary = Diary()
        self.diary.grace_ns = self.run.invariants.grace_ns
        self.diary.expects_equal_views = self.run.invariants.expects_equal_views
        self.run.invariants = self.run.world.observer = self.diary
        self.figures: dict[str, Any] = {}
        self.others_dead: list[str] = []

    def keep(self, name: str, times_ns: Sequence[int]) -> None:
        """Keep durations in seconds, the shortest first."""
        self.figures[name] = [seconds(time_ns) for time_ns in sorted(times_ns)]

    def note_deaths(self, since_ns: int, *, but: Sequence[str]) -> None:
        """Keep who else was declared dead since."""
        for at_ns, observer, subject, status in self.diary.told:
            if at_ns >= since_ns and status in DOWN and subject not in but and observer not in but:
                self.others_dead.append(f"{observer} held {subject} {status.label}")

    def publish(self, host: Host) -> None:
        """Have a host change its services; equal state sums are expected anew only after that."""
        self.run.publish(host)
        self.diary.disturbed(self.run.world, [])

    def wait_quiet(self) -> None:
        """Let the last updates be sent as often as they are to be: joins are told for a while."""
        run = self.run
        quiet = run.world.run_until_true(
            lambda: not any(run.core(host).statistics().queue_length for host in run.running()),
            QUIET_NS,
            SECOND_NS,
        )
        run.require(quiet, f"updates are still queued after {QUIET_NS // SECOND_NS} s")

    def rest(self, duration_s: float) -> None:
        """Let virtual time pass."""
        self.run.world.run_for(int(duration_s * SECOND_NS))

    def endpoints(self) -> int:
        """Return how many members' services are offered, on all nodes together."""
        return sum(rehearsal.offered_count(self.run.core(host)) for host in self.run.hosts)


def seconds(duration_ns: int) -> float:
    """Return a duration in seconds, to the millisecond."""
    return round(duration_ns / SECOND_NS, 3)
