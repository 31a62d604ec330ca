"""The engine protocol's frames as bytes, for engines and agents written elsewhere.

`frames.json`: who sends, the map (`{"hex": ...}` is a byte string), and the bytes, length included. One with
`of` was sent by that release and is read today; what is sent now has fields it did not have.
"""

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest

from gossipmesh.dataplane.protocol import (
    decode_agent_frame_untrusted,
    decode_engine_frame_untrusted,
    encode_frame,
)

FRAMES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "frames.json").read_text())


def shown(value: Any) -> Any:
    """Return a decoded value the way the file writes it."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    return value


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: f"{vector['from']} {vector['frame']['type']}")
def test_frame(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert shown(msgpack.unpackb(data[4:])) == vector["frame"]
    decode = decode_agent_frame_untrusted if vector["from"] == "agent" else decode_engine_frame_untrusted
    frame = decode(data[4:])
    assert frame is not None
    if "of" in vector:
        assert decode(encode_frame(frame)[4:]) == frame
    else:
        assert encode_frame(frame) == data
