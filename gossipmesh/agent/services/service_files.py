"""Services of this node, from the files in services.d.

A file that cannot be used is told as problems and leaves what it said before in force; a file that is
gone takes its service with it. Ends at values: checks are run by `agent.services.health`, spread by
`agent.services.node_services`.
"""

import os
import pwd
from pathlib import Path
from typing import Final, Literal

import msgspec

from gossipmesh.model import limits
from gossipmesh.model.durations import parse_duration_untrusted
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.identity import is_label, is_service_name
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.model.service import Protocol
from gossipmesh.net.files import UnsafeFile, read_file, require_own_folder
from gossipmesh.wire.yaml_source import Problem, YamlDocument, YamlErrors, check_shape, parse_yaml_untrusted

_INTERVAL_NS_MIN: Final = SECOND_NS // 10
_SUFFIXES: Final = (".yaml", ".yml")
_TCP: Final = "`tcp: true` (the workload's own address) or `tcp: ADDRESS:PORT`"
_FOLDER: Final = ""  # whose problems are the folder's own

_Stamp = tuple[int, int, int, int]
"""When a file's content and its owner or mode changed, its size, its inode: read again when they differ."""


class CheckSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`http` is a path asked of the workload, `tcp` where to connect to: true is the workload, as "" was."""

    http: str | None = None
    tcp: bool | str | None = None
    interval: str = "5s"
    timeout: str = "1s"


class UpstreamSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`service` is `name` (same namespace) or `namespace/name`; `bind` is the port the workload uses."""

    service: str
    bind: str


class ServiceMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`registration` tells two workloads of one service on one node apart; default is `name`."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] = {}
    registration: str | None = None


class ServiceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`user` owns the workload's process: by default the agent's own user."""

    address: str
    protocol: Literal["http", "tcp"] = "http"
    user: str | int | None = None
    weight: int = 100
    checks: tuple[CheckSpec, ...] = ()
    upstreams: tuple[UpstreamSpec, ...] = ()


class ServiceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    apiVersion: Literal["gossipmesh.dev/v1"]
    kind: Literal["Service"]
    metadata: ServiceMetadata
    spec: ServiceSpec


class HealthCheck(msgspec.Struct, frozen=True):
    """One check of a workload; `path` None: a TCP connect is enough."""

    address: Address
    path: str | None
    interval_ns: int
    timeout_ns: int


class LocalRegistration(msgspec.Struct, frozen=True):
    """One service of this node as its file declares it; `labels` sorted by key."""

    registration: str
    service: str
    protocol: Protocol
    workload: Address
    uid: int
    weight: int
    labels: tuple[tuple[str, str], ...]
    checks: tuple[HealthCheck, ...]
    upstreams: tuple[tuple[str, Address], ...]


class ServicesFolder:
    """The folder's files and what each last said that could be used. One thread at a time uses it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._seen: dict[str, _Stamp] = {}
        self._by_file: dict[str, LocalRegistration] = {}
        self._unread: set[str] = set()
        self.problems: dict[str, list[Problem]] = {}

    def registrations(self) -> list[LocalRegistration]:
        """Return the usable registrations, sorted by registration, no duplicates."""
        return sorted(self._by_file.values(), key=lambda entry: entry.registration)

    def scan(self) -> bool:
        """Look for files that came, went or changed, or can be read at last; tell whether any did.

        A folder that cannot be listed (no descriptor left, a broken disk), or that others may write, leaves
        everything as it was: that must not take this node's services out of the mesh. May block, as disks do.
        """
        told = dict(self.problems)
        try:
            found, problem = self._list_files()
        except OSError as error:
            self._tell_of_folder(f"cannot be read: {error.strerror}; the services go on as they were")
            return self.problems != told
        except UnsafeFile as error:
            self._tell_of_folder(f"{error}; the services go on as they were")
            return self.problems != told
        self._tell_of_folder(problem)
        seen, self._seen = self._seen, found
        if found != seen or self._unread:
            self._take(found, seen)
        return found != seen or self.problems != told

    def _take(self, found: dict[str, _Stamp], seen: dict[str, _Stamp]) -> None:
        for name in [name for name in self._by_file if name not in found]:
            del self._by_file[name]
        for name in [name for name in self.problems if name not in found and name != _FOLDER]:
            del self.problems[name]
        # Files that only clashed with another one get their chance again when anything changes.
        changed = [name for name in found if found[name] != seen.get(name) or name in self.problems]
        self._unread.clear()
        for name in changed:
            self._read(name)

    def _tell_of_folder(self, problem: str) -> None:
        self.problems.pop(_FOLDER, None)
        if problem:
            self.problems[_FOLDER] = [Problem(str(self.path), 1, 1, "$", "GM1001", problem)]

    def _list_files(self) -> tuple[dict[str, _Stamp], str]:
        """Return the files with their stamps, and what is wrong with the folder.

        Raises:
            OSError: it cannot be listed. State unchanged.
            UnsafeFile: others may write it. State unchanged.
        """
        found: dict[str, _Stamp] = {}
        try:
            require_own_folder(self.path)
            names = sorted(os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return found, ""  # no folder, no services; it may come later
        for name in [name for name in names if name.endswith(_SUFFIXES) and name[0] != "."]:
            if len(found) == limits.SERVICE_FILES_MAX:
                return (
                    found,
                    f"{limits.SERVICE_FILES_MAX} files are allowed: {name} and those after it are not read",
                )
            try:
                status = os.stat(self.path / name)
            except FileNotFoundError:
                continue
            except OSError:
                # What it said before holds; if it said nothing yet, reading it tells why not.
                found[name] = self._seen.get(name, (0, 0, 0, 0))
            else:
                found[name] = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        return found, ""

    def _read(self, name: str) -> None:
        path = self.path / name
        self.problems.pop(name, None)
        try:
            text = read_file(path, limits.YAML_BYTES_MAX).decode("utf-8")
            registration = parse_service_untrusted(text, str(path))
            self._refuse_twice(name, registration)
        except YamlErrors as errors:
            self.problems[name] = errors.problems
        except (OSError, UnsafeFile, UnicodeDecodeError) as error:
            self.problems[name] = [Problem(str(path), 1, 1, "$", "GM1001", f"cannot be read: {error}")]
            if not isinstance(error, UnicodeDecodeError):
                self._unread.add(name)
        else:
            self._by_file[name] = registration

    def _refuse_twice(self, name: str, registration: LocalRegistration) -> None:
        for other, known in self._by_file.items():
            if other != name and known.registration == registration.registration:
                message = (
                    f"the registration {registration.registration!r} is {other}'s already; "
                    "give this one a metadata.registration of its own"
                )
                raise YamlErrors([Problem(str(self.path / name), 1, 1, "$.metadata", "GM1030", message)])


def parse_service_untrusted(text: str, file: str) -> LocalRegistration:
    """Read one service file.

    Raises:
        YamlErrors: every mistake, each with its line and column. State unchanged.
    """
    documents = parse_yaml_untrusted(text, file)
    if len(documents) != 1:
        message = f"{len(documents)} documents, exactly one Service expected"
        raise YamlErrors([Problem(file, 1, 1, "$", "GM1015", message)])
    shaped, problems = check_shape(documents[0], ServiceFile)
    if shaped is None:
        raise YamlErrors(problems)
    reader = _Reader(documents[0], shaped)
    registration = reader.read()
    if reader.problems:
        raise YamlErrors(sorted(reader.problems, key=lambda problem: (problem.line, problem.column)))
    return registration


class _Reader:
    """Turns a well-shaped file into a registration and notes what its types cannot say."""

    def __init__(self, document: YamlDocument, file: ServiceFile) -> None:
        self._document = document
        self._file = file
        self.problems: list[Problem] = []

    def read(self) -> LocalRegistration:
        """Return the registration; worthless when `problems` is not empty."""
        metadata, spec = self._file.metadata, self._file.spec
        for key in ("name", "namespace", "registration"):
            text = getattr(metadata, key)
            if text is not None and not is_label(text):
                self._note(f"{text[:80]!r} is no name: lower-case letters, digits and -", "metadata", key)
        if not 1 <= spec.weight <= 65_535:
            self._note(f"a weight in 1..65535 expected, found {spec.weight}", "spec", "weight")
        workload = self._read_address(spec.address, "spec", "address")
        return LocalRegistration(
            registration=metadata.registration or metadata.name,
            service=f"{metadata.namespace}/{metadata.name}",
            protocol=Protocol(spec.protocol),
            workload=workload,
            uid=self._read_user(),
            weight=spec.weight,
            labels=self._read_labels(),
            checks=self._read_checks(workload),
            upstreams=self._read_upstreams(),
        )

    def _read_labels(self) -> tuple[tuple[str, str], ...]:
        labels = self._file.metadata.labels
        if len(labels) > limits.LABELS_PER_SERVICE_MAX:
            allowed = limits.LABELS_PER_SERVICE_MAX
            self._note(f"{len(labels)} labels, {allowed} allowed", "metadata", "labels")
        for key, value in labels.items():
            if not key or len(key.encode()) + len(value.encode()) > limits.LABEL_BYTES_MAX:
                message = f"a label of 1..{limits.LABEL_BYTES_MAX} bytes with its value expected"
                self._note(message, "metadata", "labels", key)
        return tuple(sorted(labels.items()))

    def _read_user(self) -> int:
        user = self._file.spec.user
        if user is None:
            return os.geteuid()
        if isinstance(user, int):
            return user
        try:
            return pwd.getpwnam(user).pw_uid
        except KeyError:
            self._note(f"there is no user {user[:80]!r} on this machine", "spec", "user")
            return -1

    def _read_checks(self, workload: Address) -> tuple[HealthCheck, ...]:
        specs = self._file.spec.checks
        if len(specs) > limits.CHECKS_PER_SERVICE_MAX:
            self._note(f"{len(specs)} checks, {limits.CHECKS_PER_SERVICE_MAX} allowed", "spec", "checks")
        return tuple(self._read_check(spec, index, workload) for index, spec in enumerate(specs))

    def _read_check(self, spec: CheckSpec, index: int, workload: Address) -> HealthCheck:
        place = ("spec", "checks", index)
        if (spec.http is None) == (spec.tcp is None):
            self._note(f"either `http: /path` or {_TCP} expected", *place)
        if spec.tcp is False:
            self._note(f"{_TCP} expected; leave `tcp` out for none", *place, "tcp")
        if spec.http is not None and (not spec.http.startswith("/") or not spec.http.isascii()):
            self._note("a path that starts with / expected", *place, "http")
        if spec.http is not None and any(character <= " " for character in spec.http):
            self._note("a path without spaces expected", *place, "http")
        address = workload
        if isinstance(spec.tcp, str) and spec.tcp:
            address = self._read_address(spec.tcp, *place, "tcp", instead=f"; {_TCP} expected")
        interval_ns = self._read_duration(spec.interval, *place, "interval")
        timeout_ns = self._read_duration(spec.timeout, *place, "timeout")
        return HealthCheck(address, spec.http, interval_ns, timeout_ns)

    def _read_upstreams(self) -> tuple[tuple[str, Address], ...]:
        specs = self._file.spec.upstreams
        if len(specs) > limits.UPSTREAMS_PER_SERVICE_MAX:
            allowed = limits.UPSTREAMS_PER_SERVICE_MAX
            self._note(f"{len(specs)} upstreams, {allowed} allowed", "spec", "upstreams")
        upstreams: list[tuple[str, Address]] = []
        for index, spec in enumerate(specs):
            place = ("spec", "upstreams", index)
            namespaced = "/" in spec.service
            service = spec.service if namespaced else f"{self._file.metadata.namespace}/{spec.service}"
            if not is_service_name(service):
                self._note(f"{spec.service[:80]!r} is no service: name or namespace/name", *place, "service")
            upstreams.append((service, self._read_address(spec.bind, *place, "bind")))
        return tuple(upstreams)

    def _read_address(self, text: str, *path: str | int, instead: str = "") -> Address:
        try:
            address = Address.parse(text)
        except MalformedInput as error:
            self._note(f"{error}{instead}", *path)
            return Address("127.0.0.1", 0)
        if address.port == 0:
            self._note("a port in 1..65535 expected", *path)
        return address

    def _read_duration(self, text: str, *path: str | int) -> int:
        try:
            duration_ns = parse_duration_untrusted(text)
        except MalformedInput as error:
            self._note(str(error), *path)
            return SECOND_NS
        if duration_ns < _INTERVAL_NS_MIN:
            self._note("at least 100ms expected", *path)
        return duration_ns

    def _note(self, message: str, *path: str | int) -> None:
        self.problems.append(self._document.problem(path, "GM1014", message))
