"""A second copy of what one damaged file may not take: policy floors, Trust, and that this node was open.

A log that was cut at the end of a record looks like one that a power cut left, and its last floors are gone
without a word. So they stand in `floors.bin` as well, which is replaced whole after the log is synced and
before the core hears of it. What is read is checked as if a stranger had written it. Rules:
1. The records are judged by this file at each start: what it holds above them was on the disk, so they are
   damaged; it is put back, and the node has confirmed nothing until its peers agree with it.
2. This file is judged by its sum and its node. A damaged one, or another node's, is left aside and said.
3. Records of another node are none of ours: a node enrolled anew forgets them, any other refuses to start.
"""

import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from gossipmesh.agent.state.state_store import StateLost, StateStore
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.identity import NodeId
from gossipmesh.model.opening import KeptOpening
from gossipmesh.net.files import read_file
from gossipmesh.net.secret_files import write_file
from gossipmesh.wire.codec import decode_untrusted, encode

log = logging.getLogger("gossipmesh.agent.restore")

FILE_NAME: Final = "floors.bin"
OWNER: Final = "owner"  # a kind of record beside the core's: the node that the records are of
_MAGIC: Final = b"gossipmesh-floors-1\n"
_SUM_BYTES: Final = 4
_MODE: Final = 0o600
_OPENING_BYTES_MAX: Final = 256
COPIED: Final = (PersistKind.FLOOR, PersistKind.TRUST, PersistKind.OPENING)

Row = tuple[str, bytes, bytes]


class _Copy(msgspec.Struct, frozen=True, array_like=True):
    node_id: bytes
    rows: tuple[Row, ...]


class FloorsFile:
    """The second copy in a state folder of one node."""

    def __init__(self, folder: Path, node_id: NodeId) -> None:
        self._path = folder / FILE_NAME
        self._node_id = bytes(node_id)

    def write(self, store: StateStore) -> None:
        """Copy what the records hold; may block, as disks do.

        Raises:
            StateLost: the disk does not take it. The file holds what it held before.
        """
        rows = tuple((str(kind), key, value) for kind in COPIED for key, value in store.items(kind))
        data = encode(_Copy(self._node_id, rows))
        content = _MAGIC + zlib.crc32(data).to_bytes(_SUM_BYTES, "big") + data
        try:
            write_file(self._path, content, mode=_MODE)
        except OperatorError as error:
            raise StateLost(str(error)) from None

    def reconcile(self, store: StateStore, *, enrolled_now: bool) -> None:
        """Judge records and copy by each other at a start, and make them equal.

        What the records lack is put back and told as damage of theirs; the copy is written anew by `write`.

        Raises:
            OperatorError: the records are another node's, or the disk takes nothing.
        """
        self._require_own(store, enrolled_now=enrolled_now)
        missing = [row for row in self._read() if _is_missing(store, row)]
        if missing:
            store.put_all(missing, durable=True)
            kinds = ", ".join(dict.fromkeys(kind for kind, _, _ in missing))
            store.damage.append(f"the records lack what {self._path} holds of them ({kinds}); it is put back")

    def _require_own(self, store: StateStore, *, enrolled_now: bool) -> None:
        owner = store.get(OWNER, b"")
        if owner is not None and owner != self._node_id:
            if not enrolled_now:
                raise OperatorError(
                    f"the records in {self._path.parent} are those of another node ({owner.hex()[:16]}, this "
                    f"is {self._node_id.hex()[:16]}); move records.log, records.snapshot and {FILE_NAME} "
                    "away, then start the agent again: it asks its peers for what it needs"
                )
            log.warning("the records of the node that was here before are forgotten")
            kinds = [*map(str, PersistKind), OWNER]
            store.put_all([(kind, key, None) for kind in kinds for key, _ in store.items(kind)], durable=True)
        store.put(OWNER, b"", self._node_id, durable=True)

    def _read(self) -> tuple[Row, ...]:
        """Return what the file holds for this node, nothing where it is of no use."""
        try:
            content = read_file(self._path, limits.FLOORS_FILE_BYTES_MAX)
            copy = _decode_untrusted(content)
        except FileNotFoundError:
            return ()
        except (OSError, OperatorError, MalformedInput) as error:
            log.error("%s cannot be used and is written anew: %s", self._path, error)
            return ()
        if copy.node_id != self._node_id:
            log.error("%s is of another node, and is written anew", self._path)
            return ()
        return copy.rows


class CopiedStore:
    """The records as the writer sees them: what is copied is in both files before a durable write is over."""

    def __init__(self, store: StateStore, copy: FloorsFile) -> None:
        self._store = store
        self._copy = copy
        self.order = store.order

    @property
    def rotation_due(self) -> bool:
        """Tell whether the log holds more history than content."""
        return self._store.rotation_due

    async def rotate(self) -> None:
        """Write a snapshot, as the store does.

        Raises:
            StateLost: the disk is full or broken; nothing kept is lost.
        """
        await self._store.rotate()

    def put_all(self, entries: Sequence[tuple[str, bytes, bytes | None]], *, durable: bool) -> None:
        """Keep each value, and copy what may not be lost.

        Raises:
            StateLost: the disk is full or broken. The records hold what was put, or what they held before.
        """
        self._store.put_all(entries, durable=durable)
        if durable and any(kind in COPIED for kind, _, _ in entries):
            self._copy.write(self._store)


def _decode_untrusted(content: bytes) -> _Copy:
    """Read the file's content.

    Raises:
        MalformedInput: not such a file, or not as it was written. State unchanged.
    """
    begin = len(_MAGIC) + _SUM_BYTES
    data = content[begin:]
    if content[: len(_MAGIC)] != _MAGIC:
        raise MalformedInput("it does not begin as a file of this version does")
    if zlib.crc32(data).to_bytes(_SUM_BYTES, "big") != content[len(_MAGIC) : begin]:
        raise MalformedInput("its sum is not that of its content")
    return decode_untrusted(data, _Copy, bytes_max=limits.FLOORS_FILE_BYTES_MAX)


def _is_missing(store: StateStore, row: Row) -> bool:
    """Tell whether the records hold less than a row of the copy."""
    kind, key, value = row
    held = store.get(kind, key)
    if held is None:
        return kind in COPIED
    if kind == PersistKind.OPENING:
        return _how_untrusted(value) != "" and _how_untrusted(held) == ""
    return kind == PersistKind.FLOOR and _floor_untrusted(value) > _floor_untrusted(held)


def _how_untrusted(value: bytes) -> str:
    """Return by what a node was opened; empty for not at all, and for what cannot be read."""
    try:
        return decode_untrusted(value, KeptOpening, bytes_max=_OPENING_BYTES_MAX).how
    except MalformedInput:
        return ""


def _floor_untrusted(value: bytes) -> tuple[int, bytes]:
    """Return a floor as it is ordered; what cannot be read is below all others."""
    try:
        found: tuple[int, bytes] = decode_untrusted(value, tuple[int, bytes], bytes_max=1_024)
    except MalformedInput:
        return (0, b"")
    return found
