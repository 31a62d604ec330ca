"""An engine that hangs up on a frame it does not know."""

import sys

from gossipmesh.dataplane import protocol
from gossipmesh.model.errors import MalformedInput

RULE = "E-3.3"

_read = protocol.decode_agent_frame_untrusted


def _decode(body):
    frame = _read(body)
    if frame is None:
        raise MalformedInput("unknown")
    return frame


protocol.decode_agent_frame_untrusted = _decode

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
