"""The agent's configuration file, read once at start, every mistake at once.

Ends at typed values: whether a port is free or a folder writable is found by whoever uses it.
Every key is explained in configs/agent.example.yaml.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from gossipmesh.agent.identity.key_turning import PERIOD_S_DEFAULT
from gossipmesh.agent.seeds import Seed, parse_seed
from gossipmesh.model import access_log, limits
from gossipmesh.model.access_log import AccessLogSettings
from gossipmesh.model.durations import parse_duration_untrusted
from gossipmesh.model.enrolment import AUTHORITIES_MAX
from gossipmesh.model.errors import MalformedInput, OperatorError, UsageError
from gossipmesh.model.host_port import is_host_port
from gossipmesh.model.instant import DAY_S, HOUR_S, SECOND_NS
from gossipmesh.model.member import Address
from gossipmesh.net.files import read_file
from gossipmesh.wire.yaml_source import Problem, YamlDocument, YamlErrors, check_shape, parse_yaml_untrusted

_WILDCARDS: Final = ("0.0.0.0", "::")
KEY_PERIOD_S_MIN: Final = 5  # a few times what a key set takes to reach everybody
KEY_PERIOD_S_MAX: Final = 30 * DAY_S
DRAIN_S_MAX: Final = HOUR_S
ENGINE_WORKERS_MAX: Final = 1_024
_PORT_ZERO: Final = "port 0 would be another one at each start; give a port in 1..65535"


class BindSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to listen."""

    bind: str


class AdvertisedSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to listen, and what to tell others when that differs."""

    bind: str
    advertise: str | None = None


class AccessLogSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the engine's lines go, and how much of them is kept: `keep` files of `maxBytes` each."""

    path: str | None = None
    maxBytes: Annotated[int, msgspec.Meta(ge=access_log.BYTES_MAX_MIN, le=access_log.BYTES_MAX_MAX)] = (
        access_log.BYTES_MAX_DEFAULT
    )
    keep: Annotated[int, msgspec.Meta(ge=1, le=access_log.KEEP_MAX)] = access_log.KEEP_DEFAULT
    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


class EngineKind(StrEnum):
    """Which engine: the best of this build, the one in Python, or a program of the operator's."""

    AUTO = "auto"
    REFERENCE = "reference"
    COMMAND = "command"


class EngineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which program moves this node's traffic, and how long one that is replaced may finish what it has."""

    kind: EngineKind = EngineKind.AUTO
    command: tuple[str, ...] = ()
    workers: Annotated[int, msgspec.Meta(ge=1, le=ENGINE_WORKERS_MAX)] | None = None
    drainTimeout: str = "45s"


class EngineChoice(msgspec.Struct, frozen=True):
    """An engine as it is started: `command` for the kind of that name alone, `workers` None for its own."""

    kind: EngineKind = EngineKind.AUTO
    command: tuple[str, ...] = ()
    workers: int | None = None
    drain_timeout_s: float = 45.0


class AgentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys below `spec`, as they are written."""

    stateDir: str = "/var/lib/gossipmesh"
    servicesDir: str = "/etc/gossipmesh/services.d"
    tokenFile: str | None = None
    seeds: tuple[str, ...] = ()
    authorities: tuple[str, ...] = ()
    gossip: AdvertisedSpec = AdvertisedSpec("0.0.0.0:7948")
    mesh: AdvertisedSpec = AdvertisedSpec("0.0.0.0:15008")
    proxy: BindSpec = BindSpec("127.0.0.1:15080")
    api: BindSpec = BindSpec("127.0.0.1:15000")
    metrics: BindSpec = BindSpec("127.0.0.1:15020")
    readiness: BindSpec = BindSpec("127.0.0.1:15021")
    accessLog: AccessLogSpec | str | None = None
    engine: EngineSpec = EngineSpec()
    logLevel: Literal["debug", "info", "warning", "error"] = "info"
    profile: Literal["fast", "steady", "lan"] = "fast"
    flightRecorder: bool = True
    keyPeriod: str = "168h"


class AgentFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    apiVersion: Literal["gossipmesh.dev/v1"]
    kind: Literal["AgentConfig"]
    spec: AgentSpec = AgentSpec()


class AgentConfig(msgspec.Struct, frozen=True):
    """What the agent runs by: absolute paths, checked addresses. `advertise` None: found at start.

    `more_seeds` were given on the command line, beside the file's.
    """

    file: Path
    state_dir: Path
    services_dir: Path
    token_file: Path | None
    seeds: tuple[Seed, ...]
    gossip_bind: Address
    gossip_advertise: Address | None
    mesh_bind: Address
    mesh_advertise: Address | None
    proxy_bind: Address
    api_bind: Address
    metrics_bind: Address
    readiness_bind: Address
    access_log: AccessLogSettings
    log_level: str
    flight_recorder: bool
    authorities: tuple[str, ...] = ()
    profile: str = "fast"
    key_period_s: int = PERIOD_S_DEFAULT
    more_seeds: tuple[Seed, ...] = ()
    engine: EngineChoice = EngineChoice()

    def every_seed(self) -> tuple[Seed, ...]:
        """Return where members may be found, the command line's seeds first."""
        return (*self.more_seeds, *self.seeds)

    def binds(self) -> dict[str, Address]:
        """Return where the agent and its engine listen, by the section of the configuration."""
        return {
            "gossip": self.gossip_bind,
            "mesh": self.mesh_bind,
            "proxy": self.proxy_bind,
            "api": self.api_bind,
            "metrics": self.metrics_bind,
            "readiness": self.readiness_bind,
        }


def read_config(path: Path, token_file: Path | None = None, more_seeds: Sequence[str] = ()) -> AgentConfig:
    """Read and check a configuration file; `token_file` overrides spec.tokenFile, `more_seeds` are added.

    Raises:
        OperatorError: missing, unreadable, open to others, or wrong; the message names every mistake with
            its line.
        UsageError: one of `more_seeds` is no seed.
    """
    given = tuple(_given_seed(text) for text in more_seeds)
    try:
        text = read_file(path, limits.YAML_BYTES_MAX).decode("utf-8")
    except OSError as error:
        raise OperatorError(
            f"cannot read the configuration {path}: {error.strerror}; "
            "give --config a file made from configs/agent.example.yaml"
        ) from None
    except UnicodeDecodeError:
        raise OperatorError(f"cannot read the configuration {path}: it is not UTF-8 text") from None
    try:
        config = parse_config_untrusted(text, path)
    except YamlErrors as errors:
        lines = "\n".join(str(problem) for problem in errors.problems)
        count = len(errors.problems)
        raise OperatorError(
            f"{path} has {count} mistake{'s' if count > 1 else ''}; nothing was started:\n{lines}"
        ) from None
    if token_file is not None:
        config = msgspec.structs.replace(config, token_file=token_file.absolute())
    return msgspec.structs.replace(config, more_seeds=given)


def _given_seed(text: str) -> Seed:
    """Read one `--seed`."""
    try:
        seed = parse_seed(text)
        if problem := _seed_problem(seed):
            raise MalformedInput(problem)
    except MalformedInput as error:
        raise UsageError(f"--seed: {error}") from None
    return seed


def _seed_problem(seed: Seed) -> str | None:
    """Return why nobody can be reached at a seed."""
    if seed.port == 0:
        return _PORT_ZERO
    return None if seed.host not in _WILDCARDS else _no_address(seed.host)


def _no_address(host: str) -> str:
    return f"{host} is no address others can connect to; give this node's own"


