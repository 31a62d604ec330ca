"""Where the specification lies and how its files are read. Ends at plain values."""

import json
import re
from pathlib import Path
from typing import Any, Final

SPEC: Final = Path(__file__).resolve().parents[3] / "spec" / "engine" / "v1-draft"
_REPEATED: Final = re.compile(r"\{\{(.*?)\*([0-9]+)\}\}", re.DOTALL)


def read(name: str, spec: Path = SPEC) -> Any:
    """Return a JSON file of the specification, by its path inside."""
    return json.loads((spec / name).read_text())


def expanded(text: str) -> bytes:
    """Return a text's bytes: characters are bytes, `{{text*7}}` stands for seven times the text."""
    return _REPEATED.sub(lambda found: found[1] * int(found[2]), text).encode("latin-1")


def plain(value: Any) -> Any:
    """Return a value with each `{"hex": ...}` as the byte string it stands for."""
    if isinstance(value, dict):
        if set(value) == {"hex"}:
            return bytes.fromhex(value["hex"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def shown(value: Any) -> Any:
    """Return a decoded value as the files write it: the reverse of `plain`."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return [shown(item) for item in value] if isinstance(value, list | tuple) else value
