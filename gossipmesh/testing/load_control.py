"""Starts load drivers beside a mesh, follows what they print, and adds up their summaries.

One driver process per network the sources live in: on loopback a single one, with namespaces one in
each source node's own, so that every request enters through a local connection.
"""

import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from gossipmesh.net.interpreter import module_words
from gossipmesh.testing.evidence import access_log_rows
from gossipmesh.testing.load import Outcome, Target
from gossipmesh.testing.mesh import Mesh
from gossipmesh.testing.processes import follow_json_lines
from gossipmesh.testing.sessions import SessionTarget
from gossipmesh.testing.waiting import WaitedInVain

DEFAULT_HOSTS: Final = ("cart.shop", "web.shop")
TCP_HOST: Final = "db.shop"
SUMMARY_TIMEOUT_S: Final = 20.0
REFUSALS_MAX: Final = 100


class Load:
    """Constant load from `sources` (nodes that survive) for as long as it is wanted.

    `start` in a nursery, `stop` for the summary; meanwhile `answered`, `failed` and `by_version` count.
    `kinds` are those of `gossipmesh.testing.load`; `sessions` are held open from every source to every host
    that speaks their protocol, and what became of them is in `session_ends`. With `records` every request is
    kept, for `outcomes`.
    """

    def __init__(
        self,
        mesh: Mesh,
        sources: Sequence[str],
        *,
        rate_per_s: float,
        timeout_s: float = 10.0,
        hosts: Sequence[str] = DEFAULT_HOSTS,
        kinds: Sequence[str] = ("get",),
        sessions: Sequence[str] = (),
        session_life_s: float = 0.0,
        records: bool = False,
        name: str = "load",
    ) -> None:
        self._mesh = mesh
        self._sources = list(sources)
        self._rate_per_s = rate_per_s
        self._timeout_s = timeout_s
        self._hosts = list(hosts)
        self._kinds = list(kinds)
        self._sessions = list(sessions)
        self._session_life_s = session_life_s
        self._records = records
        self._name = name
        self.session_ends: list[dict[str, Any]] = []
        self._drivers: list[subprocess.Popen[bytes]] = []
        self._progress: dict[int, dict[str, Any]] = {}
        self._summaries: dict[int, dict[str, Any]] = {}
        self._ended: dict[int, trio.Event] = {}

    def start(self, nursery: trio.Nursery) -> None:
        """Start the drivers and follow them in `nursery`."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for source in self._sources:
            prefix = self._mesh.network.prefix(self._mesh.nodes[source].layout.number)
            groups.setdefault(tuple(prefix), []).append(source)
        for index, (prefix_words, sources) in enumerate(groups.items()):
            rate = self._rate_per_s * len(sources) / len(self._sources)
            words = [*prefix_words, *module_words("gossipmesh.testing.load")]
            words += ["--rate", str(rate), "--timeout", str(self._timeout_s)]
            words += self._target_words(sources)
            if self._records:
                words += ["--records", str(self._records_path(index))]
            label = f"{self._name}{index}"
            driver = self._mesh.keeper.start(label, words, stdin_pipe=True, stdout_pipe=True)
            self._drivers.append(driver)
            self._ended[index] = trio.Event()
            nursery.start_soon(self._follow, index, driver)

    def _target_words(self, sources: Sequence[str]) -> list[str]:
        """Return a driver's arguments: every kind and session, from every source to every host."""
        port, words = self._mesh.proxy_port, ["--session-life", str(self._session_life_s)]
        for kind in self._kinds:
            for host in [TCP_HOST] if kind == "tcp" else self._hosts:
                for source in sources:
                    target = Target(source, self._mesh.nodes[source].local_host, port, host, kind=kind)
                    words += ["--target", str(target)]
        for kind in self._sessions:
            for host in [TCP_HOST] if kind == "tcp" else self._hosts:
                for source in sources:
                    held = SessionTarget(kind, source, self._mesh.nodes[source].local_host, port, host)
                    words += ["--session", str(held)]
        return words

    def _records_path(self, index: int) -> Path:
        return self._mesh.directory / f"{self._name}{index}.jsonl"

    def outcomes(self) -> list[Outcome]:
        """Return every request there was, by the time it was sent; only with `records`, after `stop`."""
        decoder = msgspec.json.Decoder(Outcome)
        lines = [
            line for index in self._ended for line in self._records_path(index).read_bytes().splitlines()
        ]
        return sorted((decoder.decode(line) for line in lines), key=lambda outcome: outcome.at_s)

    def refusals(self) -> list[dict[str, Any]]:
        """Return what the sources' engines wrote of requests that ended badly: flags, reason, endpoint.

        Lines are in a file a quarter of a second after their request ended.
        """
        rows = (row for name in self._sources for row in access_log_rows(self._mesh.nodes[name]))
        return [row for row in rows if not 200 <= row["response_code"] < 400][:REFUSALS_MAX]

    async def stop(self) -> dict[str, Any]:
        """Stop sending, wait for what is in flight, and return the summary of all drivers.

        Raises:
            WaitedInVain: a driver ended without a summary.
        """
        for driver in self._drivers:
            if driver.stdin is not None:
                driver.stdin.close()
        with trio.move_on_after(SUMMARY_TIMEOUT_S):
            for event in self._ended.values():
                await event.wait()
        missing = [str(index) for index in self._ended if index not in self._summaries]
        if missing:
            logs = ", ".join(str(self._mesh.keeper.log_path(f"{self._name}{index}")) for index in missing)
            raise WaitedInVain(f"no summary from the load driver; see {logs}")
        return add_up([self._summaries[index] for index in sorted(self._summaries)])

    @property
    def answered(self) -> int:
        """Return how many requests have ended so far, well or not."""
        return sum(progress["answered"] for progress in self._progress.values())

    @property
    def failed(self) -> int:
        """Return how many have failed so far."""
        return sum(progress["failed"] for progress in self._progress.values())

    @property
    def sent(self) -> int:
        """Return how many have been sent so far."""
        return sum(progress["sent"] for progress in self._progress.values())

    def by_version(self, host: str) -> Counter[str]:
        """Return what answered requests for `host` so far: `service:version` -> count."""
        return self._counts("by_version", host)

    def by_server(self, host: str) -> Counter[str]:
        """Return who answered requests for `host` so far: node -> count."""
        return self._counts("by_server", host)

    def _counts(self, key: str, host: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        for progress in self._progress.values():
            counts.update(progress[key].get(host, {}))
        return counts

    async def _follow(self, index: int, driver: "subprocess.Popen[bytes]") -> None:
        await follow_json_lines(driver, lambda message: self._take(index, message))
        self._ended[index].set()

    def _take(self, index: int, message: dict[str, Any]) -> None:
        if message["type"] == "progress":
            self._progress[index] = message
        elif message["type"] == "summary":
            self._summaries[index] = message
        elif message["type"] == "session":
            self.session_ends.append(message)


def add_up(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one summary for several drivers; quantiles of latency are the worst of them."""
    total: dict[str, Any] = {}
    for summary in summaries:
        for key, value in summary.items():
            if key == "latency_ms" and key in total:
                total[key] = {name: max(value[name], total[key][name]) for name in value}
            elif key not in total:
                total[key] = value
            elif isinstance(value, dict):
                total[key] = _added(total[key], value)
            elif isinstance(value, int | float | list):
                total[key] = total[key] + value
    return total


def _added(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    merged = dict(left)
    for key, value in right.items():
        if isinstance(value, dict):
            merged[key] = _added(merged.get(key, {}), value)
        else:
            merged[key] = merged.get(key, 0) + value
    return merged
