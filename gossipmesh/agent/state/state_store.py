"""What the agent must find again after a crash: an append-only log, rotated into a snapshot.

Rules:
1. One record: u32 length, u32 CRC-32, msgpack [kind, key, value]; value nil removes. The last one wins.
2. `durable` means on the disk when `put_all` returns. One that fails leaves the log as it was before it.
3. A torn tail is a crash and is cut off (`torn`); damage elsewhere keeps the good prefix, sets the
   damaged file aside and is said loudly (`damage`).
4. One agent per state folder, by `flock` on `lock`.
5. Values stay on the disk: memory holds where each one is, for ten thousand members are 10 MB.
6. While the agent runs a thread calls what changes records or exchanges the log, one at a time: whoever
   starts it holds `order`.
Spec: docs/GOSSIP.md, "Disk". Deviation: CRC-32 (zlib) instead of CRC-32C, which no standard library has: it
    finds the same torn and flipped bytes at these sizes, and is not meant against an attacker.
"""

import errno
import fcntl
import mmap
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

import trio

from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.net.files import make_folder, open_file, require_own_folder
from gossipmesh.wire.codec import encode, unpack_untrusted

_MAGIC: Final = b"gossipmesh-state-1\n"
_HEADER: Final = struct.Struct(">II")
_END: Final = b"end"  # the snapshot's last record; without it the snapshot was cut
_RECORD_START: Final = b"\x93"  # msgpack's array of three
_ROTATE_BYTES_MIN: Final = 1_048_576

_OFFSET_BITS: Final = 40
_LENGTH_BITS: Final = 24  # a record and its header are below 16 MB, see limits.STATE_RECORD_BYTES_MAX


class _Place(NamedTuple):
    """Where a record stands, header included; `file` is a number that rises and is never used twice."""

    file: int
    offset: int
    length: int

    def packed(self) -> int:
        """Return one number, for there are as many as records."""
        return (self.file << _OFFSET_BITS | self.offset) << _LENGTH_BITS | self.length


def _place_of(packed: int) -> _Place:
    at = packed >> _LENGTH_BITS
    return _Place(at >> _OFFSET_BITS, at & (1 << _OFFSET_BITS) - 1, packed & (1 << _LENGTH_BITS) - 1)


_Data = bytes | mmap.mmap


class StateLost(OperatorError):
    """The disk did not take a record, or does not give it back; the file holds what it held before."""


