"""What an engine can beyond the protocol's first version, as words: an engine names those it knows.

The compiler writes for the words that the attached engine names. Spec: docs/ENGINE.md, "Attaching".
"""

from typing import Final

PINS: Final = "pins"
"""It judges its peers by their nodes' key sets: it takes the sections `pins/`, `credentials/` and `trust`,
endpoints' pins, and carrier leaves."""

STRICT_SECTIONS: Final = "strict-sections"
"""It refuses a section that holds what it does not know, or `requires` a word it does not name. One that does
not say so gets what engines of 0.1 read: whatever is newer it would drop without a word."""

UNREGISTERED: Final = "unregistered"
"""It has processes of no service speak as `callers` says, or not at all."""

SECTION_FEATURES: Final = frozenset((PINS, STRICT_SECTIONS, UNREGISTERED))
"""The words that say what a snapshot may hold."""
