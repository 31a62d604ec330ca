"""Files whose names somebody else may have touched: judged by what they are, then opened, never the reverse.

Rules:
1. A path is walked from the root: whoever owns or may write a folder or a symbolic link on the way decides
   what stands at its end. That must be root (whoever `/` belongs to) or ourselves.
2. Files are opened without following a link or waiting for a writer of a pipe, and then looked at through
   the descriptor: only regular files, of those owners, that nobody else may write.
3. A read has a limit, asked of the size first and of the bytes again: sparse and growing files end there.
4. What is wrong is a sentence with the command that mends it.
Spec: as OpenSSH's `safe_path`. Deviation: folders of root that a group may write are passed on the way
    (/var/log of some distributions), and so are sticky ones (/tmp): what is ours in them nobody can replace.
"""

import errno
import os
import shlex
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from gossipmesh.model.errors import OperatorError

PARENT_MODE: Final = 0o755
_LINKS_MAX: Final = 40  # as many as Linux follows
_OPENING: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a symbolic link"),
)


class UnsafeFile(OperatorError):
    """A file that is not what it has to be, or that others could change. State unchanged."""


def read_file(path: Path, bytes_max: int, *, followed: bool = True) -> bytes:
    """Return the content of a regular file that only root and ourselves can change. May block, as disks do.

    Args:
        followed: symbolic links are, where they and all they lead through are root's or ours.

    Raises:
        UnsafeFile: not such a file, or over `bytes_max`; a sentence. State unchanged.
        OSError: it cannot be read. State unchanged.
    """
    descriptor = open_file(judged(path) if followed else path, os.O_RDONLY)
    try:
        return read_open(descriptor, path, bytes_max)
    finally:
        os.close(descriptor)


def read_named(path: Path, bytes_max: int) -> bytes:
    """Return the content of a regular file a person named: of any owner, but not one that anybody may write.

    Raises:
        UnsafeFile: not such a file, or over `bytes_max`; a sentence. State unchanged.
        OSError: it cannot be read. State unchanged.
    """
    require_not_anybodys(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _require_regular(path, os.fstat(descriptor))
        return read_open(descriptor, path, bytes_max)
    finally:
        os.close(descriptor)


def require_not_anybodys(path: Path) -> None:
    """Check that not every user of this machine may write `path`, a file or a folder.

    Raises:
        UnsafeFile: they may; a sentence. State unchanged.
        OSError: it cannot be looked at. State unchanged.
    """
    status = os.stat(path)
    if status.st_mode & stat.S_IWOTH:
        raise UnsafeFile(
            f"anybody can change {path} (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"run `chmod o-w {_quoted(path)}` once you know what is in it"
        )


def read_open(descriptor: int, path: Path, bytes_max: int) -> bytes:
    """Return what an open file holds, as `path` in sentences.

    Raises:
        UnsafeFile: over `bytes_max`, also when it grows while it is read. State unchanged.
        OSError: it cannot be read. State unchanged.
    """
    if os.fstat(descriptor).st_size > bytes_max:
        raise UnsafeFile(f"{path} is larger than {bytes_max} bytes, so it is not what it should be")
    parts = bytearray()
    while len(parts) <= bytes_max:
        part = os.read(descriptor, min(65_536, bytes_max + 1 - len(parts)))
        if not part:
            return bytes(parts)
        parts += part
    raise UnsafeFile(f"{path} grew beyond {bytes_max} bytes while it was read")


def open_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file that is root's or ours and that nobody else may write; a link is not followed.

    Raises:
        UnsafeFile: anything else; a sentence. State unchanged.
        OSError: it cannot be opened. State unchanged.
    """
    with suppress(FileNotFoundError):
        _require_regular(path, os.lstat(path))  # opening a device may do something already
    descriptor = os.open(path, flags | _OPENING, mode)
    try:
        require_own_file(path, os.fstat(descriptor))
    except UnsafeFile:
        os.close(descriptor)
        raise
    return descriptor


def require_own_file(path: Path, status: os.stat_result) -> None:
    """Check that a file is a regular one of root's or ours, and that nobody else may write it.

    Raises:
        UnsafeFile: it is not; a sentence. State unchanged.
    """
    _require_regular(path, status)
    _require_owner(path, status)
    if status.st_mode & _OTHERS_WRITE:
        raise UnsafeFile(
            f"{path} can be changed by other users (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"run `chmod go-w {_quoted(path)}` once you know what is in it"
        )


def require_own_folder(folder: Path) -> None:
    """Check that only root and ourselves decide what stands in `folder`, and what `folder` is.

    Raises:
        UnsafeFile: others do; a sentence. State unchanged.
        OSError: it cannot be looked at. State unchanged.
    """
    there = judged(folder)
    status = os.lstat(there)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if status.st_mode & _OTHERS_WRITE:
        raise _open_folder(there, status)


def make_folder(folder: Path, mode: int) -> None:
    """Make `folder` with `mode` if it is not there; parents are ours alone to write, whatever the umask.

    Raises:
        OSError: it cannot be made. State unchanged, but for parents.
    """
    if not folder.parent.exists():
        make_folder(folder.parent, PARENT_MODE)
    with suppress(FileExistsError):
        folder.mkdir(mode=mode)


def judged(path: Path) -> Path:
    """Return where `path` leads, all links followed, once it is root's and ours alone to say so.

    Raises:
        UnsafeFile: somebody else could make it lead elsewhere; a sentence. State unchanged.
        OSError: it cannot be looked at. State unchanged.
    """
    left = list(reversed(path.absolute().parts[1:]))
    here, links_count = Path("/"), 0
    while left:
        name = left.pop()
        if name == "..":
            here = here.parent
            continue
        status = os.lstat(here / name)
        if not stat.S_ISLNK(status.st_mode):
            here /= name
            if stat.S_ISDIR(status.st_mode):
                _require_passable(here, status)
            elif left:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(here))
            continue
        links_count += 1
        if links_count > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        _require_owner(here / name, status)
        target = Path(os.readlink(here / name))
        here = Path("/") if target.is_absolute() else here
        left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return here


def _require_passable(folder: Path, status: os.stat_result) -> None:
    """Check a folder on the way: what is not ours in it is judged by itself, if nobody can replace it."""
    _require_owner(folder, status)
    if not status.st_mode & _OTHERS_WRITE or status.st_mode & stat.S_ISVTX:
        return
    groups_only = not status.st_mode & stat.S_IWOTH
    # A group of the owner's own number is the owner's alone, where users are made with one each.
    if not (groups_only and (status.st_uid == 0 or status.st_gid == status.st_uid)):
        raise _open_folder(folder, status)


def _open_folder(folder: Path, status: os.stat_result) -> UnsafeFile:
    return UnsafeFile(
        f"other users can replace what is in {folder} (mode {stat.S_IMODE(status.st_mode):04o}); "
        f"run `chmod go-w {_quoted(folder)}` and look at what is in it"
    )


@cache
def _owner_of_all() -> int:
    """Return whose `/` is: in a user namespace without root it is nobody's, and so is all of root's."""
    return os.stat("/").st_uid


def _require_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid(), _owner_of_all()):
        raise UnsafeFile(
            f"{path} belongs to the user {status.st_uid}, who could change it; "
            f"run `chown -h {os.geteuid()} {_quoted(path)}` once you know what it is"
        )


def _require_regular(path: Path, status: os.stat_result) -> None:
    kind = next((words for is_kind, words in _KINDS if is_kind(status.st_mode)), None)
    if kind is not None:
        raise UnsafeFile(f"{path} is {kind}; a regular file is expected there, remove it or name another")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
