"""An engine that tries another endpoint when the callee said that the caller may not."""

import sys

from gossipmesh.dataplane.reference import tunnel_status

RULE = "E-6.9"

tunnel_status._ENDINGS[tunnel_status.TunnelStatus.DENIED] = tunnel_status._ENDINGS[
    tunnel_status.TunnelStatus.REFUSED
]

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
