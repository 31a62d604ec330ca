"""What is known of why a gate is missed: shown beside a miss, and only then."""

from typing import Final

from bench.gossip.row import VIRTUAL, WALL, Row

REASONS: Final = (
    (
        "G3",
        VIRTUAL,
        "seconds after",
        "the mesh was six seconds old: until eight round trips are measured, "
        "which takes sixteen, a probe waits 500 ms for its answer instead of 100, and a silence is noticed "
        "up to 0.4 s later",
    ),
    (
        "G4",
        VIRTUAL,
        "",
        "whom no push reached learns at a tick, 200 ms later, and certificates go by name, their bodies to "
        "who asks: half the bytes of many deaths, one more exchange for the last to know",
    ),
    (
        "G9",
        VIRTUAL,
        "policy set",
        "the set goes by stream, where a lost segment costs a retransmission of 200 ms: likely the tail",
    ),
    ("G12", WALL, "", "the link's count holds TCP and ARP as well, which this run did not tell apart"),
    (
        "G14",
        VIRTUAL,
        "",
        "looked at with 100 nodes: half of it is bodies of certificates, given by whoever learned first to "
        "25 to 37 who ask; the "
        "median node sends half as much; the design's own model had 25 KB/s",
    ),
    (
        "G15",
        WALL,
        "",
        "packets, not signatures, which are a tenth of the CPU: 12,400 datagrams of forty agents at some "
        "0.3 ms at either end, on two cores",
    ),
    ("G15", VIRTUAL, "", "not every seed meets it"),
    (
        "G17",
        VIRTUAL,
        "24 h asleep",
        "every credential was renewed, so as many records differ as there are nodes, and nodes that compare "
        "wait while what they hold still moves; where two records differ it takes a quarter of the time",
    ),
    ("G20", WALL, "CPU of the gossiping", "the figure is of the whole agent, which does more than gossip"),
    (
        "G20",
        VIRTUAL,
        "",
        "three signature checks a member are more than half of it, 117 us each; the rest is small pieces",
    ),
)


def reason_for(row: Row) -> str | None:
    """Return what is known of why a row misses its gate."""
    for figure, clock, part, reason in REASONS:
        if (row.figure, row.clock) == (figure, clock) and part in row.name:
            return reason
    return None
