"""An engine that closes a path as a deny writes it, and no other spelling."""

import sys

from gossipmesh.traffic import paths

RULE = "T-7.8"

paths.closed_form = lambda path: path

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
