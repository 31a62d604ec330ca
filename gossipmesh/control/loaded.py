"""The authority as it is on disk now: a server takes up what a command beside it changed.

Ends at the value; what is on disk belongs together when `control.roots` says so, and until then the one
loaded before stays.
"""

from collections.abc import Callable
from typing import Final

from gossipmesh.control.roots import Authority, load_authority
from gossipmesh.model.errors import OperatorError

_WATCHED: Final = ("trust.json", "root.pem", "intermediate.pem", "intermediate.key", "credential.key")


class LoadedAuthority:
    """One authority, loaded again when its files are others."""

    def __init__(self, authority: Authority, report: Callable[[str], None]) -> None:
        self.authority = authority
        self._report = report
        self._seen = self._files()

    def look(self) -> Authority:
        """Return the authority as it is now; the one before while its files disagree. Blocks."""
        seen = self._files()
        if seen != self._seen:
            self._seen = seen
            try:
                self.authority = load_authority(self.authority.directory)
                self._report(f"the authority was changed; Trust is at version {self.authority.trust.version}")
            except OperatorError as error:
                self._report(f"what changed in the authority's folder is not taken up: {error}")
        return self.authority

    def _files(self) -> tuple[tuple[int, int], ...]:
        found = []
        for name in _WATCHED:
            try:
                status = (self.authority.directory / name).stat()
            except OSError:
                found.append((0, 0))
            else:
                found.append((status.st_mtime_ns, status.st_ino))
        return tuple(found)
