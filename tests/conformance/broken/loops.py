"""An engine that passes on a request however often it has been passed on."""

import sys

from gossipmesh.model import limits

RULE = "E-7.45"

limits.HOPS_MAX = 1_000

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
