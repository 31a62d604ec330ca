"""The file of lines: bounded by size, count and the disk; nothing that goes wrong ends anything."""

import errno
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gossipmesh.dataplane.reference import log_file
from gossipmesh.dataplane.reference.log_file import LogFile, Written
from gossipmesh.model.access_log import AccessLogSettings

ROOT = Path(__file__).resolve().parents[3]


def settings(folder: Path, *, bytes_max: int = 1_000, files_max: int = 3) -> AccessLogSettings:
    return AccessLogSettings(folder / "access.log", bytes_max, files_max)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[LogFile]:
    made = LogFile(settings(tmp_path))
    yield made
    made.close()


def told(written: Written) -> tuple[int, int]:
    """Return (errors, lines shed)."""
    return written.errors_count, written.shed_count


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_rotated_by_size_and_only_so_many_are_kept(tmp_path: Path, file: LogFile) -> None:
    for number in range(60):
        assert told(file.write([f"{number:03d}" + "x" * 96])) == (0, 0)
    assert names(tmp_path) == ["access.log", "access.log.1", "access.log.2"]
    texts = [(tmp_path / name).read_text().splitlines() for name in reversed(names(tmp_path))]
    assert [line[:3] for lines in texts for line in lines] == [f"{number:03d}" for number in range(30, 60)]
    assert all(path.stat().st_size <= 1_000 for path in tmp_path.iterdir())
    assert stat.S_IMODE((tmp_path / "access.log").stat().st_mode) == 0o640


def test_one_file_alone_begins_anew(tmp_path: Path) -> None:
    file = LogFile(settings(tmp_path, files_max=1))
    for number in range(25):
        file.write([f"{number:03d}" + "x" * 96])
    file.close()
    assert names(tmp_path) == ["access.log"]
    assert len((tmp_path / "access.log").read_text().splitlines()) == 5


def test_fewer_to_keep_than_before_removes_the_rest(tmp_path: Path) -> None:
    for number in range(1, 8):
        (tmp_path / f"access.log.{number}").write_text("old\n")
    file = LogFile(settings(tmp_path, files_max=2))
    for _ in range(2):
        file.write(["x" * 900])
    file.close()
    assert names(tmp_path) == ["access.log", "access.log.1"]


def test_the_folder_is_made_when_it_alone_is_missing(tmp_path: Path) -> None:
    LogFile(settings(tmp_path / "log")).close()
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o750
    with pytest.raises(FileNotFoundError):
        LogFile(settings(tmp_path / "no" / "such"))


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_what_is_no_file_is_refused_at_the_start(tmp_path: Path, kind: str) -> None:
    """A pipe would hold the engine in open() or write(); a link leads who knows where."""
    path = tmp_path / "access.log"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "other")
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"regular file|symbolic link|Is a directory"):
        LogFile(settings(tmp_path))
    assert not (tmp_path / "other").exists()


def test_a_device_has_no_size_and_is_written_to(tmp_path: Path) -> None:
    file = LogFile(AccessLogSettings(Path("/dev/null"), 100))
    assert told(file.write(["x" * 99] * 50)) == (0, 0)
    file.close()


