"""Targets that read files: a node's identity, records and floors; an authority's log and backups."""

import hashlib
import io
import logging
import shutil
import tarfile
import zlib
from pathlib import Path

import msgspec

from gossipmesh.agent.identity.identity_store import (
    FILE_NAME as IDENTITY_NAME,
)
from gossipmesh.agent.identity.identity_store import (
    _IdentityBefore,
    _SvidBefore,
    encode_stored,
    load_identity,
    open_stored_untrusted,
)
from gossipmesh.agent.state.floors_file import _MAGIC, COPIED, FILE_NAME, FloorsFile, _Copy
from gossipmesh.agent.state.restore import remember_enrolment, restore_documents, restore_state
from gossipmesh.agent.state.state_store import _MAGIC as RECORDS_MAGIC
from gossipmesh.agent.state.state_store import StateStore, _frame
from gossipmesh.control.audit import AuditLog
from gossipmesh.control.backup import _MANIFEST, Manifest, make_backup, restore_backup
from gossipmesh.gossip.base.effects import PersistKind
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.instant import DAY_S, WallSeconds
from gossipmesh.model.opening import KeptOpening
from gossipmesh.trust.keys import Verifier
from gossipmesh.wire.codec import encode
from tests.fuzz.decoders import DOMAIN, Target, signed_records
from tests.fuzz.enrolled import NOW, PLACE, Enrolled, folder

DECLARED = (OperatorError,)
LATER = WallSeconds(NOW + 60)


def identity_target(made: Enrolled) -> Target:
    stored, directory = made.stored(), folder("identity")
    path = directory / IDENTITY_NAME
    path.touch(mode=0o600)
    before = _IdentityBefore(
        1,
        stored.trust_domain,
        PLACE,
        stored.credential,
        stored.signing_seed,
        stored.exchange_seed,
        stored.trust,
        tuple(_SvidBefore(one.spiffe_id, one.current.chain, one.current.key) for one in stored.keys),
    )

    def feed(data: bytes) -> tuple[int, int]:
        path.write_bytes(data)
        identity = load_identity(directory)
        assert identity is not None
        assert identity.node_svid.spiffe_id == identity.spiffe_id
        assert identity.credential_body.signing_key == identity.signing.public
        return 0, 1

    corpus = [encode_stored(stored), msgspec.json.encode(before)]
    return Target("identity-file", 2, "json", corpus, feed, 0, 1, True, DECLARED)


def _rows(made: Enrolled) -> list[tuple[str, bytes, bytes | None]]:
    """Return one record of each kind that a node keeps, and one that was removed."""
    return [
        (PersistKind.EPOCH, b"", encode(3)),
        (PersistKind.FLOOR, b"mesh", encode([7, b"h" * 32])),
        (PersistKind.OPENING, b"", encode(KeptOpening("by peers", 3, True, NOW))),
        (PersistKind.TRUST, bytes(8), made.issued.trust[0]),
        (PersistKind.POLICY_SET, b"mesh", DOMAIN.policy_set(3).to_bytes()),
        (PersistKind.MEMBER, b"m" * 16, encode(signed_records())),
        (PersistKind.MEMBER, b"n" * 16, None),
    ]


