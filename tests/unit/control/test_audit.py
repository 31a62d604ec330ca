"""The log of what an authority did: what it holds, that it is on disk first, and that tampering is found."""

import os
from pathlib import Path

import pytest

from gossipmesh.control import audit
from gossipmesh.control.audit import AuditLog, Deed
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import WallSeconds

NOW = WallSeconds(1_800_000_000)


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path)
    for number in range(6):
        log.append(NOW, "renewed", node=f"n{number % 2}", peer="10.0.0.1", serial=number + 1)
    return log


def lines(log: AuditLog) -> list[Deed]:
    return list(log.deeds())


def first_file(folder: Path) -> Path:
    return folder / "log" / "000001.jsonl"


def test_deeds_are_read_back_in_order_and_by_node(tmp_path: Path, log: AuditLog) -> None:
    assert [deed.number for deed in lines(log)] == [1, 2, 3, 4, 5, 6]
    assert [deed.serial for deed in log.deeds("n1")] == [2, 4, 6]
    assert first_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_another_process_goes_on_where_this_one_ended(tmp_path: Path, log: AuditLog) -> None:
    """A command beside the server: each reads what the other wrote before it writes."""
    other = AuditLog(tmp_path)
    other.append(NOW, "revoked", node="n1")
    log.append(NOW, "renewed", node="n0")
    assert [deed.what for deed in lines(log)][-2:] == ["revoked", "renewed"]
    fresh = AuditLog(tmp_path)
    assert fresh.catch_up() is None
    assert fresh.count == 8


def test_what_a_stranger_had_a_hand_in_stays_one_line(tmp_path: Path, log: AuditLog) -> None:
    log.append(NOW, "refused", node="n1", detail="x\n{}\x1b[2K" + 500 * "y")
    assert first_file(tmp_path).read_bytes().count(b"\n") == 7
    assert lines(log)[-1].detail.startswith("x?{}?[2Kyyy")
    assert len(lines(log)[-1].detail) == audit.DETAIL_CHARS_MAX


def tampered_number(content: bytes) -> bytes:
    return content.replace(b'"serial":3', b'"serial":4')


def without_a_line(content: bytes) -> bytes:
    kept = content.splitlines(keepends=True)
    return b"".join(kept[:2] + kept[3:])


def reordered(content: bytes) -> bytes:
    kept = content.splitlines(keepends=True)
    return b"".join([*kept[:2], kept[3], kept[2], *kept[4:]])


def with_noise(content: bytes) -> bytes:
    return content + b"noise\n"


def without_its_beginning(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[1:])


@pytest.mark.parametrize(
    "change", [tampered_number, without_a_line, reordered, with_noise, without_its_beginning]
)
def test_a_chain_that_does_not_hold_is_told(tmp_path: Path, log: AuditLog, change: object) -> None:
    path = first_file(tmp_path)
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(OperatorError, match=r"does not hold: .*000001\.jsonl line \d"):
        AuditLog(tmp_path).catch_up()
    with pytest.raises(OperatorError):
        AuditLog(tmp_path).append(NOW, "renewed")


def test_a_line_that_a_crash_tore_is_cut_off_and_told(tmp_path: Path, log: AuditLog) -> None:
    path = first_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"before":"12')
    fresh = AuditLog(tmp_path)
    assert "torn by a crash" in (fresh.catch_up() or "")
    assert path.read_bytes() == whole
    fresh.append(NOW, "renewed")
    assert AuditLog(tmp_path).catch_up() is None


def test_files_follow_each_other_and_the_oldest_may_be_archived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "FILE_BYTES_MAX", 400)
    log = AuditLog(tmp_path)
    for number in range(12):
        log.append(NOW, "renewed", node="n1", serial=number + 1)
    files = sorted((tmp_path / "log").iterdir())
    assert len(files) > 3
    assert len(lines(log)) == 12
    files[0].unlink()
    fresh = AuditLog(tmp_path)
    assert fresh.catch_up() is None
    assert fresh.count == 12
    files[2].unlink()
    with pytest.raises(OperatorError, match="does not hold"):
        AuditLog(tmp_path).catch_up()


def test_a_disk_that_is_full_leaves_the_log_as_it_was(
    tmp_path: Path, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = first_file(tmp_path).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, line: len(line) // 2)
        with pytest.raises(OperatorError, match="No space left"):
            log.append(NOW, "renewed")
    assert first_file(tmp_path).read_bytes() == before
    log.append(NOW, "renewed")
    assert AuditLog(tmp_path).catch_up() is None
