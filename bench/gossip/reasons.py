"""What is known of why a gate is missed: shown beside a miss, and only then."""

from typing import Final

from bench.gossip.row import VIRTUAL, WALL, Row

REASONS: Final = (
    (
        "G8",
        VIRTUAL,
        "80 %",
        "three changes in two minutes at the observer that saw most: out within the bound, back, out again",
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
        "streams are counted, and ten nodes are a tenth of this mesh; the design's own model had 25 KB/s",
    ),
    (
        "G15",
        WALL,
        "",
        "not analysed; forty agents join at one moment on two cores, which virtual time gives for nothing",
    ),
    ("G15", VIRTUAL, "", "not every seed meets it"),
    (
        "G16",
        VIRTUAL,
        "",
        "the queue holds an update per record, three a member (credential, state, services); it stayed "
        "below three times the members",
    ),
    ("G20", WALL, "", "the figure is of the whole agent, which does more than gossip"),
    (
        "G20",
        VIRTUAL,
        "",
        "three signature checks a member, at the 136 us each that the design counts with, are 4.1 s of it",
    ),
)


def reason_for(row: Row) -> str | None:
    """Return what is known of why a row misses its gate."""
    for figure, clock, part, reason in REASONS:
        if (row.figure, row.clock) == (figure, clock) and part in row.name:
            return reason
    return None
