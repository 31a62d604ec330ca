"""An engine that sends everything to a rule's first backend."""

import sys

from gossipmesh.traffic import routing

RULE = "T-2.18"

routing.pick_backend = lambda route, random: route.backends[0].upstream if route.backends else None

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