def parse_config_untrusted(text: str, path: Path) -> AgentConfig:
    """Read a configuration text; relative paths in it start at the file's own folder.

    Raises:
        YamlErrors: every mistake, each with its line and column. State unchanged.
    """
    documents = parse_yaml_untrusted(text, str(path))
    if len(documents) != 1:
        message = f"{len(documents)} documents, exactly one AgentConfig expected"
        raise YamlErrors([Problem(str(path), 1, 1, "$", "GM1015", message)])
    document = documents[0]
    file, problems = check_shape(document, AgentFile)
    if file is None:
        raise YamlErrors([*problems, *_Addresses(document).problems_of_raw()])
    addresses = _Addresses(document)
    config = _resolve(file.spec, path, addresses)
    if addresses.problems:
        raise YamlErrors(addresses.problems)
    return config


class _Addresses:
    """Reads addresses out of a document and collects what is wrong with them."""

    def __init__(self, document: YamlDocument) -> None:
        self._document = document
        self.problems: list[Problem] = []

    def read(self, text: str, *path: str | int) -> Address:
        try:
            address = Address.parse(text)
        except MalformedInput as error:
            self.note(path, str(error))
            return Address("127.0.0.1", 0)
        if address.port == 0:
            self.note(path, _PORT_ZERO)
        return address

    def read_told(self, text: str, *path: str | int) -> Address:
        """Read an address others are to connect to."""
        address = self.read(text, *path)
        if address.host in _WILDCARDS:
            self.note(path, _no_address(address.host))
        return address

    def read_seed(self, text: str, *path: str | int) -> Seed:
        """Read an address, or a host name, where members may be found."""
        try:
            seed = parse_seed(text)
        except MalformedInput as error:
            self.note(path, str(error))
            return Address("127.0.0.1", 0)
        if problem := _seed_problem(seed):
            self.note(path, problem)
        return seed

    def problems_of_raw(self) -> list[Problem]:
        """Check what addresses can be found in a document whose shape is wrong elsewhere."""
        spec = self._document.value.get("spec") if isinstance(self._document.value, dict) else None
        if not isinstance(spec, dict):
            return []
        for section, keys in spec.items():
            for key, text in (keys if isinstance(keys, dict) else {}).items():
                if key in ("bind", "advertise") and isinstance(text, str):
                    self.read(text, "spec", section, key)
        seeds = spec.get("seeds")
        for index, text in enumerate(seeds if isinstance(seeds, list) else []):
            if isinstance(text, str):
                self.read_seed(text, "spec", "seeds", index)
        return self.problems

    def note(self, path: tuple[str | int, ...], message: str) -> None:
        self.problems.append(self._document.problem(path, "GM1014", message))


def _resolve(spec: AgentSpec, path: Path, addresses: _Addresses) -> AgentConfig:
    base = path.absolute().parent
    state_dir = base / spec.stateDir
    if len(spec.seeds) > limits.SEEDS_MAX:
        addresses.note(("spec", "seeds"), f"{len(spec.seeds)} seeds, {limits.SEEDS_MAX} allowed: a few do")
    config = AgentConfig(
        file=path.absolute(),
        state_dir=state_dir,
        services_dir=base / spec.servicesDir,
        token_file=None if spec.tokenFile is None else base / spec.tokenFile,
        seeds=tuple(
            addresses.read_seed(seed, "spec", "seeds", index) for index, seed in enumerate(spec.seeds)
        ),
        gossip_bind=addresses.read(spec.gossip.bind, "spec", "gossip", "bind"),
        gossip_advertise=_read_advertise(addresses, spec.gossip, "gossip"),
        mesh_bind=addresses.read(spec.mesh.bind, "spec", "mesh", "bind"),
        mesh_advertise=_read_advertise(addresses, spec.mesh, "mesh"),
        proxy_bind=addresses.read(spec.proxy.bind, "spec", "proxy", "bind"),
        api_bind=addresses.read(spec.api.bind, "spec", "api", "bind"),
        metrics_bind=addresses.read(spec.metrics.bind, "spec", "metrics", "bind"),
        readiness_bind=addresses.read(spec.readiness.bind, "spec", "readiness", "bind"),
        access_log=_resolve_access_log(spec.accessLog, base, state_dir),
        log_level=spec.logLevel,
        flight_recorder=spec.flightRecorder,
        authorities=_read_authorities(spec.authorities, addresses),
        profile=spec.profile,
        key_period_s=_read_key_period(spec.keyPeriod, addresses),
        engine=_read_engine(spec.engine, addresses),
    )
    _refuse_shared_ports(config, addresses)
    return config


