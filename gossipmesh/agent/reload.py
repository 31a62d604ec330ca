"""SIGHUP: what of a changed configuration a running agent takes up, and what needs a restart.

Rules:
1. Only the level of the log is taken up. Everything else is a socket, a folder or a process that was made of
   it: those are told one by one, with what puts them into force.
2. A file with a mistake changes nothing.
3. Service files are read at once, and the engine opens its access log anew, whatever the configuration says.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
import trio

from gossipmesh.agent.config import AgentConfig, read_config
from gossipmesh.agent.logs import fields, set_level
from gossipmesh.model.errors import OperatorError

log = logging.getLogger("gossipmesh.agent.reload")

RELOADED: Final = ("log_level",)
_IGNORED: Final = ("file", "token_file", "more_seeds")  # a start's own: a token, the command line
_ENGINES: Final = ("access_log", "engine")  # given to an engine when that is started
_SECTION: Final = re.compile(r"(.+)_(bind|advertise)")


class Change(NamedTuple):
    """A key whose value differs; `advice` None: it is taken up, else what puts it into force."""

    key: str
    before: str
    after: str
    advice: str | None


class Reloader:
    """Takes up, when asked, what changed on disk; asked many times while it does, it does so once more."""

    def __init__(
        self, config: AgentConfig, *, scan: Callable[[], Awaitable[None]], reopen: Callable[[], None]
    ) -> None:
        """`scan` reads the service files; `reopen` has the engine open its log anew."""
        self._config = config
        self._scan = scan
        self._reopen = reopen
        self._asked = trio.Event()

    def ask(self) -> None:
        """Have everything looked at soon."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever asked."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            await self._reload()

    async def _reload(self) -> None:
        log.info("reloading: service files, log level; the engine opens its access log anew")
        self._reopen()
        try:
            # In a thread: the file may lie on a disk that takes its time.
            read = await trio.to_thread.run_sync(read_config, self._config.file, abandon_on_cancel=True)
        except OperatorError as error:
            log.error("the configuration is not taken up, everything goes on as it was: %s", error)
        else:
            self._take(read)
        await self._scan()
        log.info("reloaded")

    def _take(self, read: AgentConfig) -> None:
        found = changes(self._config, read)
        self._config = taken_up(self._config, read)
        set_level(self._config.log_level)
        for change in found:
            told = fields(key=change.key, before=change.before, after=change.after)
            if change.advice is None:
                log.warning("%s is changed and in force", change.key, extra=told)
            else:
                log.warning("%s is changed and not in force: %s", change.key, change.advice, extra=told)
        if not found:
            log.info("the configuration is as it was")


def changes(running: AgentConfig, read: AgentConfig) -> list[Change]:
    """Return what differs, in the order of the configuration's fields."""
    found = []
    for field in AgentConfig.__struct_fields__:
        before, after = getattr(running, field), getattr(read, field)
        if before != after and field not in _IGNORED:
            found.append(Change(key_of(field), _told(before), _told(after), _advice(field)))
    return found


def taken_up(running: AgentConfig, read: AgentConfig) -> AgentConfig:
    """Return the running configuration with what can change while it runs."""
    return msgspec.structs.replace(running, **{field: getattr(read, field) for field in RELOADED})


def key_of(field: str) -> str:
    """Return the configuration's key that a field of `AgentConfig` stands for."""
    section = _SECTION.fullmatch(field)
    if section is not None:
        return f"spec.{section[1]}.{section[2]}"
    first, *rest = field.removesuffix("_s").split("_")  # a file writes units with its values
    return "spec." + first + "".join(word.capitalize() for word in rest)


def _advice(field: str) -> str | None:
    if field in RELOADED:
        return None
    if field in _ENGINES:
        return "run `gossipmesh restart`, then `gossipmesh engine replace`: an engine takes it when it starts"
    return "run `gossipmesh restart`"


def _told(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
