"""What is to be looked at in Trust and policy: by date, by what was noted, by who speaks as whom."""

import logging
from collections.abc import Sequence

import pytest
import trio

from gossipmesh.agent.admin import policy_alarms
from gossipmesh.agent.admin.policy_alarms import alarm_rows, alarms_of, unregistered_rows, watch_alarms
from gossipmesh.agent.state.state_writer import StateWriter
from gossipmesh.model.instant import DAY_S, WallSeconds
from gossipmesh.model.policy import API_VERSIONS, MeshPolicy, MeshPolicySpec, Metadata, Unregistered
from gossipmesh.testing.builders import VALID_UNTIL_S, TrustDomainBuilder
from gossipmesh.traffic.compiler import SnapshotCompiler
from gossipmesh.traffic.inputs import PolicyInput
from gossipmesh.trust.documents import TrustedDocuments
from tests.unit.traffic.builders import inputs

LATE = WallSeconds(VALID_UNTIL_S + 3 * DAY_S)
IN_TIME = WallSeconds(VALID_UNTIL_S)


def running(version: int = 5) -> TrustedDocuments:
    """Return documents with one set in force."""
    builder = TrustDomainBuilder()
    documents = builder.documents()
    documents.adopt(documents.check_untrusted(builder.policy_set(version)))
    return documents


def test_a_set_past_its_date_is_an_alarm_and_stays_in_force() -> None:
    documents = running()
    assert alarms_of(documents, IN_TIME) == []
    (alarm,) = alarms_of(documents, LATE)
    assert (alarm.kind, alarm.scope, alarm.version) == ("overdue", "mesh", 5)
    assert "3 days ago" in alarm.text
    assert documents.in_force("mesh") is not None


def test_each_alarm_is_a_row_that_says_what_to_do() -> None:
    rows = alarm_rows(running(version=5_000), LATE)
    assert [(row["mark"], row["evidence"]["kind"]) for row in rows] == [("warn", "overdue"), ("warn", "jump")]
    assert all(row["why"] and row["hint"] for row in rows)


class Disk:
    """Takes everything."""

    def __init__(self) -> None:
        self.order = trio.Lock()

    def put_all(self, entries: Sequence[tuple[str, bytes, bytes | None]], *, durable: bool) -> None:
        """Keep nothing."""


async def test_each_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    monkeypatch.setattr(policy_alarms, "wall_seconds", lambda: LATE)
    with caplog.at_level(logging.ERROR), trio.move_on_after(60):
        await watch_alarms(running(), StateWriter(Disk()))
    assert len(caplog.records) == 1
    assert "push the scope again" in caplog.text


@pytest.mark.parametrize(
    ("word", "workloads", "is_said"),
    [
        (None, None, False),
        (Unregistered.WORKLOADS, None, True),
        (Unregistered.WORKLOADS, "spiffe://mesh.example/node/n0/workloads", False),
        (Unregistered.DENY, None, False),
    ],
)
def test_a_missing_identity_of_the_workloads_is_said(
    word: Unregistered | None, workloads: str | None, is_said: bool
) -> None:
    policies = () if word is None else (PolicyInput(_mesh_policy(word), 1),)
    snapshot = SnapshotCompiler().compile(inputs(policies=policies, workloads=workloads))
    assert bool(unregistered_rows(snapshot)) is is_said
    assert unregistered_rows(None) == []


def _mesh_policy(word: Unregistered) -> MeshPolicy:
    return MeshPolicy(API_VERSIONS["MeshPolicy"], Metadata("mesh"), MeshPolicySpec(word))
