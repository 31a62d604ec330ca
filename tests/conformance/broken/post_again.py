"""An engine that makes a POST again whose answer never began."""

import sys

from gossipmesh.traffic import retries

RULE = "T-6.4"

retries.IDEMPOTENT_METHODS = (*retries.IDEMPOTENT_METHODS, "POST")

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
