"""An engine that allows what no rule names."""

import sys

from gossipmesh.traffic import authorization

RULE = "T-7.4"

_decided = authorization._first_match


def _first_match(inbound, *asked):
    verdict = _decided(inbound, *asked)
    return (
        authorization.Verdict(True, verdict.rule) if verdict.rule == authorization.RULE_DEFAULT else verdict
    )


authorization._first_match = _first_match

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
