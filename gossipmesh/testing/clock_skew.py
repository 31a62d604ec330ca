"""One node's clock is set an hour ahead, and back, while the mesh works: the step, and what is judged."""

from collections.abc import Iterable
from typing import Any, Final

import trio

from gossipmesh.model.instant import HOUR_S
from gossipmesh.testing.evidence import Evidence
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.shifted_clocks import ShiftedClocks
from gossipmesh.testing.waiting import WaitedInVain, wait_until

SKEW_CLOCK: Final = "skew-clock"
_LIVED_ON_S: Final = 10.0
_SKEWS: Final = {"ahead": HOUR_S, "behind": -HOUR_S}


async def skew_clock(mesh: Mesh, victim: str, within_s: float) -> dict[str, Any]:
    """Set a node's clock an hour ahead, right, an hour behind and right again, and live on with each.

    Returns after how long its `clock` check failed (`ahead_alarmed_s`, `behind_alarmed_s`) and held again
    (`..._right_s`), None for not `within_s`; and who else said meanwhile that its clock was off.
    """
    clocks, detail, others = ShiftedClocks(mesh), {}, set[str]()
    for which, by_s in _SKEWS.items():
        for part, set_to_s, is_ok in ((f"{which}_alarmed_s", by_s, False), (f"{which}_right_s", 0, True)):
            clocks.set([victim], set_to_s)
            detail[part] = await _wait_clock_check(mesh, victim, is_ok, within_s)
            await trio.sleep(_LIVED_ON_S)
            others |= await _alarmed(mesh, [name for name in mesh.nodes if name != victim], within_s)
    return {**detail, "others_alarmed": sorted(others)}


async def _wait_clock_check(mesh: Mesh, name: str, is_ok: bool, within_s: float) -> float | None:
    async def differs() -> str | None:
        return None if await _clock_ok(mesh, name) is is_ok else f"the check is still {not is_ok}"

    try:
        return round(await wait_until(f"the clock of {name} is {is_ok}", differs, within_s), 3)
    except WaitedInVain:
        return None


async def _alarmed(mesh: Mesh, names: Iterable[str], within_s: float) -> set[str]:
    """Return which of these say that their clocks are off."""
    found = set[str]()

    async def asked() -> str | None:
        found.clear()
        found.update([name for name in names if not await _clock_ok(mesh, name)])
        return None

    await wait_until("all have told of their clocks", asked, within_s)
    return found


async def _clock_ok(mesh: Mesh, name: str) -> bool:
    rows = {row["name"]: row for row in await mesh.nodes[name].ask("/v1/check")}
    return bool(rows["clock"]["ok"])


def finally_a_wrong_clock_alarms(evidence: Evidence, within_s: float) -> list[str]:
    """Whose clock was off said so in time, and when it was right again; nobody else did."""
    problems = []
    for fault in (fault for fault in evidence.faults if fault.kind == SKEW_CLOCK):
        for part, took_s in fault.detail.items():
            if part.endswith("_s") and (took_s is None or took_s > within_s):
                problems.append(f"{part} of {fault.node} was {took_s}, bound {within_s:g}")
        if fault.detail["others_alarmed"]:
            problems.append(f"{fault.detail['others_alarmed']} say that their clocks are off")
    return problems
