"""The measurements on real processes, the same for every group; raw figures out, no judgement here."""

import random
import signal
import statistics
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from bench.gossip.group import Group, rest, wall_s
from bench.gossip.observe import ALIVE, DEAD
from bench.processes import cpu_s, pss_mb, rss_mb
from gossipmesh.testing.waiting import WaitedInVain

Say = Callable[[str], None]
Strike = Callable[[Group, str], Awaitable[dict[str, Any]]]

JOIN_TIMEOUT_S: Final = 120.0
DETECT_TIMEOUT_S: Final = 60.0
RETURN_TIMEOUT_S: Final = 60.0
CALM_S: Final = 3.0
# Joins are told on for a while; ours that read late in the storm publish ten seconds later that they do not.
SETTLE_S: Final = 30.0
IDLE_S: Final = 20.0
PAUSES_S: Final = (2.0, 10.0)


class Budget:
    """How long the rounds may go on; a group stops early and says how many it made."""

    def __init__(self, seconds: float) -> None:
        self._until_s = wall_s() + seconds

    def spent(self, margin_s: float = 0.0) -> bool:
        """Tell whether less than `margin_s` is left."""
        return wall_s() + margin_s > self._until_s


async def measure_join(group: Group, say: Say, raw: dict[str, Any]) -> bool:
    """Start a group whose nodes reach nobody, then open the field; seconds until all see all.

    Returns whether they came to, in time.
    """
    began_s = wall_s()
    await group.start()
    say(f"{group.name}: {len(group.names)} nodes started in {wall_s() - began_s:.1f} s, none joined")
    await rest(CALM_S)
    opened_s = wall_s()
    group.field.open()
    row: dict[str, Any]
    try:
        row = {"join_s": round(await group.wait_all_seen(opened_s, JOIN_TIMEOUT_S) - opened_s, 3)}
    except WaitedInVain as error:
        row = {"missed": str(error)}
    raw.setdefault("join", []).append(row)
    say(f"{group.name}: join storm: {row}")
    return "missed" not in row


async def measure_group(
    group: Group, parts: list[str], rounds_count: int, budget: Budget, say: Say, raw: dict[str, Any]
) -> None:
    """Measure what is asked for of a group that joined; what was measured is in `raw`, come what may."""
    await rest(SETTLE_S)
    if "idle" in parts:
        raw["idle"] = await measure_idle(group)
        say(f"{group.name}: idle {raw['idle']}")
    if "pause" in parts:
        raw["pause"] = [await paused(group, group.names[-1], seconds) for seconds in PAUSES_S]
        say(f"{group.name}: pauses {raw['pause']}")
    await measure_rounds(group, [part for part in STRIKES if part in parts], rounds_count, budget, say, raw)


async def measure_idle(group: Group) -> dict[str, Any]:
    """Leave the group alone; bytes from the links' counters, CPU and memory from /proc."""
    pids = {name: group.pids(name) for name in group.names}
    first = [found[0] for found in pids.values()]
    rest_of = [pid for found in pids.values() for pid in found[1:]]
    sent, used, used_rest, began_s = group.field.sent(), cpu_s(first), cpu_s(rest_of), wall_s()
    await rest(IDLE_S)
    sent_after, used_after, used_rest_after = group.field.sent(), cpu_s(first), cpu_s(rest_of)
    seconds, count = wall_s() - began_s, len(group.names)
    bytes_count = sum(sent_after[name][0] - sent[name][0] for name in group.names)
    packets_count = sum(sent_after[name][1] - sent[name][1] for name in group.names)
    return {
        "seconds": round(seconds, 1),
        "wire_bytes_per_s": round(bytes_count / seconds / count, 1),
        "packets_per_s": round(packets_count / seconds / count, 2),
        "cpu_percent": round((used_after - used) / seconds / count * 100, 3),
        "cpu_percent_engine": round((used_rest_after - used_rest) / seconds / count * 100, 3),
        "rss_mb": round(statistics.median(rss_mb(pid) for pid in first), 1),
        "pss_mb": round(statistics.median(pss_mb(pid) for pid in first), 1),
        "pss_mb_engine": round(statistics.median(map(pss_mb, rest_of)), 1) if rest_of else 0.0,
    }


