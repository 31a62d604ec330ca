"""Which version of each scope the living members run, and who is behind.

It ends at counting; members are taken one by one, as `/v1/members` tells them. A member that is not alive is
not asked: what it last said of itself says nothing of what it runs. This node itself always is.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Behind(NamedTuple):
    """A member that runs an older version than another; `refusal` is empty when it refused nothing newer."""

    name: str
    version: int
    refusal: str


class PolicyVersions:
    """Takes members, then tells each scope's newest version and who does not run it."""

    def __init__(self) -> None:
        self._alive: list[str] = []
        self._versions: dict[str, dict[str, int]] = {}
        self._refusals: dict[tuple[str, str], str] = {}

    def take(self, member: dict[str, Any]) -> None:
        """Take a member's row."""
        if member["status"] != "alive" and not member["self"]:
            return
        name = member["name"]
        self._alive.append(name)
        for policy in member["policies"]:
            scope, version, refused = policy["scope"], policy["version"], policy["refused_version"]
            self._versions.setdefault(scope, {})[name] = version
            if refused > version:
                self._refusals[scope, name] = f"refused {refused}: {policy['refused_reason']}"

    @property
    def scopes(self) -> list[str]:
        """Return the scopes anybody alive runs, sorted."""
        return sorted(self._versions)

    @property
    def alive_count(self) -> int:
        """Return how many members are alive."""
        return len(self._alive)

    def newest(self, scope: str) -> int:
        """Return the highest version that somebody alive runs; 0 for none."""
        return max(self._versions.get(scope, {}).values(), default=0)

    def of(self, scope: str, name: str) -> int:
        """Return what a member runs; 0 for nothing."""
        return self._versions.get(scope, {}).get(name, 0)

    def behind(self, scope: str) -> Iterator[Behind]:
        """Yield who runs less than the newest, in the order taken."""
        newest = self.newest(scope)
        for name in self._alive:
            version = self.of(scope, name)
            if version < newest:
                yield Behind(name, version, self._refusals.get((scope, name), ""))
