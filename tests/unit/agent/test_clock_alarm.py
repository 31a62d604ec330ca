"""What the log says of this node's clock: what, how far, why it matters and what to do; once each way."""

import logging

import pytest

from gossipmesh.agent.clock_alarm import tell_clock
from gossipmesh.gossip.base.effects import ClockBelowRecords, ClockOff

SAID = {
    ClockOff(3_600, 4): ("ERROR", "is 3600 s behind the median of 4 peers", "nobody is forgotten"),
    ClockOff(-3_600, 15): ("ERROR", "is 3600 s ahead of the median of 15 peers", "run NTP on this machine"),
    ClockOff(-900, 2): ("ERROR", "is 900 s ahead of what 2 of its peers say", "too few to tell whose is off"),
    ClockOff(0, 4): ("INFO", "agrees with its peers' again", ""),
    ClockBelowRecords(86_400): ("ERROR", "is 86400 s behind the newest date", "run NTP on this machine"),
    ClockBelowRecords(0): ("INFO", "is past what the authority signed again", ""),
}


@pytest.mark.parametrize("event", list(SAID))
def test_each_turn_is_a_line(event: ClockOff | ClockBelowRecords, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gossipmesh.agent")
    tell_clock(event)
    (record,) = caplog.records
    level, what, do = SAID[event]
    assert record.levelname == level
    assert record.getMessage().startswith(f"this node's clock {what}")
    assert do in record.getMessage()
