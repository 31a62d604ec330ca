"""A file of lines that takes a bounded part of the disk: rotated by size and count, never filling it.

Every method but the constructor is called from one thread at a time, which may be any. Rules:

1. Nothing raises after the constructor: what could not be written is counted, and the next batch tries again.
2. The last tenth of the disk is left to others; all files together stay below a quarter of it.
3. A line that was cut short (a full disk, a crash) is closed by a line break before the next one.
4. A file that was moved or removed by others is made anew: nobody writes into what no name leads to.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gossipmesh.model.access_log import KEEP_MAX, AccessLogSettings
from gossipmesh.net.shortage import is_own_shortage

log = logging.getLogger("gossipmesh.engine")

_CHUNK_BYTES: Final = 65_536
_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o750
_DISK_SHARE: Final = 4  # all files together: a quarter
_RESERVE_SHARE: Final = 10  # left to others: a tenth
_LINE_BREAK: Final = 10
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Written:
    """What became of one batch: lines that were left out to spare the disk, and calls that failed."""

    __slots__ = ("errors_count", "shed_count")

    def __init__(self, errors_count: int = 0, shed_count: int = 0) -> None:
        self.errors_count = errors_count
        self.shed_count = shed_count


class LogFile:
    """The file being written, and its older brothers `PATH.1`, `PATH.2` and so on."""

    def __init__(self, settings: AccessLogSettings) -> None:
        """Open the file, making its folder when that alone is missing.

        Raises:
            OSError: it cannot be used: a missing folder, no permission, not a regular file. A lack of room or
                descriptors is none of these: it is borne, and opening is tried again with each batch.
        """
        self._settings = settings
        self._path = settings.path
        self._descriptor: int | None = None
        self._torn = False
        self._plain = True  # a regular file; a device has no size and no disk
        self.reopen_due = False
        self._left = memoryview(b"")
        self._told = ""
        try:
            if not self._path.parent.exists():
                self._path.parent.mkdir(mode=_FOLDER_MODE)
            self._open()
        except OSError as error:
            if not is_own_shortage(error):
                raise
            self._tell(error)

    def reopen(self) -> None:
        """Go on in a file of the same name with the next batch, after others rotated it."""
        self.reopen_due = True

    def write(self, lines: list[str]) -> Written:
        """Write lines, given without their line breaks; say what could not be. None at all: only reopen."""
        written = Written()
        text = "\n".join(lines) + "\n" if lines else ""
        for chunk in _chunks(text.encode(errors="replace")):
            self._left = memoryview(chunk)
            try:
                self._write_left()
            except OSError as error:
                written.errors_count += 1
                self._tell(error)
            else:
                self._told = "" if not self._left else self._told
            written.shed_count += bytes(self._left).count(b"\n")
        if self.reopen_due:
            try:
                self._ready(0)
            except OSError as error:
                written.errors_count += 1
                self._tell(error)
        return written

    def close(self) -> None:
        """Let go of the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _write_left(self) -> None:
        """Write what is left of a piece; all of it is left when the disk has no room to spare.

        Raises:
            OSError: the file cannot be opened, rotated or written. State: usable; a line cut short is known.
        """
        descriptor = self._ready(len(self._left))
        if self._plain and not self._has_room(descriptor, len(self._left)):
            return
        if self._torn:
            os.write(descriptor, b"\n")
            self._torn = False
        while self._left:
            size = os.write(descriptor, self._left)
            self._torn = self._left[size - 1] != _LINE_BREAK
            self._left = self._left[size:]

    def _ready(self, size: int) -> int:
        """Return the descriptor to write `size` bytes to, after reopening or rotating if that is due."""
        if self._descriptor is not None and (self.reopen_due or not self._is_named()):
            self.close()
        self.reopen_due = False
        descriptor = self._open() if self._descriptor is None else self._descriptor
        if not self._plain:
            return descriptor
        held = os.fstat(descriptor).st_size
        if held and held + size > self._file_bytes_max(descriptor):
            self._rotate()
            descriptor = self._open()
        return descriptor

    def _open(self) -> int:
        try:
            descriptor = os.open(self._path, _FLAGS, _MODE)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(
                    f"the access log {self._path} is a symbolic link; name the file itself"
                ) from None
            raise
        try:
            status = os.fstat(descriptor)
            self._plain = stat.S_ISREG(status.st_mode)
            if not self._plain and not stat.S_ISCHR(status.st_mode):
                raise OSError(f"the access log {self._path} is no regular file")
            last = os.pread(descriptor, 1, status.st_size - 1) if self._plain and status.st_size else b"\n"
        except OSError:
            os.close(descriptor)
            raise
        self._torn = last != b"\n"
        self._descriptor = descriptor
        return descriptor

    def _is_named(self) -> bool:
        """Tell whether the name still leads to the file that is open."""
        assert self._descriptor is not None
        try:
            named = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        held = os.fstat(self._descriptor)
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def _file_bytes_max(self, descriptor: int) -> int:
        disk = os.fstatvfs(descriptor)
        share = disk.f_blocks * disk.f_frsize // _DISK_SHARE // self._settings.files_max
        return min(self._settings.bytes_max, share)

    def _has_room(self, descriptor: int, size: int) -> bool:
        disk = os.fstatvfs(descriptor)
        return disk.f_bavail * disk.f_frsize - size >= disk.f_blocks * disk.f_frsize // _RESERVE_SHARE

    def _rotate(self) -> None:
        """Name each file one number higher; what is beyond the count is removed.

        The file that was full has no number yet, so a rename that fails leaves it to be rotated again.
        """
        last = self._settings.files_max - 1
        self._remove_from(last)
        for number in range(last - 1, 0, -1):
            if self._numbered(number).exists():
                self._numbered(number).replace(self._numbered(number + 1))
        if last:
            self._path.replace(self._numbered(1))
        else:
            self._path.unlink()
        self.close()

    def _remove_from(self, first: int) -> None:
        """Remove the file numbered `first` and those after it: fewer may be kept now than once were."""
        for number in range(max(first, 1), KEEP_MAX + 1):
            try:
                self._numbered(number).unlink()
            except FileNotFoundError:
                return

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _tell(self, error: OSError) -> None:
        """Say once what is wrong, and again when it is something else."""
        if str(error) != self._told:
            self._told = str(error)
            log.warning("the access log %s is not written to for now: %s", self._path, error)


def _chunks(data: bytes) -> Iterator[bytes]:
    """Cut into pieces that end with a line break, of about _CHUNK_BYTES."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + _CHUNK_BYTES) + 1
        if end <= start:
            end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end
