"""Whether any node of the mesh has said that it is open: until then whoever enrols founds it.

One small file, `opening.json`, in the authority's folder, replaced whole and fsynced. An authority that has
enrolled nodes and has no such file is of a build before it, and its mesh is open. Needs the ledger's lock.
"""

from pathlib import Path
from typing import Final

import msgspec

from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.net.secret_files import read_secret, write_secret
from gossipmesh.wire.codec import decode_json_untrusted

FILE_NAME: Final = "opening.json"


class Opened(msgspec.Struct, frozen=True):
    """`by` is the node that said so first, empty while none has, or where that is not known any more."""

    is_open: bool
    by: str = ""
    at: int = 0


class MeshOpening:
    """What one authority knows of it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def is_open(self, *, has_enrolled: bool) -> bool:
        """Tell whether a node is open, or may be; `has_enrolled`: there are enrolments on record.

        Raises:
            OperatorError: the file is damaged, or cannot be read. State unchanged.
        """
        if not self._path.exists():
            return has_enrolled
        try:
            return decode_json_untrusted(read_secret(self._path), Opened, "a record of this build").is_open
        except MalformedInput as error:
            raise OperatorError(f"{self._path} is damaged ({error}); restore it from a backup") from None

    def begin(self, *, is_open: bool) -> None:
        """Put on record how it stands, where nothing is on record yet.

        Raises:
            OperatorError: not written. State unchanged.
        """
        if not self._path.exists():
            self._write(Opened(is_open))

    def note(self, node: str, now: int) -> None:
        """Put on record that a node is open.

        Raises:
            OperatorError: not written. State unchanged.
        """
        self._write(Opened(True, node, now))

    def _write(self, opened: Opened) -> None:
        write_secret(self._path, msgspec.json.encode(opened) + b"\n")
