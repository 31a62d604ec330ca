"""What an authority must remember: tokens made and spent, and the enrolment of each node.

One file per token and per node, replaced whole and fsynced before anybody is answered, so that a token is
redeemed once whatever happens. Of a token's secret only the hash is kept. One process redeems at a time
(`hold`); making tokens beside it only adds files. Ends at facts; who gets what is `control.issuing`'s.
"""

import fcntl
import hashlib
import hmac
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from gossipmesh.control.audit import AuditLog
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.identity import is_label
from gossipmesh.model.instant import DAY_S, WallSeconds
from gossipmesh.net.files import open_file
from gossipmesh.net.secret_files import read_secret, write_secret
from gossipmesh.wire.codec import decode_json_untrusted

TOKEN_ID_BYTES: Final = 8
FORGET_TOKENS_AFTER_S: Final = 30 * DAY_S
_COUNTED_MAX: Final = 64

T = TypeVar("T")


class TokenRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token as the authority remembers it; `used` is wall seconds, None while it can be redeemed."""

    token_id: str
    secret_sha256: str
    node: str
    services: tuple[str, ...]
    created: int
    expires: int
    used: int | None = None

    def holds(self, secret: str) -> bool:
        """Tell whether `secret` is this token's, in constant time."""
        return hmac.compare_digest(hash_secret(secret), self.secret_sha256)


class Enrolment(msgspec.Struct, frozen=True):
    """A node as the authority knows it: what a renewal is measured by.

    `serial` is of the last issue; `credential` is the signed record that was answered last (empty: of a build
    before these were kept), `ends` its end; `revoked` is since when, None for never. `line` is the newest of
    the log when this was written: a log that ends before it lost lines.
    """

    node: str
    generation: int
    serial: int
    signing_key: bytes
    exchange_key: bytes
    services: tuple[str, ...]
    enrolled: int
    ends: int
    credential: bytes = b""
    revoked: int | None = None
    line: int = 0


def hash_secret(secret: str) -> str:
    """Return what is kept of a token's secret."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


class Ledger:
    """The two folders of records, under an authority's directory."""

    def __init__(self, directory: Path) -> None:
        self._tokens = directory / "tokens"
        self._nodes = directory / "nodes"
        self._lock = directory / "serving.lock"
        self._change_lock = directory / "ledger.lock"
        self.log = AuditLog(directory)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the one process that redeems tokens here.

        Raises:
            OperatorError: another one is. State unchanged.
        """
        descriptor = _open_lock(self._lock)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise OperatorError(
                    f"another `gossipmesh authority serve` runs on {self._lock.parent}; stop it first"
                ) from None
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one who reads a record in order to write it: the server, or a command beside it.

        May block, for as long as another's change takes.

        Raises:
            OperatorError: the folder cannot be written. State unchanged.
        """
        descriptor = _open_lock(self._change_lock)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def add_token(self, record: TokenRecord) -> None:
        """Remember a new token.

        Raises:
            OperatorError: not written. State unchanged.
        """
        self._write(self._tokens / f"{record.token_id}.json", record)

    def token(self, token_id: str) -> TokenRecord | None:
        """Return the record of a token; None when there is none, or the id is no id."""
        if len(token_id) != 2 * TOKEN_ID_BYTES or not token_id.isalnum() or not token_id.isascii():
            return None
        return self._read(self._tokens / f"{token_id}.json", TokenRecord)

    def spend_token(self, record: TokenRecord, now: WallSeconds) -> None:
        """Remember, on disk, that a token was redeemed.

        Raises:
            OperatorError: not written; the token can still be redeemed.
        """
        self._write(self._tokens / f"{record.token_id}.json", msgspec.structs.replace(record, used=now))

    def spend_tokens(self, now: WallSeconds, node: str | None = None) -> int:
        """Spend every token, or every one for a node, that can still be redeemed; return how many.

        Raises:
            OperatorError: not written; some may be spent.
        """
        spent = 0
        for path in sorted(self._tokens.glob("*.json")):
            record = self._read(path, TokenRecord)
            if record is None or record.used is not None or record.expires <= now:
                continue
            if node is None or record.node == node:
                self.spend_token(record, now)
                spent += 1
        return spent

    def forget_tokens(self, now: WallSeconds) -> int:
        """Remove the records of tokens that ended long ago; return how many."""
        forgotten = 0
        for path in sorted(self._tokens.glob("*.json")):
            record = self._read(path, TokenRecord)
            if record is not None and record.expires + FORGET_TOKENS_AFTER_S < now:
                path.unlink(missing_ok=True)
                forgotten += 1
        return forgotten

    def enrolment(self, node: str) -> Enrolment | None:
        """Return what is known of a node; None when it never enrolled."""
        return self._read(self._nodes / f"{node}.json", Enrolment) if is_label(node) else None

    def put_enrolment(self, enrolment: Enrolment) -> None:
        """Remember a node, on disk.

        Raises:
            OperatorError: not written; what was known stands.
        """
        known = msgspec.structs.replace(enrolment, line=self.log.count)
        self._write(self._nodes / f"{enrolment.node}.json", known)

    def nodes(self) -> list[str]:
        """Return the names of the nodes on record, sorted."""
        return sorted(path.stem for path in self._nodes.glob("*.json"))

    def standing_count(self, names: Sequence[str]) -> int:
        """Return how many of these nodes were not taken out; in a large mesh all, for a few make no odds."""
        if len(names) > _COUNTED_MAX:
            return len(names)
        known = (self.enrolment(name) for name in names)
        return sum(1 for one in known if one is not None and one.revoked is None)

    def check_log(self) -> str | None:
        """Verify the log from its first line, and that it goes as far as the records.

        Returns:
            A sentence about a line torn by a crash, None when there was none.

        Raises:
            OperatorError: it does not hold, or lost its newest lines. State unchanged.
        """
        with self.changing():
            torn = self.log.catch_up()
            for node in self.nodes():
                known = self.enrolment(node)
                if known is not None and known.line > self.log.count:
                    raise OperatorError(
                        f"the log of what this authority did ends at line {self.log.count}, and {node} was "
                        f"enrolled or renewed at line {known.line}: its newest lines were removed; restore "
                        "the authority from a backup, or find out by whom"
                    )
        return torn

    def _write(self, path: Path, value: TokenRecord | Enrolment) -> None:
        write_secret(path, msgspec.json.encode(value) + b"\n")

    def _read(self, path: Path, shape: type[T]) -> T | None:
        if not path.exists():
            return None
        try:
            return decode_json_untrusted(read_secret(path), shape, "a record of this build")
        except MalformedInput as error:
            raise OperatorError(f"{path} is damaged ({error}); restore it from a backup") from None


def _open_lock(path: Path) -> int:
    try:
        return open_file(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise OperatorError(f"cannot open {path}: {error.strerror}") from None
