"""Named scenarios of machines whose civil clocks are off: who says so, and that nobody is forgotten for it.

A part of `scenarios`. Credentials end in them, and are renewed without being dated back.
"""

from collections.abc import Callable, Sequence
from typing import Final

from gossipmesh.model.instant import DAY_S, HOUR_S, MINUTE_S, SECOND_NS
from gossipmesh.model.member import MemberStatus
from gossipmesh.testing.simulator.host import WALL_START_S, Host
from gossipmesh.testing.simulator.priming import boot_known
from gossipmesh.testing.simulator.revocations import turn_keys
from gossipmesh.testing.simulator.run import Run

_TOLERATED_S: Final = 5 * MINUTE_S
_ALARMED_NS_MAX: Final = 60 * SECOND_NS
_DOUBT_NS: Final = 660 * SECOND_NS  # beyond the ten minutes for which a clock that jumped is doubted
_DETECT_NS: Final = 20 * SECOND_NS
_LOOK_NS: Final = 5 * SECOND_NS
_STAY_NS: Final = 20 * SECOND_NS
_YEAR_S: Final = 365 * DAY_S


def minutes(run: Run) -> None:
    """Every clock is off by up to five minutes, two of them by all of it: that changes nothing."""
    run.factory.credential_ends = WALL_START_S + 3 * _TOLERATED_S
    for host in run.hosts:
        host.wall_skew_s = run.script.randint(-_TOLERATED_S, _TOLERATED_S)
    run.hosts[0].wall_skew_s, run.hosts[-1].wall_skew_s = _TOLERATED_S, -_TOLERATED_S
    run.boot_and_settle()
    _live_on(run, _TOLERATED_S * SECOND_NS)
    _renew_all(run, 2 * HOUR_S)
    _live_on(run, 3 * _TOLERATED_S * SECOND_NS)
    _require_off(run, [])
    run.settle()


def an_hour(run: Run) -> None:
    """One clock jumps an hour ahead and another an hour back: both say so, and nobody is forgotten."""
    run.factory.credential_ends = WALL_START_S + HOUR_S - 5 * MINUTE_S
    run.boot_and_settle()
    fast, slow = run.sample(2)
    run.world.jump_clock(fast, HOUR_S)
    run.world.jump_clock(slow, -HOUR_S)
    _wait_off(run, [fast, slow], "alarmed_s")
    _live_on(run, _DOUBT_NS)
    _renew_all(run, 2 * HOUR_S)
    run.settle()
    gone = run.pick(but_not=[fast, slow])
    run.world.kill_node(gone)
    run.wait_status(gone, MemberStatus.DEAD, _DETECT_NS)
    run.world.start(gone)
    run.publish(gone)
    run.wait_all_alive(_ALARMED_NS_MAX)
    run.world.jump_clock(fast, -HOUR_S)
    run.world.jump_clock(slow, HOUR_S)
    _wait_off(run, [], "right_again_s")
    run.settle()


def a_year(run: Run) -> None:
    """A machine comes up with its clock a year ahead, and then a year back, and finds its members on disk.

    Until it was set right it takes part as everyone does, and knows whom it knew.
    """
    run.factory.credential_ends = WALL_START_S + HOUR_S
    run.boot_and_settle()
    _renew_all(run, HOUR_S)
    run.settle()
    wrong = run.pick(but_not=[run.hosts[0]])
    for by_s in (_YEAR_S, -_YEAR_S):
        run.world.kill_agent(wrong)
        wrong.wall_skew_s += by_s
        run.world.faults.fire("clock-jump")
        run.world.start(wrong)
        run.publish(wrong)
        _wait_off(run, [wrong], f"{'ahead' if by_s > 0 else 'back'}_alarmed_s")
        below_s = run.core(wrong).statistics().clock_below_records_s
        run.require((below_s > 0) is (by_s < 0), f"{wrong.name} is {below_s} s below what was signed")
        _live_on(run, _DOUBT_NS)
        _renew_all(run, HOUR_S)
        run.settle()
        run.world.jump_clock(wrong, -by_s)
        _wait_off(run, [], "right_again_s")
    run.settle()


