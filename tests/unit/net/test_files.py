"""Files somebody else may have touched: what they are decides, and opening one neither waits nor follows."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gossipmesh.net import files
from gossipmesh.net.files import (
    UnsafeFile,
    judged,
    make_folder,
    open_file,
    read_file,
    read_named,
    read_open,
    require_own_folder,
)

LIMIT = 4_096
NOBODY = 65_534
ROOT = pytest.mark.namespace  # who may give a file away


def plain(path: Path, content: bytes = b"content") -> Path:
    path.write_bytes(content)
    path.chmod(0o644)
    return path


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def linked(path: Path) -> None:
    path.symlink_to(plain(path.with_name("elsewhere")))


def looping(path: Path) -> None:
    path.symlink_to(path)


def foreign(path: Path) -> None:
    os.chown(plain(path), NOBODY, NOBODY)


def open_to_all(path: Path) -> None:
    plain(path).chmod(0o666)


def open_to_a_group(path: Path) -> None:
    plain(path).chmod(0o664)


def terminal(path: Path) -> None:
    path.symlink_to("/dev/ptmx")


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    plain(path)
    os.truncate(path, 1 << 40)


def in_proc(path: Path) -> None:
    """A file whose size is told as 0 and that has more than that."""
    path.symlink_to("/proc/kallsyms")


PLANTED = [
    (Path.mkdir, "a directory"),
    (fifo, "a pipe"),
    (listening, "a socket"),
    (terminal, "a device"),
    (zero, "a device"),
    pytest.param(foreign, "belongs to the user 65534", marks=ROOT),
    (open_to_all, "chmod go-w"),
    (open_to_a_group, "chmod go-w"),
    (sparse, "larger than 4096 bytes"),
    (in_proc, "grew beyond 4096 bytes"),
]


@pytest.mark.parametrize(("plant", "sentence"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_no_file_of_ours_is_refused_at_once(
    tmp_path: Path, plant: Callable[[Path], None], sentence: str
) -> None:
    plant(tmp_path / "x")
    with pytest.raises(UnsafeFile, match=sentence):
        read_file(tmp_path / "x", LIMIT)


def test_a_file_is_read_whole_up_to_its_limit(tmp_path: Path) -> None:
    for size in (0, 1, LIMIT):
        assert read_file(plain(tmp_path / "x", b"a" * size), LIMIT) == b"a" * size
    with pytest.raises(UnsafeFile, match="larger"):
        read_file(plain(tmp_path / "x", b"a" * (LIMIT + 1)), LIMIT)


def test_a_file_that_grows_while_it_is_read_ends_at_the_limit(tmp_path: Path) -> None:
    path = plain(tmp_path / "x", b"a")
    descriptor = open_file(path, os.O_RDONLY)
    reading, writing = (
        os.pipe()
    )  # a descriptor that says a size of 0 and gives without end, as such a file does
    os.close(descriptor)
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            try:
                os.write(writing, b"a" * 1_000)
            except BrokenPipeError:
                return

    writer = threading.Thread(target=grow)
    writer.start()
    with pytest.raises(UnsafeFile, match="grew beyond"):
        read_open(reading, path, 100_000)
    stop.set()
    os.close(reading)
    writer.join()
    os.close(writing)


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (linked, "a symbolic link"),
        (looping, "a symbolic link"),
        (fifo, "a pipe"),
        pytest.param(foreign, "belongs to the user 65534", marks=ROOT),
        (open_to_all, "chmod go-w"),
        (zero, "a symbolic link"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize(
    "flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_APPEND]
)
def test_what_is_opened_to_be_kept_follows_no_link(
    tmp_path: Path, plant: Callable[[Path], None], sentence: str, flags: int
) -> None:
    plant(tmp_path / "x")
    with pytest.raises(UnsafeFile, match=sentence):
        open_file(tmp_path / "x", flags)
    if plant is linked:
        assert (tmp_path / "elsewhere").read_bytes() == b"content"


def test_a_dangling_link_makes_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "made")
    with pytest.raises(UnsafeFile, match="a symbolic link"):
        open_file(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    assert not (tmp_path / "made").exists()


def test_a_link_put_there_between_looking_and_opening_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, path = plain(tmp_path / "target"), tmp_path / "x"
    before = os.lstat(plain(path))
    path.unlink()
    path.symlink_to(target)
    monkeypatch.setattr(os, "lstat", lambda _: before)
    with pytest.raises(OSError, match="Too many levels"):
        open_file(path, os.O_RDWR)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o2775, 0o757, 0o722])
def test_a_folder_others_may_write_is_not_ours(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "state folder"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UnsafeFile, match=r"chmod go-w '.*state folder'"):
        require_own_folder(folder)


@ROOT
def test_a_folder_of_another_user_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", NOBODY, NOBODY)
    with pytest.raises(UnsafeFile, match=r"chown -h 0 .*state"):
        require_own_folder(tmp_path / "state")


@ROOT
@pytest.mark.parametrize(
    ("mode", "owner", "group", "passes"),
    [
        (0o755, 0, 0, True),
        (0o1777, 0, 0, True),  # /tmp
        (0o775, 0, 4, True),  # /var/log, where a distribution gave a group of its own the right
        (0o777, 0, 0, False),
        (0o757, 0, 0, False),
        (0o755, NOBODY, 0, False),
        (0o1777, NOBODY, 0, False),
    ],
)
def test_folders_on_the_way_are_judged_too(
    tmp_path: Path, mode: int, owner: int, group: int, passes: bool
) -> None:
    above, state = tmp_path / "above", tmp_path / "above" / "state"
    state.mkdir(parents=True)
    os.chown(above, owner, group)
    above.chmod(mode)
    if passes:
        require_own_folder(state)
        return
    with pytest.raises(UnsafeFile, match="above"):
        require_own_folder(state)


@ROOT
def test_a_link_on_the_way_is_judged_by_its_owner(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    plain(tmp_path / "real" / "x")
    (tmp_path / "link").symlink_to("real")
    assert judged(tmp_path / "link" / ".." / "real" / "x") == tmp_path / "real" / "x"
    assert read_file(tmp_path / "link" / "x", LIMIT) == b"content"
    os.chown(tmp_path / "link", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(UnsafeFile, match=r"link belongs to the user 65534"):
        judged(tmp_path / "link" / "x")


def test_a_link_leads_through_folders_that_are_judged(tmp_path: Path) -> None:
    """/etc/gossipmesh/agent.yaml -> somewhere another user may put something else."""
    shared = tmp_path / "shared"
    shared.mkdir()
    plain(shared / "x")
    (tmp_path / "x").symlink_to(shared / "x")
    assert read_file(tmp_path / "x", LIMIT) == b"content"
    shared.chmod(0o777)
    with pytest.raises(UnsafeFile, match="shared"):
        read_file(tmp_path / "x", LIMIT)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        judged(tmp_path / "a")


@ROOT
def test_a_user_reads_what_is_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration is root's and the agent is gossipmesh; the state folder is gossipmesh's."""
    path = plain(tmp_path / "agent.yaml")
    monkeypatch.setattr(os, "geteuid", lambda: 998)
    assert read_file(path, LIMIT) == b"content"
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 998, 998)
    require_own_folder(tmp_path / "state")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UnsafeFile, match="belongs to the user 998"):
        require_own_folder(tmp_path / "state")


