"""What is told to the router as values, and concerns what this node signs.

Paper: none. Deviation: none.
"""

from typing import NamedTuple


class StateOutdated(NamedTuple):
    """What our state says of us is no longer so: it is to be signed anew."""
