"""An engine that tries again whatever the budget says."""

import sys

from gossipmesh.traffic.retries import RetryBudget

RULE = "T-6.7"

RetryBudget.take_retry = lambda self, now: True

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