class FolderLock:
    """The one agent's hold on a state folder; gone with the process."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            OperatorError: another agent has it, the folder cannot be written, or others could change what
                is in it. State unchanged.
        """
        path = folder / "lock"
        try:
            make_folder(folder, 0o700)
            require_own_folder(folder)
            self._file = open_file(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise OperatorError(
                f"cannot use the state folder {folder}: {os.strerror(error.errno or 0)}; "
                "create it for the agent's user or change spec.stateDir"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._file, 20).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise OperatorError(
                f"another agent (process {holder}) is using the state folder {folder}; "
                "stop it, or give this one a spec.stateDir of its own"
            ) from None
        with suppress(OSError):  # a hint for people, and no reason to end on a full disk
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go of the folder."""
        os.close(self._file)


class StateStore:
    """Records by (kind, key), read at start, appended while running."""

    def __init__(self, folder: Path) -> None:
        """Read what is there and open the log for appending; call it under a `FolderLock`.

        Raises:
            OperatorError: the files cannot be read or written, or are not ours alone. State unchanged.
        """
        self._folder = folder
        self._log_path = folder / "records.log"
        self._old_log_path = folder / "records.log.old"
        self._snapshot_path = folder / "records.snapshot"
        self._places: dict[str, dict[bytes, int]] = {}
        self._files: dict[int, int] = {}
        self._files_count = 0
        self._log_number = 0
        self._log_bytes = 0
        self._live_bytes = 0
        self._rotating = False
        self.order = trio.Lock()
        self.damage: list[str] = []
        self.torn = False
        self.fresh = not any(p.exists() for p in (self._log_path, self._old_log_path, self._snapshot_path))
        try:
            self._load()
            self._open_log()
        except OSError as error:
            raise OperatorError(
                f"cannot read or write the agent's records in {folder}: {os.strerror(error.errno or 0)}; "
                "see that the disk has room and the files belong to the agent's user"
            ) from None

    def get(self, kind: str, key: bytes) -> bytes | None:
        """Return what is kept under (kind, key).

        Raises:
            StateLost: the disk does not give it back. State unchanged.
        """
        packed = self._places.get(kind, {}).get(key)
        return None if packed is None else self._value_at(_place_of(packed))

    def items(self, kind: str) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs of a kind, sorted by key.

        Raises:
            StateLost: the disk does not give one back. State unchanged.
        """
        places = self._places.get(kind, {})
        return [(key, self._value_at(_place_of(places[key]))) for key in sorted(places)]

    def put(self, kind: str, key: bytes, value: bytes | None, *, durable: bool) -> None:
        """Keep one value, as `put_all` does."""
        self.put_all([(kind, key, value)], durable=durable)

    def put_all(self, entries: Sequence[tuple[str, bytes, bytes | None]], *, durable: bool) -> None:
        """Keep each value under its kind and key, no two alike; None removes it.

        Raises:
            StateLost: the disk is full or broken. State unchanged, on disk and in memory.
        """
        written: list[tuple[str, bytes, _Place | None]] = []
        end = self._log_bytes
        try:
            for kind, key, value in entries:
                record = _frame(encode([kind, key, value]))
                if self._stands(kind, key, value, record):
                    continue
                _write_all(self._log, record)
                place = _Place(self._log_number, end, len(record))
                written.append((kind, key, None if value is None else place))
                end += len(record)
            if durable:
                os.fdatasync(self._log)
        except OSError as error:
            self._undo()
            raise StateLost(
                f"cannot write {self._log_path}: {os.strerror(error.errno or 0)}; "
                "free some space, then start the agent again: its state is as it was before these records"
            ) from None
        for kind, key, kept_at in written:
            self._remember(kind, key, kept_at)
        self._log_bytes = end

    @property
    def rotation_due(self) -> bool:
        """Tell whether the log holds more history than content."""
        return not self._rotating and self._log_bytes > max(_ROTATE_BYTES_MIN, 2 * self._live_bytes)

    async def rotate(self) -> None:
        """Write a snapshot in threads while records go on being appended to a new log.

        Raises:
            StateLost: the disk is full or broken; nothing kept is lost.
        """
        self._rotating = True
        try:
            async with self.order:
                before = await trio.to_thread.run_sync(self._begin_log)
            after = await trio.to_thread.run_sync(self._write_snapshot, before)
            async with self.order:
                await trio.to_thread.run_sync(self._move, before, after)
        except OSError as error:
            raise StateLost(
                f"cannot rotate {self._log_path}: {os.strerror(error.errno or 0)}; free some space, "
                "then start the agent again: nothing it kept is lost"
            ) from None
        finally:
            self._rotating = False

    def _begin_log(self) -> list[tuple[str, bytes, int]]:
        """Go on in a new log; return where every record stands."""
        if not self._old_log_path.exists():
            # One that is there is of a rotation the disk refused: what is in it is in no snapshot yet.
            os.rename(self._log_path, self._old_log_path)
            self._open_log()
        return self._all_places()

    def close(self) -> None:
        """Put everything on the disk and close."""
        try:
            os.fdatasync(self._log)
        except OSError:
            pass  # what had to be durable was synced when it was put
        self._close_files(())

    def _load(self) -> None:
        snapshot_ended = self._read_file(self._snapshot_path)
        if self._snapshot_path.exists() and not snapshot_ended:
            self._set_aside(self._snapshot_path, "is cut short")
        old_log_found = self._old_log_path.exists()
        self._read_file(self._old_log_path)
        self._read_file(self._log_path)
        if old_log_found:
            # A crash in the middle of a rotation: everything is known now, so finish it.
            before = self._all_places()
            self._move(before, self._write_snapshot(before))

    def _read_file(self, path: Path) -> bool:
        """Take the good prefix of a file; tell whether it ended with the end mark."""
        try:
            number = self._open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        if os.fstat(self._files[number]).st_size == 0:
            return self._take_all(path, number, b"")
        with closing(mmap.mmap(self._files[number], 0, access=mmap.ACCESS_READ)) as data:
            return self._take_all(path, number, data)

    def _take_all(self, path: Path, number: int, data: _Data) -> bool:
        if data[: len(_MAGIC)] != _MAGIC:
            if not _MAGIC.startswith(data[: len(_MAGIC) + 1]):
                self._set_aside(path, "does not begin as a file of this version does")
            self._cut_log(path, 0)
            return False
        position, ended = len(_MAGIC), False
        for payload, end in _frames(data):
            try:
                ended = self._take(payload, _Place(number, position, end - position))
            except MalformedInput:
                break
            position = end
        if position < len(data):
            if _is_torn_tail(data[position:]):
                self.torn = True
            else:
                self._set_aside(path, f"is damaged at byte {position} of {len(data)}")
            self._cut_log(path, position)
        return ended

    def _cut_log(self, path: Path, position: int) -> None:
        """Cut the log after its good prefix, so that what is appended next can be read."""
        if path == self._log_path:
            descriptor = open_file(path, os.O_RDWR)
            try:
                os.ftruncate(descriptor, position)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _set_aside(self, path: Path, what: str) -> None:
        copy = path.with_name(path.name + ".damaged")
        copy.unlink(missing_ok=True)
        with (
            open(open_file(path, os.O_RDONLY), "rb") as source,
            open(open_file(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as target,
        ):
            shutil.copyfileobj(source, target)
        self.damage.append(f"{path} {what}; kept what came before, the whole file is in {copy.name}")

    def _take(self, payload: bytes, place: _Place) -> bool:
        """Apply one record; tell whether it is the end mark."""
        if payload == _END:
            return True
        kind, key, value = _read_record_untrusted(payload)
        self._remember(kind, key, None if value is None else place)
        return False

    def _remember(self, kind: str, key: bytes, place: _Place | None) -> None:
        places = self._places.setdefault(kind, {})
        previous = places.pop(key, None)
        if previous is not None:
            self._live_bytes -= _place_of(previous).length
        if place is not None:
            places[key] = place.packed()
            self._live_bytes += place.length

    def _value_at(self, place: _Place) -> bytes:
        try:
            record = self._record_at(place)
        except OSError as error:
            raise StateLost(
                f"cannot read again what was written in {self._folder}: {os.strerror(error.errno or 0)}; "
                "see that the disk is well, then start the agent again"
            ) from None
        _, _, value = _read_record_untrusted(record[_HEADER.size :])
        assert value is not None
        return value

    def _stands(self, kind: str, key: bytes, value: bytes | None, record: bytes) -> bool:
        """Tell whether just this is kept already: hardly ever, so what is of another length is not read."""
        packed = self._places.get(kind, {}).get(key)
        if packed is None:
            return value is None
        place = _place_of(packed)
        if place.length != len(record):
            return False
        return os.pread(self._files[place.file], place.length, place.offset) == record

    def _record_at(self, place: _Place) -> bytes:
        """Read one record again, header included.

        Raises:
            OSError: the disk does not give back what it took.
        """
        record = os.pread(self._files[place.file], place.length, place.offset)
        _, crc = _HEADER.unpack_from(record.ljust(_HEADER.size, b"\0"))
        if len(record) != place.length or zlib.crc32(record[_HEADER.size :]) != crc:
            raise OSError(errno.EIO, "a record reads differently than it was written")
        return record

    def _all_places(self) -> list[tuple[str, bytes, int]]:
        return [
            (kind, key, packed) for kind, places in self._places.items() for key, packed in places.items()
        ]

    def _move(self, before: list[tuple[str, bytes, int]], after: list[int]) -> None:
        """Note that records stand in the snapshot now, but for those put again meanwhile.

        The files before it are read until all have moved, and only then closed.
        """
        for (kind, key, packed), place in zip(before, after, strict=True):
            places = self._places[kind]
            if places.get(key) == packed:
                places[key] = place
        snapshot = _place_of(after[-1]).file if after else 0
        self._close_files((self._log_number, snapshot))

    def _open_file(self, path: Path, flags: int) -> int:
        """Open a file for as long as records of it are known; return its number."""
        descriptor = open_file(path, flags)
        if os.fstat(descriptor).st_size > limits.STATE_FILE_BYTES_MAX:
            os.close(descriptor)
            raise OperatorError(
                f"{path} is larger than {limits.STATE_FILE_BYTES_MAX} bytes, so it is not what it should be; "
                "move it away, the node asks its peers for what was in it"
            )
        self._files_count += 1
        self._files[self._files_count] = descriptor
        return self._files_count

    def _close_files(self, kept: tuple[int, ...]) -> None:
        for number in [number for number in self._files if number not in kept]:
            os.close(self._files.pop(number))

    def _open_log(self) -> None:
        self._log_number = self._open_file(self._log_path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._log = self._files[self._log_number]
        self._log_bytes = os.fstat(self._log).st_size
        if self._log_bytes < len(_MAGIC):
            os.ftruncate(self._log, 0)
            _write_all(self._log, _MAGIC)
            os.fsync(self._log)
            _sync_folder(self._folder)
            self._log_bytes = len(_MAGIC)

    def _undo(self) -> None:
        """Cut off what a failed put may have left; a tail that stays is cut at the next start."""
        try:
            os.ftruncate(self._log, self._log_bytes)
        except OSError:
            pass

    def _write_snapshot(self, before: list[tuple[str, bytes, int]]) -> list[int]:
        """Copy these records into a snapshot and return where they are now, packed, in the same order."""
        temporary = self._snapshot_path.with_name("records.snapshot.new")
        after: list[int] = []
        temporary.unlink(missing_ok=True)
        number = self._open_file(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            with open(os.dup(self._files[number]), "wb") as file:
                file.write(_MAGIC)
                offset = len(_MAGIC)
                for _, _, packed in before:
                    record = self._record_at(_place_of(packed))
                    file.write(record)
                    after.append(_Place(number, offset, len(record)).packed())
                    offset += len(record)
                file.write(_frame(_END))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.close(self._files.pop(number))
            temporary.unlink(missing_ok=True)  # a full disk needs the room
            raise
        os.rename(temporary, self._snapshot_path)
        _sync_folder(self._folder)
        self._old_log_path.unlink(missing_ok=True)
        _sync_folder(self._folder)
        return after


def _read_record_untrusted(payload: bytes) -> tuple[str, bytes, bytes | None]:
    """Read a record's content.

    Raises:
        MalformedInput: not such a record. State unchanged.
    """
    match unpack_untrusted(payload, bytes_max=limits.STATE_RECORD_BYTES_MAX):
        case [str(kind), bytes(key), (bytes() | None) as value]:
            return kind, key, value
    raise MalformedInput("not a state record")


def _frame(payload: bytes) -> bytes:
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def _frames(data: _Data) -> Iterator[tuple[bytes, int]]:
    """Yield (payload, position after it) of each whole record whose sum is right, up to the first bad one."""
    position = len(_MAGIC)
    while position + _HEADER.size <= len(data):
        length, crc = _HEADER.unpack_from(data, position)
        start = position + _HEADER.size
        payload = data[start : start + length]
        if len(payload) < length or zlib.crc32(payload) != crc:
            return
        position = start + length
        yield payload, position


def _is_torn_tail(rest: bytes) -> bool:
    """Tell whether `rest` may be one record whose writing a crash interrupted, and nothing after it."""
    if len(rest) < _HEADER.size:
        return True
    length, _ = _HEADER.unpack_from(rest)
    if length == 0:
        return not any(rest)  # blocks that were allocated and never written read as zeros
    reaches_past_the_end = len(rest) < _HEADER.size + length <= _HEADER.size + limits.STATE_RECORD_BYTES_MAX
    # A flipped bit in a length reaches past the end as well; whole records after it tell it apart.
    return reaches_past_the_end and not _holds_a_record(rest)


def _holds_a_record(rest: bytes) -> bool:
    """Tell whether a whole record whose sum is right stands anywhere in `rest`."""
    position = rest.find(_RECORD_START, _HEADER.size)
    while position != -1:
        length, crc = _HEADER.unpack_from(rest, position - _HEADER.size)
        payload = rest[position : position + length]
        if 0 < length == len(payload) and zlib.crc32(payload) == crc:
            return True
        position = rest.find(_RECORD_START, position + 1)
    return False


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.write(file, view)
        if written == 0:
            raise OSError(errno.ENOSPC, "nothing written")
        view = view[written:]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
