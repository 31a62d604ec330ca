"""Two signed documents that contradict each other are shown after a restart too, until they are seen to."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gossipmesh.agent.admin.policy_alarms import alarm_rows, alarms_of
from gossipmesh.agent.state.alarm_records import KEPT_S, keep_alarms, restore_alarms
from gossipmesh.agent.state.state_store import StateStore
from gossipmesh.agent.state.state_writer import StateWriter
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model import limits
from gossipmesh.model.documents import first_version_of
from gossipmesh.model.instant import WallSeconds
from gossipmesh.testing.builders import VALID_FROM_S, TrustDomainBuilder, access_policy, http_route
from gossipmesh.trust.alarms import DocumentAlarm
from gossipmesh.trust.documents import PolicyRefusal, TrustedDocuments
from gossipmesh.trust.envelope import decode_envelope_untrusted

NOW = WallSeconds(VALID_FROM_S + 100)
LATER = WallSeconds(NOW + 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def builder() -> TrustDomainBuilder:
    return TrustDomainBuilder()


@pytest.fixture
def told_two_stories(builder: TrustDomainBuilder) -> TrustedDocuments:
    """Return documents of a node that was shown two sets of one version, and one far above."""
    documents = builder.documents()
    for documents_of in ([http_route("cart")], [access_policy("cart")]):
        with suppress(PolicyRefusal):
            documents.adopt(documents.check_untrusted(builder.policy_set(5_000, documents_of)))
    return documents


@pytest.fixture
def written(folder: Path, told_two_stories: TrustedDocuments) -> Path:
    run(folder, told_two_stories, NOW)
    return folder


def run(folder: Path, documents: TrustedDocuments, now: WallSeconds) -> None:
    """Have an agent look once, and end."""
    store = StateStore(folder)
    writer = StateWriter(store)
    restore_alarms(store, documents)
    keep_alarms(documents, writer, now)
    writer.flush()
    store.close()


def restarted(folder: Path, builder: TrustDomainBuilder) -> TrustedDocuments:
    documents = builder.documents()
    store = StateStore(folder)
    restore_alarms(store, documents)
    store.close()
    return documents


def records(folder: Path) -> Iterator[bytes]:
    store = StateStore(folder)
    yield from [value for _, value in store.items(PersistKind.ALARM)]
    store.close()


def test_after_a_restart_check_and_status_show_both_proofs(
    written: Path, builder: TrustDomainBuilder
) -> None:
    documents = restarted(written, builder)
    shown = alarms_of(documents, LATER)
    assert sorted(alarm.kind for alarm in shown) == ["jump", "rival-sets"]
    assert {alarm.noted_at for alarm in shown} == {NOW}
    rival = next(alarm for alarm in shown if alarm.kind == "rival-sets")
    payloads = {decode_envelope_untrusted(proof).payload for proof in rival.proofs}
    assert len(payloads) == 2
    assert all(b'"version":5000' in payload for payload in payloads)
    assert [row["mark"] for row in alarm_rows(documents, LATER)] == ["warn", "warn"]
    assert documents.alarms.count == 0, "it was no alarm of this run"


def test_what_is_on_disk_is_written_once(written: Path, builder: TrustDomainBuilder) -> None:
    before = sorted(records(written))
    run(written, restarted(written, builder), LATER)
    assert sorted(records(written)) == before


def test_the_next_generation_settles_them(written: Path, builder: TrustDomainBuilder) -> None:
    """`authority rotate signer` is what undoes a stolen signer."""
    documents = restarted(written, builder)
    trust = builder.trust_document(2, floors={"mesh": first_version_of(1)})
    documents.load_trust_untrusted(builder.sign_trust(trust))
    run(written, documents, LATER)
    assert documents.alarms.kept == []
    assert list(records(written)) == []


def test_they_end_with_their_time(written: Path, builder: TrustDomainBuilder) -> None:
    documents = restarted(written, builder)
    run(written, documents, WallSeconds(NOW + KEPT_S))
    assert len(list(records(written))) == 2
    run(written, documents, WallSeconds(NOW + KEPT_S + 1))
    assert list(records(written)) == []


def test_an_operator_ends_them(written: Path, builder: TrustDomainBuilder) -> None:
    documents = restarted(written, builder)
    for alarm in documents.alarms.kept:
        documents.alarms.forget(alarm)
    run_again = builder.documents()
    store = StateStore(written)
    writer = StateWriter(store)
    keep_alarms(documents, writer, LATER)
    writer.flush()
    restore_alarms(store, run_again)
    store.close()
    assert run_again.alarms.kept == []


def test_what_cannot_be_read_is_left_out(
    written: Path, builder: TrustDomainBuilder, caplog: pytest.LogCaptureFixture
) -> None:
    store = StateStore(written)
    store.put(PersistKind.ALARM, b"noise", b"\xc1", durable=True)
    store.close()
    assert len(restarted(written, builder).alarms.kept) == 2
    assert "a policy alarm on disk is left out" in caplog.text


def test_no_more_are_kept_than_memory_has_room_for(folder: Path, builder: TrustDomainBuilder) -> None:
    documents = builder.documents()
    large = bytes(limits.ALARM_PROOF_BYTES_MAX)
    for number in range(limits.DOCUMENT_ALARMS_MAX + 3):
        documents.alarms.note("jump", "mesh", number + 1, "text", (large, large, large + b"x"))
    assert documents.alarms.count == limits.DOCUMENT_ALARMS_MAX + 3
    run(folder, documents, NOW)
    kept = restarted(folder, builder).alarms.kept
    assert len(kept) == limits.DOCUMENT_ALARMS_MAX
    assert kept[0] == DocumentAlarm("jump", "mesh", 1, "text", (large, large, b""), NOW)
