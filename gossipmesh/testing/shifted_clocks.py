"""Machines whose civil clocks are off, and are set while they run: agents and engines under libfaketime.

Civil time alone is shifted, OpenSSL's as well; intervals are true, for another clock measures them. How far a
clock is off stands in a file that a process looks at once a second.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gossipmesh.model.errors import OperatorError
from gossipmesh.testing.mesh import GOSSIPMESH, Mesh
from gossipmesh.testing.waiting import wait_until

_LOOKED_AT_S: Final = 1
_LIBRARY: Final = "*/faketime/libfaketimeMT.so.1"


class ShiftedClocks:
    """The clocks of a mesh's nodes; all are right until they are set."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def program(self, name: str) -> list[str]:
        """Return what stands for `gossipmesh` on a node whose clock can be set.

        Raises:
            OperatorError: there is no libfaketime here.
        """
        found = sorted(Path("/usr/lib").glob(_LIBRARY))
        if not found:
            raise OperatorError("there is no libfaketime here to shift clocks with: apt-get install faketime")
        path = self._path(name)
        if not path.exists():
            self.set([name], 0)
        settings = {
            "LD_PRELOAD": found[0],
            "FAKETIME_TIMESTAMP_FILE": path,
            "FAKETIME_CACHE_DURATION": _LOOKED_AT_S,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
            "NO_FAKE_STAT": 1,
        }
        return ["env", *(f"{key}={value}" for key, value in settings.items()), *GOSSIPMESH]

    def set(self, names: Iterable[str], by_s: int) -> None:
        """Have clocks be off by so much, from within about a second on."""
        for name in names:
            path = self._path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{path.name}.new")
            fresh.write_text(f"{by_s:+d}s\n")
            fresh.rename(path)

    def unlink_shared_memory(self) -> None:
        """Take away the names that libfaketime gave its memory: a process that is killed would leave them."""
        for node in self._mesh.nodes.values():
            for pid in node.pids("agent"):
                for path in Path("/dev/shm").glob(f"*faketime_s??_{pid}"):  # noqa: S108  it is theirs
                    path.unlink(missing_ok=True)

    async def certificates_ended(self, within_s: float) -> bool:
        """Tell whether every certificate of the authority has ended, by the clock of each node."""
        mesh, ended = self._mesh, list[bool]()

        async def asked() -> str | None:
            ended.clear()
            for node in mesh.nodes.values():
                wall = (await node.status())["clock"]["wall"]
                rows = await node.ask("/v1/identity")
                ended.extend((row["not_after"] or 0) < wall for row in rows)
            return None

        await wait_until("all have told their clocks and certificates", asked, within_s)
        return all(ended)

    def _path(self, name: str) -> Path:
        return self._mesh.directory / "clocks" / name
