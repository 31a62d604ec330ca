"""What the authority did, in order: one line each, chained by hashes, on disk before anybody is answered.

    log/000001.jsonl, log/000002.jsonl, ...    a line a deed, JSON; a file of 16 MiB is followed by the next

Rules:
1. A line begins with the SHA-256 of the line before it: who changes, removes or reorders lines breaks the
   chain, whoever removes the newest ones makes it shorter than the ledger.
2. A line is fsynced before the deed is answered. One that a crash tore was never answered, and is cut off.
3. Only who holds a token or an enrolled key can make the log longer, and within bounds (`control.pacing`).
4. The oldest files may be moved to an archive; the chain then begins with the first that is left.
Appending needs the ledger's lock. Ends at lines; what is worth one is `control.issuing`'s to say.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.instant import WallSeconds
from gossipmesh.net.files import open_file, read_open
from gossipmesh.net.secret_files import make_private_directory, sync_directory
from gossipmesh.wire.codec import decode_json_untrusted

FILE_BYTES_MAX: Final = 16 * 1_048_576
DETAIL_CHARS_MAX: Final = 400
_BEGINNING: Final = "0" * 64
_LAYOUT: Final = '{"before":"'
_FIRST: Final = "000001"
_AFTER_HASH: Final = len(_LAYOUT) + 64


class Deed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the log, the `number`th. `time` is wall seconds; `peer` is an address, empty for a command.

    `generation` and `serial` are those of what was signed, 0 where nothing was.
    """

    before: str
    number: int
    time: int
    what: str
    node: str = ""
    peer: str = ""
    generation: int = 0
    serial: int = 0
    detail: str = ""


class AuditLog:
    """The log of one authority, as one process knows it; others may have appended meanwhile."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "log"
        self._path: Path | None = None
        self._read_bytes = 0
        self._head = _BEGINNING
        self.count = 0
        """The number of the newest line; 0 before the first."""

    def catch_up(self) -> str | None:
        """Verify what was appended since this was last called; from the first line, the first time.

        Needs the ledger's lock: a torn last line is cut off. Cost: O(bytes not seen yet).

        Returns:
            A sentence about a line that a crash tore, None when there was none.

        Raises:
            OperatorError: the chain does not hold; what to do. State unchanged.
        """
        torn = None
        files = self._files_left()
        for path in files:
            content = self._read(path)
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                if path != files[-1]:
                    raise _broken(path, whole.count(b"\n") + 1)
                torn = f"the last line of {path} was torn by a crash and is cut off; it was not answered"
                os.truncate(path, self._read_bytes + len(whole))
            self._follow(path, whole)
        return torn

    def append(self, time: WallSeconds, what: str, **fields: Any) -> None:
        """Write a line after the last one; on disk when this returns. Needs the ledger's lock.

        Raises:
            OperatorError: not written, or the chain does not hold. Nothing may be answered.
        """
        self.catch_up()
        try:
            make_private_directory(self._directory)
            path = self._path_to_append()
            deed = Deed(self._head, self.count + 1, time, what, **fields)
            detail = "".join(letter if letter.isprintable() else "?" for letter in deed.detail)
            line = msgspec.json.encode(msgspec.structs.replace(deed, detail=detail[:DETAIL_CHARS_MAX]))
            _append(path, line + b"\n")
        except OSError as error:
            raise OperatorError(
                f"cannot write {self._directory}: {error.strerror}; free some space"
            ) from None
        self._take(line)

    def deeds(self, node: str | None = None) -> Iterator[Deed]:
        """Yield the lines, oldest first; with `node`, those about it.

        Raises:
            OperatorError: a line that is none. State unchanged.
        """
        for path in self._files():
            for number, line in enumerate(read_lines(path).splitlines(), start=1):
                deed = _read_deed(path, number, line)
                if node is None or deed.node == node:
                    yield deed

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("[0-9]*.jsonl"))

    def _files_left(self) -> list[Path]:
        files = self._files()
        if self._path is not None and self._path not in files:
            raise OperatorError(f"{self._path} is gone; put it back, or start `authority serve` again")
        return files if self._path is None else files[files.index(self._path) :]

    def _read(self, path: Path) -> bytes:
        if path != self._path:
            self._path, self._read_bytes = path, 0
        return read_lines(path, self._read_bytes)

    def _follow(self, path: Path, whole: bytes) -> None:
        for number, line in enumerate(whole.splitlines(), start=1):
            before = line[len(_LAYOUT) : _AFTER_HASH].decode(errors="replace")
            if self.count == 0 and path.stem != _FIRST:  # older files were archived
                self._head, self.count = before, _read_deed(path, number, line).number - 1
            if not line.startswith(_LAYOUT.encode()) or before != self._head:
                raise _broken(path, number)
            self._take(line)

    def _take(self, line: bytes) -> None:
        self._head = hashlib.sha256(line).hexdigest()
        self._read_bytes += len(line) + 1
        self.count += 1

    def _path_to_append(self) -> Path:
        if self._path is None or self._read_bytes >= FILE_BYTES_MAX:
            number = 0 if self._path is None else int(self._path.stem)
            self._path, self._read_bytes = self._directory / f"{number + 1:06d}.jsonl", 0
        return self._path


def read_lines(path: Path, start: int = 0) -> bytes:
    """Return a file of the log from `start` on. Blocks: a disk is read.

    Raises:
        OperatorError: unreadable, or not ours alone to change, or too large. State unchanged.
    """
    try:
        descriptor = open_file(path, os.O_RDONLY)
        try:
            os.lseek(descriptor, start, os.SEEK_SET)
            return read_open(descriptor, path, 2 * FILE_BYTES_MAX)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None


def _read_deed(path: Path, number: int, line: bytes) -> Deed:
    try:
        return decode_json_untrusted(line, Deed, "a line of the log")
    except MalformedInput:
        raise _broken(path, number) from None


def _append(path: Path, line: bytes) -> None:
    created = not path.exists()
    descriptor = open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        size = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if created:
        sync_directory(path.parent)


def _broken(path: Path, number: int) -> OperatorError:
    return OperatorError(
        f"the log of what this authority did does not hold: {path} line {number} (counted from where it was "
        "read last) does not follow from the line before it, so lines were changed or removed; find out by "
        "whom before anything else is signed, then restore the authority from a backup"
    )
