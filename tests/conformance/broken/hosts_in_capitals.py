"""An engine that knows case in a host's name."""

import sys

from gossipmesh.traffic import routing

RULE = "T-2.2"

_normal = routing.normal_host
routing.normal_host = lambda host: _normal(host) if host == host.lower() else ""

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
