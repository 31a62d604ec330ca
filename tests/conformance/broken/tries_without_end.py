"""An engine that has no time for a try."""

import sys

from gossipmesh.traffic import retries

RULE = "T-6.15"

retries.try_timeout_ns = lambda route: None

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
