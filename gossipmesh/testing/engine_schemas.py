"""The engine protocol's shapes as JSON Schema: `python -m gossipmesh.testing.engine_schemas`.

Writes `spec/engine/v1-draft/schemas/`; `--check` writes nothing and tells what differs. A byte string is a
string with `contentEncoding: binary`; properties stand in the order of their encoding.
"""

import argparse
import json
import sys
from typing import Any, Final, get_args

import msgspec

from gossipmesh.dataplane.protocol import AgentFrame, EngineFrame
from gossipmesh.model.snapshot import Section
from gossipmesh.testing.conformance.files import SPEC

FOLDER: Final = SPEC / "schemas"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def documents() -> dict[str, str]:
    """Return each file's name and text."""
    frames = {
        f"{sender}.{shape.__struct_config__.tag}": shape
        for sender, union in (("agent", AgentFrame), ("engine", EngineFrame))
        for shape in get_args(union)
    }
    sections = {shape.__name__.removesuffix("Section").lower(): shape for shape in get_args(Section)}
    return {"frames.json": _text(frames), "sections.json": _text(sections)}


def differing() -> list[str]:
    """Return the names of files that are not as the types say."""
    return [
        name
        for name, text in documents().items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text() != text
    ]


def _text(shapes: dict[str, Any]) -> str:
    _, parts = msgspec.json.schema_components(list(shapes.values()), ref_template="#/$defs/{name}")
    named = {name: parts[shape.__name__] for name, shape in shapes.items()}
    own = {shape.__name__ for shape in shapes.values()}
    others = {name: parts[name] for name in sorted(parts) if name not in own}
    return json.dumps({"$schema": _DIALECT, "$defs": _binary({**named, **others})}, indent=1) + "\n"


def _binary(value: Any) -> Any:
    """Return a schema whose byte strings are bytes, as in msgpack, and no text in base64."""
    if isinstance(value, dict):
        plain = {key: _binary(item) for key, item in value.items()}
        return plain | {"contentEncoding": "binary"} if "contentEncoding" in value else plain
    return [_binary(item) for item in value] if isinstance(value, list) else value


def main() -> int:
    """Write or compare the files; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gossipmesh.testing.engine_schemas")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file differs")
    if parser.parse_args().check:
        for name in differing():
            sys.stdout.write(f"{name} differs from the types\n")
        return 1 if differing() else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
