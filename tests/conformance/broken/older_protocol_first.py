"""An engine that prefers the protocol of 0.1."""

import sys

from gossipmesh.net import tls

RULE = "E-6.7"

_made = tls._context


def _context(purpose, pair, bundle_pem, protocols):
    return _made(purpose, pair, bundle_pem, sorted(protocols) if len(protocols) > 2 else protocols)


tls._context = _context

if __name__ == "__main__":
    from gossipmesh.dataplane.reference.__main__ import main

    sys.exit(main())
