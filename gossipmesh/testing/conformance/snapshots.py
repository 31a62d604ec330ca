"""Snapshots as the specification writes them, and as bytes: maps with their fields in the order written.

Rules:
1. A string that begins with `$` stands for a value of the run: a peer's address, the caller's uid.
2. `set` gives fields other values by dotted paths inside a section; one past a list's end appends.
3. `{"copy": PATH, ...}` is what stands at PATH in that section, with the fields given changed.
"""

import copy
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgpack

from gossipmesh.testing.conformance import files

Sections = dict[str, dict[str, Any]]
HASH_BYTES: Final = 16
VARIABLE: Final = "$"


def encoded(value: Any) -> bytes:
    """Return the msgpack encoding of a section or a root."""
    data: bytes = msgpack.packb(value, use_bin_type=True)
    return data


def hash_of(section: bytes) -> bytes:
    """Return the name a root knows a section by."""
    return hashlib.sha256(section).digest()[:HASH_BYTES]


def root_of(sections: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the root of encoded sections, sorted by name."""
    return {name: hash_of(sections[name]) for name in sorted(sections)}


def version_of(root: Mapping[str, bytes]) -> str:
    """Return the version of a root."""
    return hashlib.sha256(encoded(dict(sorted(root.items())))).hexdigest()


def changed(sections: Sections, change: Mapping[str, Any]) -> Sections:
    """Return sections with a step's `sections` (whole ones), `drop` and `set` carried out, in this order."""
    made = copy.deepcopy(sections)
    for name, section in change.get("sections", {}).items():
        made[name] = copy.deepcopy(section)
    for name in change.get("drop", []):
        del made[name]
    for name, paths in change.get("set", {}).items():
        for path, value in paths.items():
            _put(made[name], path, value)
    return made


def filled(value: Any, variables: Mapping[str, Any]) -> Any:
    """Return a value with its variables and byte strings in their place.

    Raises:
        KeyError: no such variable. Local fault: the file's. State unchanged.
    """
    if isinstance(value, str) and value.startswith(VARIABLE):
        return variables[value[1:]]
    if isinstance(value, dict):
        if set(value) == {"hex"}:
            return files.plain(value)
        return {key: filled(item, variables) for key, item in value.items()}
    return [filled(item, variables) for item in value] if isinstance(value, list) else value


def _put(section: Any, path: str, value: Any) -> None:
    *above, last = path.split(".")
    place = _at(section, above)
    if isinstance(value, dict) and "copy" in value:
        copied = copy.deepcopy(_at(section, value["copy"].split(".")))
        value = {**copied, **{key: item for key, item in value.items() if key != "copy"}}
    if not isinstance(place, list):
        place[last] = value
    elif int(last) == len(place):
        place.append(value)
    else:
        place[int(last)] = value


def _at(place: Any, path: list[str]) -> Any:
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place[part]
    return place
