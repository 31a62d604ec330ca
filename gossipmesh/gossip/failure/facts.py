"""What this room tells the router, as values: it calls nobody.

Paper: none. Deviation: none.
"""

from typing import NamedTuple

from gossipmesh.model.records import SignedRecord


class AnswerDue(NamedTuple):
    """A verdict against ourselves that waited is to be answered now."""

    record: SignedRecord
