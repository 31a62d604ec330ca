"""The one place that reads randomness.

Rule: keys, tokens and nonces come from `random_bytes`; a core's generator comes from
`seeded_random` and is never a source of secrets.
"""

import random
import secrets

_SEED_BYTES = 32


def random_bytes(length: int) -> bytes:
    """Return `length` unpredictable bytes from the operating system."""
    return secrets.token_bytes(length)


def seeded_random() -> random.Random:
    """Return a generator for a core, seeded from the operating system."""
    return random.Random(secrets.token_bytes(_SEED_BYTES))