async def measure_rounds(
    group: Group, parts: Sequence[str], rounds_count: int, budget: Budget, say: Say, raw: dict[str, Any]
) -> None:
    """Strike one node after another, each time until every other knows, and bring it back.

    Kinds of strikes take turns, so that a group whose time is spent has as many of each.
    """
    rng = random.Random(group.name)
    raw |= {part: [] for part in parts}
    turns = [(number, part) for number in range(rounds_count) for part in parts]
    for turn, (number, part) in enumerate(turns):
        if budget.spent():
            break
        victim = group.names[1 + turn % (len(group.names) - 1)]
        await rest(CALM_S + rng.random())  # so that rounds meet the probes' periods at random points
        row = await STRIKES[part](group, victim)
        raw[part].append(row)
        say(f"{group.name}: {part} round {number + 1}: {row}")


async def killed(group: Group, victim: str) -> dict[str, Any]:
    """SIGKILL everything on a node; the kernel there lives and refuses."""
    struck_s = await group.kill(victim)
    row = await detected(group, victim, struck_s)
    await revived(group, victim, row)
    return row


async def silenced(group: Group, victim: str) -> dict[str, Any]:
    """Drop every packet from and to a node; then let it return, or start it again where it cannot."""
    struck_s = wall_s()
    group.field.silence(victim)
    row = await detected(group, victim, struck_s)
    healed_s = wall_s()
    group.field.open()
    if group.returns_by_itself:
        try:
            await group.wait_seen(ALIVE, victim, healed_s, RETURN_TIMEOUT_S)
            times = group.book.times(ALIVE, group.others(victim), victim, healed_s)
            row["back_s"] = round(times[-1] - healed_s, 3)
        except WaitedInVain as error:
            row["missed"] = str(error)
    else:
        await group.kill(victim)
        await revived(group, victim, row)
    return row


STRIKES: Final[dict[str, Strike]] = {"kill": killed, "silent": silenced}


async def revived(group: Group, victim: str, row: dict[str, Any]) -> None:
    """Start a killed node again; a round that cannot says so in its row, and the next goes on."""
    try:
        row["revive_s"] = round(await group.revive(victim), 1)
    except WaitedInVain as error:
        row["missed"] = str(error)


async def detected(group: Group, victim: str, struck_s: float) -> dict[str, Any]:
    """Wait until every other node holds `victim` dead; when the first, the median and the last did."""
    others = group.others(victim)
    row: dict[str, Any] = {"victim": victim}
    try:
        await group.wait_seen(DEAD, victim, struck_s, DETECT_TIMEOUT_S)
    except WaitedInVain as error:
        row["missed"] = str(error)
    times = [at_s - struck_s for at_s in group.book.times(DEAD, others, victim, struck_s)]
    if times:
        row |= {
            "first_s": round(times[0], 3),
            "median_s": round(statistics.median(times), 3),
            "every_s": round(times[-1], 3),
        }
    row["others_dead"] = group.book.deaths(struck_s, but=victim, by=others)[:5]
    return row


async def paused(group: Group, victim: str, seconds: float) -> dict[str, Any]:
    """SIGSTOP a whole node for a while; who was held dead, and when all saw it alive after it resumed."""
    struck_s = wall_s()
    group.send(victim, signal.SIGSTOP)
    await rest(seconds)
    group.send(victim, signal.SIGCONT)
    resumed_s = wall_s()
    await rest(CALM_S)
    group.look()
    others = group.others(victim)
    dead = group.book.times(DEAD, others, victim, struck_s)
    row: dict[str, Any] = {"paused_s": seconds, "held_dead_by": len(dead), "back_s": None}
    if dead:
        # Who never held it dead has nothing to take back.
        wrong = [name for name in others if group.book.times(DEAD, [name], victim, struck_s)]
        try:
            await group.wait_seen(ALIVE, victim, dead[0], RETURN_TIMEOUT_S, by=wrong)
            back = group.book.times(ALIVE, others, victim, dead[0])
            row["back_s"] = round(max(0.0, back[-1] - resumed_s), 3)
        except WaitedInVain as error:
            row["missed"] = str(error)
    row["others_dead"] = group.book.deaths(struck_s, but=victim, by=others)[:5]
    return row
