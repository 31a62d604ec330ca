"""Files that hold secrets, and files that must survive a crash whole.

A secret is 0600 in a directory that is 0700; both are checked before it is read. Writing goes to a
temporary file beside the target, which is fsynced, renamed over it, and the directory fsynced: after a
crash or on a full disk the old content stands, or the new, never a part. Ends at bytes in files.
"""

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from gossipmesh.model.errors import OperatorError
from gossipmesh.net.files import judged, make_folder, open_file, read_open

SECRET_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
SECRET_BYTES_MAX: Final = 4_194_304


def make_private_directory(directory: Path) -> None:
    """Create `directory` as 0700 (parents too) or check that it is private already.

    Raises:
        OperatorError: it cannot be made, or others may enter it. State unchanged.
    """
    try:
        make_folder(directory, DIRECTORY_MODE)
    except OSError as error:
        raise OperatorError(f"cannot create the directory {directory}: {error.strerror}") from None
    require_private(directory)


def require_private(path: Path) -> None:
    """Check that `path` is ours and nobody else may read, write or enter it.

    Raises:
        OperatorError: missing, foreign or open; the sentence holds the command that mends it.
            State unchanged.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None
    if stat.S_ISLNK(status.st_mode):
        raise OperatorError(f"{path} is a symbolic link; put the file itself there, it holds secrets")
    if status.st_uid not in (os.geteuid(), 0):
        raise OperatorError(
            f"{path} belongs to the user {status.st_uid}, who could change it; chown it to {os.geteuid()}"
        )
    _require_closed(path, status)


def _require_closed(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        wanted = DIRECTORY_MODE if stat.S_ISDIR(status.st_mode) else SECRET_MODE
        raise OperatorError(
            f"{path} is open to other users (mode {mode:04o}) and holds secrets; "
            f"run `chmod {wanted:o} {path}`, and replace the keys if others could have read them"
        )


def read_secret(path: Path) -> bytes:
    """Return the content of a secret file. May block: a disk is read.

    Raises:
        OperatorError: missing, no regular file, open to others, foreign, where others could replace it, or
            larger than any secret. State unchanged.
    """
    require_private(path)
    try:
        descriptor = open_file(judged(path.parent) / path.name, os.O_RDONLY)
        try:
            _require_closed(path, os.fstat(descriptor))
            return read_open(descriptor, path, SECRET_BYTES_MAX)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None


def write_secret(path: Path, content: bytes) -> None:
    """Replace `path` by `content` as 0600 in a 0700 directory; on disk when this returns.

    Raises:
        OperatorError: not written; the previous content stands.
    """
    make_private_directory(path.parent)
    with reserve_file(path, len(content)) as reservation:
        reservation.commit(content)


def write_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file that is no secret, with the same care; its directory must exist.

    Raises:
        OperatorError: not written; the previous content stands.
    """
    with reserve_file(path, len(content), mode=mode) as reservation:
        reservation.commit(content)


class Reservation:
    """Disk space held for a file's next content, so that `commit` cannot meet a full disk.

    A context manager: leaving it without a commit gives the space back and changes nothing.
    """

    def __init__(self, path: Path, descriptor: int, temporary: Path) -> None:
        self._path = path
        self._descriptor = descriptor
        self._temporary: Path | None = temporary

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def commit(self, content: bytes) -> None:
        """Write, fsync, rename over the target, fsync the directory.

        Raises:
            OperatorError: not written; the previous content stands.
        """
        if self._temporary is None:
            raise RuntimeError("a reservation is committed once")
        try:
            with os.fdopen(os.dup(self._descriptor), "wb") as file:
                file.write(content)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            self._temporary.replace(self._path)
            self._temporary = None
            sync_directory(self._path.parent)
        except OSError as error:
            raise _not_written(self._path, error) from None


def reserve_file(path: Path, bytes_max: int, *, mode: int = SECRET_MODE) -> Reservation:
    """Hold `bytes_max` bytes of disk beside `path` for its next content.

    Raises:
        OperatorError: no space, no directory or no permission. State unchanged.
    """
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
        temporary = Path(name)
        os.fchmod(descriptor, mode)
        if bytes_max:
            _allocate(descriptor, bytes_max)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)
        raise _not_written(path, error) from None
    return Reservation(path, descriptor, temporary)


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        # Some file systems cannot allocate ahead; the write itself then meets the full disk, and is
        # as atomic as before.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _not_written(path: Path, error: OSError) -> OperatorError:
    advice = (
        "free some space and run it again"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else ("check the directory and its permissions")
    )
    return OperatorError(f"cannot write {path}: {error.strerror}; nothing was changed, {advice}")
