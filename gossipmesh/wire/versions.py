"""Protocol versions this build speaks. A node talks to each peer in the highest both know."""

from typing import Final

WIRE_MIN: Final = 1
WIRE_MAX: Final = 1

ENGINE_PROTOCOL: Final = 1
SNAPSHOT_FORMAT: Final = 1
STATE_FORMAT: Final = 1

FEATURES: Final[tuple[str, ...]] = ("access-policy", "http-route", "subset", "unattended")
"""What builds from 0.1 on can execute, sorted."""

MESH_POLICY: Final = "mesh-policy"

POLICY_FEATURES: Final[tuple[str, ...]] = tuple(sorted((*FEATURES, MESH_POLICY)))
"""What this build can execute, sorted; a manifest lists what it `requires`."""

OPENING: Final = "opening"
"""What a node's `features` say when it says of itself whether it is closed (see `model.opening`)."""

TRUST_FIELDS: Final = "trust-2"
"""What a node's `features` say when it reads the newer fields of Trust (see `model.documents`), and counts
Trust in the sum of its documents by what is signed."""

KEY_SETS: Final = "key-sets"
"""What a node's `features` say when it publishes which TLS keys it uses: none but those are its own."""

ROLLS: Final = "roll"
"""What a node's `features` say when it takes the credentials signed anew that Trust names (`trust.roll`)."""

LACKS_ROLL: Final = "lacks-roll"
"""What a node's `features` say while Trust names a roll there that has not come yet."""

HOLDS_TRUST: Final = "holds-trust-"
"""What a node's `features` say of the Trust in force there: this and its version."""

FOREIGN_KEYS: Final = "foreign-keys"
"""What a node's `features` say when it met a key set of its own that it did not sign: its key is stolen."""

ENGINE_LACKS: Final = "engine-lacks-"
"""What a word of a node's `features` begins with when its build can execute a kind of policy and its engine,
which may be older, cannot: the feature follows."""

MEMBER_FEATURES: Final[tuple[str, ...]] = tuple(
    sorted((*POLICY_FEATURES, KEY_SETS, OPENING, ROLLS, TRUST_FIELDS))
)
"""What an agent of this build says of itself in its signed state, sorted: what it can execute, and what
others may expect of it as a member. Nothing stands here before an agent does it."""
