"""What must hold of a soak, derived from its evidence; pure functions, sentences say what is wrong."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from gossipmesh.testing.growth import growth_of

IDEMPOTENT: Final = ("get", "slow-get", "stream", "tcp")
SHED_FLAG: Final = "UO"
SHED_SHARE_MAX: Final = 0.01
GROWTH_JUDGED_FROM_S: Final = 600.0  # a shorter run is all warming up: floods come twice in it
RSS_STEP_MB: Final = 1.0  # an arena of the allocator
DESCRIPTORS_STEP: Final = 3.0  # a connection, a peer's and a file more or less


def requests_succeed(evidence: dict[str, Any]) -> list[str]:
    """No idempotent request failed, but what was shed, is counted in metrics, and is rare.

    Shed is what is told so (`UO`), and at the node of few descriptors a connection that made way for another
    before its request was read.
    """
    problems, shed = [], 0
    for summary in (evidence["requests"], evidence["mixed"]):
        if summary["answered"] != summary["sent"]:
            problems.append(f"{summary['sent']} were sent, {summary['answered']} accounted for")
        for failure in summary["failures"]:
            made_way = failure["node"] == evidence["poor"] and failure.get("error", "").startswith("closed ")
            if made_way or SHED_FLAG in failure.get("flag", "").split(","):
                shed += 1
            elif failure.get("kind", "get") in IDEMPOTENT:
                problems.append(
                    f"{failure.get('kind', 'get')} of {failure['node']} to {failure['authority']} at "
                    f"{failure['at_s']:.1f} s: {failure.get('error') or failure.get('status')}"
                )
    counted = sum(sum(counts.values()) for counts in evidence["sheds"].values())
    sent = evidence["requests"]["sent"] + evidence["mixed"]["sent"]
    if shed > counted or shed > SHED_SHARE_MAX * sent:
        problems.append(f"{shed} of {sent} requests were shed, {counted:.0f} counted in metrics")
    return problems


def sessions_are_told(evidence: dict[str, Any]) -> list[str]:
    """No session went silent, and there were some."""
    ends = Counter(end["how"] for end in evidence["sessions"])
    problems = [f"{ends['silent']} sessions went silent"] if ends["silent"] else []
    return problems if ends["asked"] else [*problems, "no session came to its natural end"]


def memory_and_descriptors_are_flat(evidence: dict[str, Any]) -> list[str]:
    """Neither resident memory nor open descriptors of any agent or engine grow in the second half.

    An agent's flight recorder fills for half an hour up to a bound of its own: what it says it holds is
    taken off first. Of an agent that was started again in between, that on the full disk, the longest life
    counts. Only runs of GROWTH_JUDGED_FROM_S and longer are judged.
    """
    problems: list[str] = []
    if evidence["length_s"] < GROWTH_JUDGED_FROM_S:
        return problems
    for name, series in judged_series(evidence).items():
        for figure, growth in series.items():
            if not growth["is_flat"]:
                problems.append(f"{figure} of {name}: {growth}")
    return problems


def judged_series(evidence: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return process -> figure -> its growth; samples are [seconds, pid, MB, descriptors, recorder's MB]."""
    judged = {}
    for name, samples in evidence["processes"].items():
        longest_pid = Counter(sample[1] for sample in samples).most_common(1)[0][0]
        mine = [sample for sample in samples if sample[1] == longest_pid]
        judged[name] = {
            "rss_mb": describe([(at_s, mb - known_mb) for at_s, _, mb, _, known_mb in mine], RSS_STEP_MB),
            "descriptors": describe([(sample[0], sample[3]) for sample in mine], DESCRIPTORS_STEP),
        }
    return judged


def describe(samples: list[tuple[float, float]], step: float) -> dict[str, Any]:
    """Return a growth as plain values."""
    growth = growth_of(samples, step)
    return {name: getattr(growth, name) for name in (*growth.__struct_fields__, "is_flat")}


def engines_stay(evidence: dict[str, Any]) -> list[str]:
    """Every engine is the process of the beginning."""
    return [
        f"{name} was {len(pids)} processes"
        for name, samples in evidence["processes"].items()
        if name.startswith("engine") and len(pids := {sample[1] for sample in samples}) != 1
    ]


def nothing_raised(evidence: dict[str, Any]) -> list[str]:
    """No log of an agent, an engine or the authority holds a traceback."""
    return [f"{place['log']}: {place['lines']}" for place in evidence["tracebacks"]]


def everything_happened(evidence: dict[str, Any]) -> list[str]:
    """Each flood opened something, pushes ran on, the disk was full, logs were rotated within their bound."""
    problems = [f"{flood['name']} opened nothing" for flood in evidence["floods"] if not flood["opened"]]
    for what in ("floods", "pushes", "disk", "hangups"):
        if not evidence[what]:
            problems.append(f"there were no {what}")
    wrong = [push for push in evidence["pushes"] if not push["ok"] and not push["excused"]]
    problems += [f"the push at {push['node']} said {push['said']!r}" for push in wrong]
    for name, logs in evidence["access_logs"].items():
        if not logs["rotated"] or logs["bytes"] > logs["bytes_max"]:
            problems.append(f"the access logs of {name} are {logs}")
    return problems


def members_agree(evidence: dict[str, Any]) -> list[str]:
    """At the end everybody is alive everywhere and holds the same."""
    return list(evidence["unfinished"])


CHECKS: Final = (
    requests_succeed,
    sessions_are_told,
    memory_and_descriptors_are_flat,
    engines_stay,
    nothing_raised,
    everything_happened,
    members_agree,
)


def judge(evidence: dict[str, Any]) -> list[dict[str, Any]]:
    """Run every check: `{check, ok, problems}` each."""
    verdicts = [(check.__name__, check(evidence)) for check in CHECKS]
    return [{"check": name, "ok": not found, "problems": found[:50]} for name, found in verdicts]


def is_ok(checks: Iterable[dict[str, Any]]) -> bool:
    """Tell whether all hold."""
    return all(check["ok"] for check in checks)
