"""An agent's log as evidence: what it says is read, what it is not is passed over."""

from gossipmesh.testing.agent_log import EngineStep, StatusDeclared, read_agent_log, replacement_s

LOG = b"""\
{"time": "1970-01-01T00:01:00.500Z", "level": "info", "message": "engine started", "pid": 7}
{"time": "1970-01-01T00:01:01.000Z", "level": "info", "message": "member is alive", "member": "n2"}
Traceback (most recent call last):
{"time": "1970-01-01T00:01:10.000Z", "level": "warning", "message": "the engine is gone: closed", "pid": 7}
{"time": "1970-01-01T00:01:10.000Z", "level": "info", "message": "engine does not serve"}
{"time": "1970-01-01T00:01:10.250Z", "level": "info", "message": "engine started", "pid": 8}
{"time": "1970-01-01T00:01:10.500Z", "level": "info", "message": "engine serves"}
{"time": "1970-01-01T00:01:12.000Z", "level": "info", "message": "member is dead", "member": "n3"}
{"level": "warning", "message": "log records dropped", "count": 3}
{"time": "1970-01-01T00:01:13.000Z", "level": "info", "message": "member is de"""


def test_statuses_and_steps_are_read_and_a_torn_line_is_none() -> None:
    declared, steps = read_agent_log(LOG, "n1", 60.0)
    assert declared == [StatusDeclared(1.0, "n1", "n2", "alive"), StatusDeclared(12.0, "n1", "n3", "dead")]
    assert [(step.at_s, step.step) for step in steps] == [
        (0.5, "started"),
        (10.0, "gone"),
        (10.25, "started"),
        (10.5, "serves"),
    ]


def test_a_replacement_is_told_in_seconds_since_the_fault() -> None:
    steps = [
        *read_agent_log(LOG, "n1", 60.0)[1],
        EngineStep(20.0, "n1", "started"),
        EngineStep(10.0, "n2", "gone"),
    ]
    assert replacement_s(steps, "n1", 9.5) == {"gone": 0.5, "started": 0.75, "serves": 1.0}
    assert replacement_s(steps, "n3", 9.5) == {}
    assert replacement_s([EngineStep(12.0, "n1", "serves")], "n1", 9.5) == {}