@ROOT
def test_in_a_user_namespace_whoever_root_is_there_owns_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plain(tmp_path / "agent.yaml")
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(UnsafeFile):
        read_file(path, LIMIT)
    monkeypatch.setattr(files, "_owner_of_all", lambda: NOBODY)
    assert read_file(path, LIMIT) == b"content"


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_folders_are_made_so_that_they_are_ours(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_folder(tmp_path / "var" / "lib" / "gossipmesh", 0o700)
    finally:
        os.umask(before)
    require_own_folder(tmp_path / "var" / "lib" / "gossipmesh")


@ROOT
def test_a_file_a_person_names_may_be_anybodys_and_not_everybodys(tmp_path: Path) -> None:
    path = plain(tmp_path / "x")
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o664)
    (tmp_path / "link").symlink_to(path)
    assert read_named(tmp_path / "link", LIMIT) == b"content"
    path.chmod(0o646)
    with pytest.raises(UnsafeFile, match="chmod o-w"):
        read_named(tmp_path / "link", LIMIT)


@pytest.mark.parametrize("plant", [fifo, zero, Path.mkdir, sparse, in_proc], ids=lambda plant: plant.__name__)
def test_a_file_a_person_names_is_a_regular_one_of_bounded_size(
    tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    plant(tmp_path / "x")
    with pytest.raises((UnsafeFile, OSError)):
        read_named(tmp_path / "x", LIMIT)
