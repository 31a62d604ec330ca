"""Cores broken on purpose: each must be noticed by the scenario named beside it."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from gossipmesh.gossip.base.effects import Persist, PersistKind
from gossipmesh.gossip.failure.cases import Evidence
from gossipmesh.gossip.failure.control_rounds import ControlRounds
from gossipmesh.gossip.failure.verdicts import VerdictJudge
from gossipmesh.gossip.intake import Intake
from gossipmesh.gossip.membership.catalog import Catalog
from gossipmesh.gossip.membership.own import OwnRecords
from gossipmesh.gossip.sessions.rivals import Rivals
from gossipmesh.testing.simulator.__main__ import run_seed
from gossipmesh.testing.swim.detector import SwimDetector
from gossipmesh.trust.documents import TrustedDocuments
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.codec import encode

Patch = Callable[[pytest.MonkeyPatch], None]


def no_refutation(patch: pytest.MonkeyPatch) -> None:
    """A node that is called dead does not answer."""
    patch.setattr(Intake, "_answer", lambda self, sender: None)
    patch.setattr(Intake, "_refute_verdict", lambda self, *told: None)


def floors_fall(patch: pytest.MonkeyPatch) -> None:
    """An older policy set is as good as a newer one."""
    patch.setattr(TrustedDocuments, "floor", lambda self, scope: (0, b""))


def signatures_unchecked(patch: pytest.MonkeyPatch) -> None:
    """Every signature verifies."""
    patch.setattr(Verifier, "verify", lambda self, public_key, message, signature: True)


def epoch_not_synced(patch: pytest.MonkeyPatch) -> None:
    """The epoch is written, and lost with the power."""

    def persist_epoch(self: Any, then: Any) -> None:
        ticket = self._ctx.writes.begin(then)
        self._ctx.emit(
            Persist(PersistKind.EPOCH, b"", encode(self.epoch_ahead), durable=False, ticket=ticket)
        )

    patch.setattr(OwnRecords, "persist_epoch", persist_epoch)


def epoch_stays(patch: pytest.MonkeyPatch) -> None:
    """A start goes on in the incarnation before it."""
    original = OwnRecords.__init__

    def init(self: Any, ctx: Any, catalog: Any, credential: Any, profile: Any, epoch: int) -> None:
        original(self, ctx, catalog, credential, profile, max(1, epoch - 1))

    patch.setattr(OwnRecords, "__init__", init)


def no_obituaries(patch: pytest.MonkeyPatch) -> None:
    """Nobody speaks to the dead, so halves that parted never meet."""
    patch.setattr(SwimDetector, "_obituary", lambda self: None)


def stale_records_win(patch: pytest.MonkeyPatch) -> None:
    """The last record to arrive wins, whatever its order."""
    patch.setattr(Catalog, "_overtaken", lambda self, member, record, order: False)


def hasty_deaths(patch: pytest.MonkeyPatch) -> None:
    """One probe that fails is a death: no suspicion, no help, no question."""
    patch.setattr(SwimDetector, "_ask_others", SwimDetector._conclude)
    original = SwimDetector._claim

    def claim(self: Any, member: Any, order: Any, status: Any) -> None:
        original(self, member, order, type(status).DEAD)

    patch.setattr(SwimDetector, "_claim", claim)


def lone_votes(patch: pytest.MonkeyPatch) -> None:
    """One monitor's vote is a quorum, and nobody asks whether it hears anybody."""
    patch.setattr(VerdictJudge, "needed", lambda self, target: 1)
    patch.setattr(ControlRounds, "passed", property(lambda self: True))
    patch.setattr(ControlRounds, "failed", property(lambda self: False))


def deaf_to_life(patch: pytest.MonkeyPatch) -> None:
    """What is heard of a target withdraws nothing and restarts no clock."""
    patch.setattr(Evidence, "lived", lambda *_, **__: False)
    patch.setattr(Evidence, "answered", lambda *_, **__: False)


def copies_unasked(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks where a newer state of its own came from, or where it was: each signs above the other."""

    def may_start(self: Any, seeds: Any) -> bool:
        self.seeds = seeds
        return True

    patch.setattr(Rivals, "may_start", may_start)
    patch.setattr(OwnRecords, "contest", lambda self, state: False)


def rulings_ignored(patch: pytest.MonkeyPatch) -> None:
    """Whoever is told that the other goes on goes on as well."""
    patch.setattr(Rivals, "_outlived", lambda self, address: None)


OF_SWIM = (no_obituaries, hasty_deaths)
MUTANTS: list[tuple[Patch, str, str]] = [
    (no_refutation, "partition-heal", "not everyone is alive|state sums differ|false death"),
    (floors_fall, "byzantine-policy", "had to be refused|nobody signed"),
    (signatures_unchecked, "byzantine-policy", "had to be refused|nobody signed"),
    (signatures_unchecked, "byzantine-records", "never signed|never published|epoch without end|false death"),
    (epoch_not_synced, "rejoin-without-seed", "not on its disk|started again within|went back"),
    (epoch_stays, "rejoin-without-seed", "started again within|went back"),
    (no_obituaries, "partition-heal", "not everyone is alive|state sums differ"),
    (stale_records_win, "steady", "went back|state sums differ|does not come to rest"),
    (hasty_deaths, "steady", "false death"),
    (lone_votes, "partition-heal", "condemned somebody|false death|state sums differ"),
    (deaf_to_life, "pause", "false death|given up"),
    (copies_unasked, "copied-state", "runs on beside|signed for in|to and fro|ended|signed anew"),
    (rulings_ignored, "copied-state", "runs on beside"),
]


@pytest.mark.parametrize(
    ("mutant", "scenario", "noticed"),
    MUTANTS,
    ids=[f"{mutant.__name__}-{name}" for mutant, name, _ in MUTANTS],
)
def test_a_broken_core_is_noticed(
    mutant: Patch, scenario: str, noticed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    # A fault draws what it does from the seed, so one seed may spare the mutant.
    verifier = Verifier(200_000)
    detector = "swim" if mutant in OF_SWIM else "monitors"
    results = (
        run_seed(scenario, seed, nodes_count=12, loss_ratio=0.05, verifier=verifier, detector=detector)
        for seed in (1, 2)
    )
    result = next((result for result in results if not result["ok"]), {"ok": True})
    assert not result["ok"], "nobody noticed"
    assert re.search(noticed, result["failures"][0]), result["failures"][0]
