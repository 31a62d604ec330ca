"""The engine protocol's frames as bytes, for engines and agents written elsewhere.

`encodings/frames.json`: who sends, the map (`{"hex": ...}` is a byte string), and the bytes, length
included. One with `of` was sent by that release and is read today; what is sent now has fields it did not
have. Engines are sent the same bytes by the runner.
"""

from typing import Any

import msgpack
import pytest

from gossipmesh.dataplane.protocol import (
    decode_agent_frame_untrusted,
    decode_engine_frame_untrusted,
    encode_frame,
)
from gossipmesh.testing.conformance.files import read, shown

FRAMES: list[dict[str, Any]] = read("encodings/frames.json")


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector["name"])
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