def many(run: Run) -> None:
    """In a mesh that knows itself all clocks are off by up to five minutes, then one by an hour, either way.

    Every credential ends before the hour is over: by that one clock everybody has ended.
    """
    run.factory.credential_ends = WALL_START_S + HOUR_S - 5 * MINUTE_S
    for host in run.hosts:
        host.wall_skew_s = run.script.randint(-_TOLERATED_S, _TOLERATED_S)
    boot_known(run, prepare=turn_keys)
    _stay(run, [])
    wrong = run.pick(but_not=[run.hosts[0]])
    for by_s, name in ((HOUR_S, "ahead"), (-HOUR_S, "behind")):
        run.world.jump_clock(wrong, by_s)
        _wait_off(run, [wrong], f"{name}_alarmed_s")
        _stay(run, [wrong])
        run.world.kill_agent(wrong)
        run.world.run_for(SECOND_NS)
        run.world.start(wrong)  # it finds everybody on its disk, whose time is over by its clock
        run.publish(wrong)
        turn_keys(run, wrong)
        _wait_off(run, [wrong], f"{name}_restarted_alarmed_s")
        _stay(run, [wrong])
        run.world.jump_clock(wrong, -by_s)
        _wait_off(run, [], f"{name}_right_again_s")
    run.wait_equal_sums(run.invariants.converge_ns)


def _stay(run: Run, off: Sequence[Host]) -> None:
    """Let time pass: all have all alive, and these alone say that their clocks are off."""
    run.world.run_for(_STAY_NS)
    for host in run.running():
        tally = run.core(host).tally()
        alive = tally.by_status[MemberStatus.ALIVE]
        run.require(alive == len(run.hosts), f"{host.name} has {alive} of {len(run.hosts)} alive")
    _require_off(run, off)


def _renew_all(run: Run, life_s: int) -> None:
    """Give everybody a credential that is dated now by the true time, and live on for a while."""
    for host in run.hosts:
        now_s = WALL_START_S + run.world.now_ns // SECOND_NS
        run.renew(host, now_s + life_s, not_before=now_s)
        run.world.run_for(run.draw_ns(0.1, 1))


def _live_on(run: Run, for_ns: int) -> None:
    """Let time pass; nobody forgets anybody, and nobody is held dead."""
    until_ns = run.world.now_ns + for_ns
    while run.world.now_ns < until_ns:
        run.world.run_for(_LOOK_NS)
        _require_all_known(run)
    run.require_nobody_dead("a clock killed somebody")


def _require_all_known(run: Run) -> None:
    for host in run.running():
        known = len(run.core(host).members())
        run.require(known == len(run.hosts), f"{host.name} knows {known} of {len(run.hosts)}")


def _off(run: Run) -> list[str]:
    """Return who says that its own clock is off."""
    return [host.name for host in run.running() if run.core(host).statistics().clock_off]


def _require_off(run: Run, hosts: Sequence[Host]) -> None:
    names = [host.name for host in run.running() if host in hosts]
    run.require(_off(run) == names, f"{_off(run)} say that their clocks are off, not {names}")


def _wait_off(run: Run, hosts: Sequence[Host], figure: str) -> None:
    """Let time pass until these say that their clocks are off, and they alone; meanwhile nobody else does."""
    began_ns, wrong = run.world.now_ns, {host.name for host in hosts}
    while set(_off(run)) != wrong and run.world.now_ns - began_ns < _ALARMED_NS_MAX:
        run.world.run_for(SECOND_NS)
    _require_off(run, hosts)
    run.measure(figure, run.world.now_ns - began_ns)


WRONG_CLOCKS: Final[dict[str, Callable[[Run], None]]] = {
    "clocks-minutes": minutes,
    "clocks-hour": an_hour,
    "clocks-year": a_year,
    "clocks-many": many,
}
