"""Files that hold secrets: private, checked, and whole after a full disk."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gossipmesh.model.errors import OperatorError
from gossipmesh.net.secret_files import (
    make_private_directory,
    read_secret,
    require_private,
    reserve_file,
    write_file,
    write_secret,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_secret(tmp_path / "state" / "keys" / "key", b"one")
    finally:
        os.umask(before)
    assert mode(tmp_path / "state" / "keys" / "key") == 0o600
    assert mode(tmp_path / "state" / "keys") == 0o700
    write_secret(tmp_path / "state" / "keys" / "key", b"two")
    assert read_secret(tmp_path / "state" / "keys" / "key") == b"two"
    assert os.listdir(tmp_path / "state" / "keys") == ["key"]


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o601])
def test_an_open_secret_is_not_read(tmp_path: Path, bits: int) -> None:
    write_file(tmp_path / "key", b"hunter2", mode=0o600)
    (tmp_path / "key").chmod(bits)
    with pytest.raises(OperatorError, match=r"chmod 600 .*key") as error:
        read_secret(tmp_path / "key")
    assert "hunter2" not in str(error.value)


def test_an_open_directory_is_named_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir(mode=0o755)
    (tmp_path / "identity").chmod(0o755)
    with pytest.raises(OperatorError, match=r"chmod 700 .*identity"):
        make_private_directory(tmp_path / "identity")


def test_a_symbolic_link_is_no_secret_file(tmp_path: Path) -> None:
    write_file(tmp_path / "key", b"x", mode=0o600)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    with pytest.raises(OperatorError, match="symbolic link"):
        read_secret(tmp_path / "link")


@pytest.mark.parametrize("name", ["missing", "a-file/child"])
def test_what_is_not_there_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(OperatorError, match="cannot read"):
        require_private(tmp_path / name)


def test_a_directory_in_the_way_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(OperatorError, match="cannot create the directory"):
        make_private_directory(tmp_path / "a-file" / "child")
    with pytest.raises(OperatorError, match="cannot write"):
        write_file(tmp_path / "nowhere" / "key", b"x")


def test_a_reservation_given_up_changes_nothing(tmp_path: Path) -> None:
    write_file(tmp_path / "key", b"old", mode=0o600)
    with reserve_file(tmp_path / "key", 4096):
        assert len(os.listdir(tmp_path)) == 2
    assert os.listdir(tmp_path) == ["key"]
    assert read_secret(tmp_path / "key") == b"old"


def test_a_commit_is_exactly_its_content(tmp_path: Path) -> None:
    with reserve_file(tmp_path / "key", 4096) as reservation:
        reservation.commit(b"short")
    assert (tmp_path / "key").read_bytes() == b"short"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.namespace
def test_on_a_full_disk_the_old_content_stands(small_disk: Path) -> None:
    write_secret(small_disk / "key", b"old")
    with pytest.raises(OperatorError, match="No space left on device; nothing was changed"):
        write_secret(small_disk / "key", b"x" * 100_000)
    assert os.listdir(small_disk) == ["key"]
    assert read_secret(small_disk / "key") == b"old"


@pytest.mark.namespace
def test_what_was_reserved_can_be_written_on_a_disk_full_since(small_disk: Path) -> None:
    with reserve_file(small_disk / "key", 8_192) as reservation:
        with pytest.raises(OSError, match="No space left"):
            (small_disk / "hog").write_bytes(b"x" * 100_000)
        reservation.commit(b"k" * 8_192)
    assert read_secret(small_disk / "key") == b"k" * 8_192


def test_a_pipe_is_no_secret_and_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(OperatorError, match="is a pipe"):
        read_secret(tmp_path / "key")


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir(mode=0o600)
    with pytest.raises(OperatorError, match="is a directory"):
        read_secret(tmp_path / "key")


def test_a_sparse_file_is_no_secret(tmp_path: Path) -> None:
    write_file(tmp_path / "key", b"x", mode=0o600)
    os.truncate(tmp_path / "key", 1 << 40)
    with pytest.raises(OperatorError, match="is larger than"):
        read_secret(tmp_path / "key")


def test_a_secret_others_could_replace_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    write_file(tmp_path / "keys" / "key", b"x", mode=0o600)
    (tmp_path / "keys").chmod(0o777)
    with pytest.raises(OperatorError, match=r"chmod go-w .*keys"):
        read_secret(tmp_path / "keys" / "key")
