"""An engine that writes every line whatever the sample."""

import sys

from gossipmesh.dataplane.reference.journal import Journal

RULE = "E-9.10"

Journal._is_written = lambda self, entry: True

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
