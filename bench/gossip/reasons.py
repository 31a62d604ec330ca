"""What is known of why a gate is missed: shown beside a miss, and only then."""

from typing import Final

from bench.gossip.row import VIRTUAL, WALL, Row

REASONS: Final = (
    (
        "G4",
        VIRTUAL,
        "",
        "whom neither the push nor the two early ticks reached learns at the next tick, and verdicts go "
        "by name, their bodies to who asks: half the bytes of many deaths, one more exchange for the last",
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
        "half of what the busiest send is bodies of verdicts, given by whoever learned first to 25 and "
        "more who ask, and ten verdicts are made within one second; a bound on bodies would make a rack "
        "that dies at once known some ten seconds later; the independent model had 25 KB/s",
    ),
    (
        "G15",
        WALL,
        "",
        "work in Python, not signatures, which are a tenth of it: 6,500 to 13,500 datagrams of forty agents, "
        "and 120 to 230 ms of CPU an agent, on two cores",
    ),
    ("G15", VIRTUAL, "", "not every seed meets it"),
    (
        "G17",
        VIRTUAL,
        "24 h asleep",
        "every credential was renewed, so as many records differ as there are nodes, and nodes that compare "
        "wait while what they hold still moves; where two records differ it takes a quarter of the time",
    ),
    (
        "G20",
        WALL,
        "CPU of the gossiping",
        "the agent wakes some ten times a second, for heartbeats of its own and packets of others, and "
        "a wake-up of Python and its loop is 0.4 to 0.5 ms with cold caches; a bare sleep costs 0.04",
    ),
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