def state_targets(made: Enrolled) -> list[Target]:
    identity = open_stored_untrusted(made.stored())
    node_id = identity.credential_body.node_id
    directory = folder("state")
    rows = _rows(made)
    records = [encode([str(kind), key, value]) for kind, key, value in rows]
    whole = RECORDS_MAGIC + b"".join(map(_frame, records))
    copied = tuple((str(kind), key, value) for kind, key, value in rows if kind in COPIED and value)
    copies = [encode(_Copy(node_id, copied)), encode(_Copy(node_id, ()))]

    def start(log: bytes, floors: bytes | None) -> int:
        """Start a node from these files, and once more from what that left."""
        for path in directory.iterdir():
            path.unlink()
        (directory / "records.log").write_bytes(log)
        if floors is not None:
            (directory / FILE_NAME).write_bytes(floors)
        logging.disable(logging.CRITICAL)  # each damage is told, and kept by whoever captures the log
        try:
            return _started(directory) + _started(directory)
        finally:
            logging.disable(logging.NOTSET)

    def _started(there: Path) -> int:
        store = StateStore(there)
        try:
            copy = FloorsFile(there, node_id)
            copy.reconcile(store, enrolled_now=False)
            remember_enrolment(store, None, NOW)
            restore_documents(identity, store, Verifier(64))
            restored = restore_state(store, NOW, ends=WallSeconds(NOW + DAY_S), enrolled_now=False)
            copy.write(store)
            assert restored.epoch >= 0
            return len(restored.members)
        finally:
            store.close()

    def feed_log(data: bytes) -> tuple[int, int]:
        return 0, start(data, None)

    def feed_record(data: bytes) -> tuple[int, int]:
        """The sum is right: what a program wrote that was wrong, or of another build."""
        return 0, start(RECORDS_MAGIC + _frame(data) + _frame(records[0]), None)

    def feed_floors(data: bytes) -> tuple[int, int]:
        sum_bytes = zlib.crc32(data).to_bytes(4, "big")
        return 0, start(whole, _MAGIC + sum_bytes + data)

    return [
        Target("records-log", 2, "bytes", [whole], feed_log, 0, 40, True, DECLARED),
        Target("records-value", 2, "mixed", records, feed_record, 0, 40, True, DECLARED),
        Target("floors-file", 2, "mixed", copies, feed_floors, 0, 40, True, DECLARED),
    ]


def audit_target(made: Enrolled) -> Target:
    lines = (made.directory / "log" / "000001.jsonl").read_bytes().splitlines()
    directory = folder("audit")
    (directory / "log").mkdir(mode=0o700)
    path = directory / "log" / "000001.jsonl"
    path.touch(mode=0o600)
    chained_at = len('{"before":"')
    following = hashlib.sha256(lines[0]).hexdigest().encode()

    def feed(data: bytes) -> tuple[int, int]:
        """Its hash is right, most times: whoever changed a line may have mended the chain."""
        line = data
        if len(data) % 4:
            line = data[:chained_at] + following + data[chained_at + len(following) :]
        path.write_bytes(lines[0] + b"\n" + line + b"\n")
        for other in directory.joinpath("log").iterdir():
            if other != path:
                other.unlink()
        log = AuditLog(directory)
        log.catch_up()
        count = sum(1 for _ in log.deeds())
        log.append(NOW, "token", node="n1", detail="\u2028\n\ud800")
        assert AuditLog(directory).catch_up() is None, "what was appended does not hold"
        return 0, count

    return Target("audit-log", 3, "json", lines, feed, 0, 200, True, DECLARED)


def backup_targets(made: Enrolled) -> list[Target]:
    directory = folder("backups")
    path, restored = directory / "backup", directory / "restored"
    path.touch(mode=0o600)
    archive = make_backup(made.directory, NOW)
    contents = _unpacked(archive)
    corpus = [name.encode() + b"\0" + content for name, content in contents.items()]

    def feed(data: bytes) -> tuple[int, int]:
        path.write_bytes(data)
        try:
            restore_backup(path, restored, LATER)
        finally:
            shutil.rmtree(restored, ignore_errors=True)
        assert not [left for left in directory.iterdir() if left != path], "half of it was left"
        return 0, 1

    def feed_file(data: bytes) -> tuple[int, int]:
        """One file of it is broken, and its manifest says that it is so."""
        name, _, content = data.partition(b"\0")
        return feed(_packed({**contents, name.decode(errors="replace"): content}))

    return [
        Target("backup-archive", 1, "bytes", [archive], feed, 0, 1, True, DECLARED),
        Target("backup-file", 1, "bytes", corpus, feed_file, 0, 1, True, DECLARED),
    ]


def _unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        files = {one.name: opened.extractfile(one) for one in opened if one.name != _MANIFEST}
        return {name: file.read() for name, file in files.items() if file is not None}


def _packed(contents: dict[str, bytes]) -> bytes:
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = msgspec.json.encode(Manifest(1, NOW, hashes))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in {_MANIFEST: manifest, **contents}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def file_targets() -> list[Target]:
    """Return every target of this module."""
    made = Enrolled("files")
    return [identity_target(made), *state_targets(made), audit_target(made), *backup_targets(made)]