def _read_key_period(text: str, addresses: _Addresses) -> int:
    """Return for how many seconds a TLS key is shown before the next one; a mistake is noted."""
    try:
        period_s = parse_duration_untrusted(text) // SECOND_NS
    except MalformedInput as error:
        addresses.note(("spec", "keyPeriod"), str(error))
        return PERIOD_S_DEFAULT
    if not KEY_PERIOD_S_MIN <= period_s <= KEY_PERIOD_S_MAX:
        addresses.note(
            ("spec", "keyPeriod"),
            f"keys that turn every {text}: give {KEY_PERIOD_S_MIN}s to {KEY_PERIOD_S_MAX // HOUR_S}h, a week "
            "(168h) unless you have a reason",
        )
    return period_s


def _read_engine(spec: EngineSpec, addresses: _Addresses) -> EngineChoice:
    """Return the engine that was chosen; mistakes are noted. Its program is looked at when it starts."""

    def note(key: str, message: str) -> None:
        addresses.note(("spec", "engine", key), message)

    is_command = spec.kind is EngineKind.COMMAND
    if is_command and not (spec.command and Path(spec.command[0]).is_absolute()):
        note("command", "an engine of kind command needs one: a list, a program's whole path first")
    if not is_command and spec.command:
        note("command", f"a command is for kind: command, not for {spec.kind}")
    if not is_command and spec.workers not in (None, 1):
        note("workers", f"an engine of kind {spec.kind} is one process")
    try:
        drain_s = parse_duration_untrusted(spec.drainTimeout) / SECOND_NS
        if not 0 < drain_s <= DRAIN_S_MAX:
            raise MalformedInput(
                f"{spec.drainTimeout} to finish what is open: give up to {DRAIN_S_MAX // 60}m"
            )
    except MalformedInput as error:
        note("drainTimeout", str(error))
        drain_s = EngineChoice().drain_timeout_s
    workers = spec.workers if is_command else None
    return EngineChoice(spec.kind, spec.command, workers, drain_s)


def _read_authorities(places: Sequence[str], addresses: _Addresses) -> tuple[str, ...]:
    if len(places) > AUTHORITIES_MAX:
        addresses.note(("spec", "authorities"), f"{len(places)} authorities, {AUTHORITIES_MAX} allowed")
    for index, place in enumerate(places):
        if not is_host_port(place):
            message = f"{place[:100]!r} is not HOST:PORT, such as authority.example.com:8443"
            addresses.note(("spec", "authorities", index), message)
    return tuple(places)


def _resolve_access_log(spec: AccessLogSpec | str | None, base: Path, state_dir: Path) -> AccessLogSettings:
    """Return the settings; a text is a path with everything else as usual."""
    if not isinstance(spec, AccessLogSpec):
        spec = AccessLogSpec(path=spec)
    path = state_dir / access_log.FILE_NAME if spec.path is None else base / spec.path
    return AccessLogSettings(path, spec.maxBytes, spec.keep, spec.sample)


def _read_advertise(addresses: _Addresses, spec: AdvertisedSpec, section: str) -> Address | None:
    if spec.advertise is not None:
        return addresses.read_told(spec.advertise, "spec", section, "advertise")
    try:
        bind = Address.parse(spec.bind)
    except MalformedInput:
        return None  # told of where the bind address itself is read
    return None if bind.host in _WILDCARDS else bind


def _refuse_shared_ports(config: AgentConfig, addresses: _Addresses) -> None:
    """Two listeners of one agent on one port would end in "address in use", naming only one of them."""
    taken: dict[Address, str] = {}
    for section, bind in config.binds().items():
        other = taken.setdefault(bind, section)
        if other != section and bind.port != 0:
            addresses.note(("spec", section, "bind"), f"{bind} is spec.{other}.bind already")