def test_a_line_cut_short_earlier_is_closed_first(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text('{"half":')
    file = LogFile(settings(tmp_path))
    file.write(["whole"])
    file.close()
    assert (tmp_path / "access.log").read_text() == '{"half":\nwhole\n'


@pytest.mark.parametrize("how", ["rename", "unlink", "truncate", "hangup"])
def test_others_may_rotate_it_or_remove_it(tmp_path: Path, file: LogFile, how: str) -> None:
    path = tmp_path / "access.log"
    file.write(["first"])
    if how == "truncate":
        os.truncate(path, 0)
    elif how == "unlink":
        path.unlink()
    else:
        path.rename(tmp_path / "moved")
    if how == "hangup":
        file.reopen()
        assert told(file.write([])) == (0, 0)
        assert path.read_text() == ""
    assert told(file.write(["second"])) == (0, 0)
    assert path.read_text() == "second\n"


def test_a_folder_that_forbids_rotation_bounds_the_file_and_says_so(
    tmp_path: Path, file: LogFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    file.write(["x" * 900])
    assert told(file.write(["y" * 900])) == (1, 1)
    assert told(file.write(["y" * 900] * 2)) == (1, 2)
    assert (tmp_path / "access.log").stat().st_size == 901
    assert [record.message for record in caplog.records if "Permission denied" in record.message] == [
        caplog.records[0].message
    ]
    monkeypatch.undo()
    assert told(file.write(["z"])) == (0, 0)


def test_a_write_that_fails_midway_counts_what_was_lost_and_goes_on_in_a_new_line(
    tmp_path: Path, file: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [8]
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        size = real(descriptor, bytes(data[: room[0]]))
        room[0] -= size
        return size

    monkeypatch.setattr(os, "write", write)
    assert told(file.write(["aaaa", "bbbb", "cccc"])) == (1, 2)
    assert told(file.write(["dddd"])) == (1, 1)
    room[0] = 1_000
    assert told(file.write(["eeee"])) == (0, 0)
    assert (tmp_path / "access.log").read_text() == "aaaa\nbbb\neeee\n"


def test_a_lack_of_descriptors_sheds_lines_and_passes(tmp_path: Path) -> None:
    """At the start, at a rotation, and after it; the constructor bears it as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        file = LogFile(settings(tmp_path))
        assert told(file.write(["one"])) == (1, 1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert told(file.write(["x" * 900])) == (0, 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        assert told(file.write(["y" * 900])) == (1, 1)
        assert told(file.write(["y" * 900])) == (1, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert told(file.write(["z"])) == (0, 0)
    file.close()
    assert names(tmp_path) == ["access.log", "access.log.1"]
    assert (tmp_path / "access.log").read_text() == "z\n"


def test_lines_longer_than_a_piece_stay_whole() -> None:
    text = b"a" * 200_000 + b"\n" + b"b\n" * 50_000
    pieces = list(log_file._chunks(text))
    assert b"".join(pieces) == text
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert max(map(len, pieces)) == 200_001


DISK_BYTES = 4_194_304

ON_A_SMALL_DISK = """
import os, sys
from pathlib import Path
from gossipmesh.dataplane.reference.log_file import LogFile
from gossipmesh.model.access_log import AccessLogSettings

folder = Path(sys.argv[1])

def free():
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize

def used():
    return sum(path.stat().st_blocks * 512 for path in folder.glob("access.log*"))

file = LogFile(AccessLogSettings(folder / "access.log"))
whole = free()
batch = ["x" * 999] * 100
lost = [file.write(batch).shed_count for _ in range(200)]
print(whole, used(), sum(lost))

filler = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
while free() > whole // 20:
    os.write(filler, bytes(4096))
before = free()
written = [file.write(batch) for _ in range(50)]
print(free() >= min(before, whole // 20), sum(one.shed_count for one in written))

(folder / "tail").write_bytes(b"")
try:
    while True:
        os.write(filler, bytes(4096))
except OSError:
    pass
print(file.write(batch).shed_count)
os.unlink(folder / "filler")
os.close(filler)
print(file.write(["after"]).shed_count, (folder / "access.log").read_text().splitlines()[-1])
"""


@pytest.mark.namespace
def test_a_small_disk_keeps_its_last_tenth(tmp_path: Path) -> None:
    """20 MB of lines on a 4 MB tmpfs: a quarter is used at most, and of a disk others filled nothing."""
    mount = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs {tmp_path}"
    command = ["unshare", "--mount", "--", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable]
    result = subprocess.run(
        [*command, "-c", ON_A_SMALL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    lasting, filled, full, after = (line.split() for line in result.stdout.splitlines())
    whole, used, shed = map(int, lasting)
    assert shed == 0
    assert whole // 8 < used <= whole // 4 + 65_536
    assert filled == ["True", "5000"]
    assert full == ["100"]
    assert after == ["0", "after"]
