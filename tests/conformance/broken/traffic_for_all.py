"""An engine that tells every agent what one of 0.1 reads."""

import sys

from gossipmesh.dataplane.reference.statistics import Counters

RULE = "E-8.5"

_take_due = Counters.take_due
Counters.take_due = lambda self, passed_ms, *, before=False: _take_due(self, passed_ms, before=True)

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
