"""An authority in one file, and out of it again.

Rules:
1. What is in it is what serving needs, the records and the log: no key that is needed offline only.
2. It is taken while nobody changes anything, and put back whole or not at all.
3. Every token is spent by a restore: nobody knows which were redeemed after the backup.
4. What was restored signs nothing before the mesh was asked (`control.asking`), for Trust and for whom it
   revoked or enrolled since.
Ends at files. The archive is a tar, 0600: it holds the keys that sign who a node is.
"""

import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from gossipmesh.control.audit import read_lines
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.opening import MeshOpening
from gossipmesh.control.roots import load_authority
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.instant import WallSeconds
from gossipmesh.net.files import PARENT_MODE, make_folder
from gossipmesh.net.secret_files import (
    DIRECTORY_MODE,
    SECRET_MODE,
    read_secret,
    sync_directory,
    write_secret,
)
from gossipmesh.wire.codec import decode_json_untrusted

UNASKED_NAME: Final = "restored.json"
BYTES_MAX: Final = 4_294_967_296
_MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_KEPT: Final = re.compile(
    r"authority\.json|root\.pem|intermediate\.(?:key|pem)|credential\.key|trust\.json"
    r"|opening\.json|(?:tokens|nodes)/[a-z0-9-]{1,63}\.json|trust/[0-9]{5}\.envelope|log/[0-9]{6}\.jsonl"
    r"|next/[a-z]+/[a-z]+\.(?:key|pem)"
)


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an archive says of itself: when it was taken, and the SHA-256 of each file."""

    format: int
    taken: int
    files: dict[str, str]


class Unasked(msgspec.Struct, frozen=True):
    """What lies in a folder that was restored and has not asked the mesh."""

    taken: int
    restored: int


def make_backup(directory: Path, now: WallSeconds) -> bytes:
    """Return the archive of an authority.

    Raises:
        OperatorError: no authority, or a file that cannot be read. State unchanged.
    """
    load_authority(directory)
    ledger = Ledger(directory)
    ledger.check_log()
    with ledger.changing():
        ledger.log.append(now, "backup")
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        names = {path.relative_to(directory).as_posix(): path for path in paths}
        contents = {name: _content(name, path) for name, path in names.items() if _KEPT.fullmatch(name)}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = msgspec.json.encode(Manifest(_FORMAT, now, hashes))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in {_MANIFEST: manifest, **contents}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), SECRET_MODE, now
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def restore_backup(archive: Path, directory: Path, now: WallSeconds) -> Manifest:
    """Put an authority back into `directory`, which must be empty or not there; it may not serve yet.

    Raises:
        OperatorError: no such archive, damaged, or a folder in use. State unchanged.
    """
    if directory.exists() and any(directory.iterdir()):
        raise OperatorError(f"{directory} is not empty; an authority is restored into a folder of its own")
    manifest, contents = _read_archive(archive)
    try:
        make_folder(directory.parent, PARENT_MODE)
        workplace = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    except OSError as error:
        raise OperatorError(f"cannot create {directory}: {error.strerror}") from None
    try:
        workplace.chmod(DIRECTORY_MODE)
        for folder in ("tokens", "nodes"):
            (workplace / folder).mkdir(mode=DIRECTORY_MODE)
        for name, content in contents.items():
            write_secret(workplace / name, content)
        _settle(workplace, manifest, now)
        workplace.rename(directory)
        sync_directory(directory.parent)
    except BaseException as error:
        shutil.rmtree(workplace, ignore_errors=True)
        if isinstance(error, OSError):
            raise OperatorError(f"cannot restore {directory}: {os.strerror(error.errno or 0)}") from None
        raise
    return manifest


def require_asked(directory: Path) -> None:
    """Check that an authority that was restored has asked the mesh since.

    Raises:
        OperatorError: it has not. State unchanged.
    """
    if (directory / UNASKED_NAME).exists():
        raise OperatorError(
            f"the authority in {directory} was restored from a backup and does not know what was signed "
            f"since; run `gossipmesh authority ask-mesh --dir {directory}` where an agent is"
        )


def _content(name: str, path: Path) -> bytes:
    """Return a file's content; those of the log may be larger than any secret."""
    return read_lines(path) if name.startswith("log/") else read_secret(path)


def _settle(directory: Path, manifest: Manifest, now: WallSeconds) -> None:
    """Spend the tokens, put it on record, and say that the mesh is to be asked."""
    load_authority(directory)
    ledger = Ledger(directory)
    ledger.check_log()
    with ledger.changing():
        spent = ledger.spend_tokens(now)
        detail = f"from a backup taken {now - manifest.taken} s before; {spent} tokens spent"
        ledger.log.append(now, "restored", detail=detail)
    MeshOpening(directory).note("", now)  # it founds no mesh: nodes may have opened since
    write_secret(directory / UNASKED_NAME, msgspec.json.encode(Unasked(manifest.taken, now)))


def _read_archive(path: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Return what an archive holds, each file as its manifest says, and no other.

    Raises:
        OperatorError: unreadable, or not so. State unchanged.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, mode="r:") as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isreg() and entry.size <= BYTES_MAX else None
                if file is None or entry.name in contents:
                    raise OperatorError(f"{path} is no backup of an authority: {entry.name[:100]!r} in it")
                contents[entry.name] = file.read()
        manifest = decode_json_untrusted(contents.pop(_MANIFEST, b""), Manifest, "a list of its files")
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror or error}") from None
    except (tarfile.TarError, MalformedInput) as error:
        raise OperatorError(f"{path} is no backup of an authority ({error})"[:300]) from None
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    strange = [name for name in hashes if not _KEPT.fullmatch(name)]
    if manifest.format != _FORMAT or hashes != manifest.files or strange:
        raise OperatorError(f"{path} is damaged, or of another build: it is not what its manifest says")
    return manifest, contents
