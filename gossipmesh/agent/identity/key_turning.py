"""When which TLS key of this node is made, published, shown by the engine, and forgotten. No clock, no disk.

An identity has a current key and the next one, and the one before until the engine has confirmed that it
shows the current one. What is held goes to disk, the pins of what is on disk are published, and only keys
whose pins were published are shown. Rules:
1. A key is shown once its pin is on disk, published, and held by two live peers, or by all where there are
   fewer. Until then the one before it is shown, if there is one. While a member is there that takes nothing
   but certificates of the authority (of a build before 0.3), the key must have one as well.
2. The next key is made and published a whole period before its turn, so that an engine whose agent is gone
   knows the keys of the coming period. An asked-for turn takes it earlier, but not before rule 1 holds.
3. A pin is dropped after the engine's ack for the key that follows it, when enough peers hold the new set.
4. The period runs by the monotonic clock; by civil time only over a restart, and a clock that was set back
   counts as no time at all.
5. Everything follows from what is held: a restart at any point goes on from what is on disk.
It ends at keys and pins: certificates ride along, who asks for them is the identity keeper's.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from gossipmesh.model.instant import DAY_S, NEVER, SECOND_NS, Instant, WallSeconds

PERIOD_S_DEFAULT: Final = 7 * DAY_S
PEERS_ENOUGH: Final = 2
_SPREAD: Final = 0.2  # of a period: nodes that joined together turn over a day and a half, not at once
_PIN_SCALE: Final = 1 << 32

Pins = dict[str, tuple[bytes, ...]]


class LeafKey(msgspec.Struct, frozen=True):
    """A P-256 key as PEM, its pin, and the authority's chain for it (leaf first); empty: there is none.

    `not_before` and `not_after` (wall seconds) are the chain's.
    """

    pin: bytes
    key_pem: bytes
    chain_pem: bytes = b""
    not_before: int = 0
    not_after: int = 0

    def __repr__(self) -> str:
        return f"LeafKey({self.pin.hex()})"


class HeldKeys(msgspec.Struct, frozen=True):
    """The keys of one identity; `is_used`: the current one may be shown, and has been ever since."""

    current: LeafKey
    next: LeafKey
    former: LeafKey | None = None
    is_used: bool = False

    @property
    def all(self) -> tuple[LeafKey, ...]:
        """Return the current key, the next one, and the one before while there is one."""
        both = (self.current, self.next)
        return both if self.former is None else (*both, self.former)

    @property
    def pins(self) -> tuple[bytes, ...]:
        """Return the pins to publish, in the same order."""
        return tuple(key.pin for key in self.all)

    @property
    def shown(self) -> LeafKey | None:
        """Return the key the engine should show; None while the first one is not known to enough peers."""
        return self.current if self.is_used else self.former


class Holding(msgspec.Struct, frozen=True):
    """All that is held, by SPIFFE ID in sorted order; `turned` is when keys were last turned."""

    keys: dict[str, HeldKeys]
    turned: WallSeconds

    @property
    def pins(self) -> Pins:
        """Return the pins to publish, by SPIFFE ID."""
        return {spiffe_id: held.pins for spiffe_id, held in self.keys.items()}


class KeyTurning:
    """The machine; inputs are methods, what is to be done is read from it after each of them."""

    def __init__(
        self,
        holding: Holding,
        *,
        period_s: int,
        make_key: Callable[[str], LeafKey],
        now: Instant,
        wall: WallSeconds,
    ) -> None:
        """Go on from what is on disk.

        Args:
            holding: as it was read from disk, or as it was just written there.
            period_s: how long a key is shown, at least.
            make_key: makes a fresh key for a SPIFFE ID.
        """
        self._period_s = period_s
        self._make_key = make_key
        self._holding = self._kept = holding
        self._version = self._kept_version = 0
        self._writing: tuple[int, Holding] | None = None
        self._published: Pins | None = None
        self._heard: Pins = {}
        self._shown: dict[str, bytes] = {}
        self._engine_able, self._certified_only, self._hindrance = True, False, ""
        self._asked = self._stolen = False
        age_s = wall - holding.turned
        if age_s < 0:
            self._hold(msgspec.structs.replace(holding, turned=wall))
        self._turn_at = self._due(now, min(max(0, age_s), 2 * period_s))

    # Inputs

    def want(self, identities: Iterable[str]) -> None:
        """Hold keys for exactly these identities; fresh ones where there are none."""
        names = sorted(set(identities))
        keys = {name: self._holding.keys.get(name) or self._first(name) for name in names}
        if keys != self._holding.keys:
            self._hold(msgspec.structs.replace(self._holding, keys=keys))

    def certified(self, keys_by_pin: Mapping[bytes, LeafKey]) -> None:
        """Take keys with the authority's newer chains; those that are not held any more are left out."""
        keys = {name: _with_chains(held, keys_by_pin) for name, held in self._holding.keys.items()}
        if keys != self._holding.keys:
            self._hold(msgspec.structs.replace(self._holding, keys=keys))

    def begin_write(self) -> Holding | None:
        """Return what is to be written now; None when nothing is, or a write has not ended yet."""
        if self._writing is not None or self._version == self._kept_version:
            return None
        self._writing = (self._version, self._holding)
        return self._holding

    def written(self, *, is_on_disk: bool) -> None:
        """Note that the write has ended: durably there, or nothing changed."""
        if self._writing is not None and is_on_disk:
            self._kept_version, self._kept = self._writing
        self._writing = None
        self._progress()

    def published(self, pins: Pins) -> None:
        """Note that these pins were signed and sent on their way."""
        if pins != self._published:
            self._published, self._heard = dict(pins), {}

    def heard(self, peers_count: int, others_count: int) -> None:
        """Note how many live peers hold what was last published, of how many there are."""
        if self._published is not None and peers_count >= min(PEERS_ENOUGH, others_count):
            self._heard = self._published
            self._progress()

    def shown(self, pins: Mapping[str, bytes]) -> None:
        """Note what the engine has confirmed to show, the pin by SPIFFE ID; nothing while there is none."""
        self._shown = dict(pins)
        self._progress()

    def engine_able(self, is_able: bool) -> None:
        """Note whether the engine can show a key for which there is no certificate of the authority."""
        self._engine_able = is_able

    def certified_only(self, is_needed: bool) -> None:
        """Note whether somebody is there who takes no key without a certificate of the authority."""
        if is_needed != self._certified_only:
            self._certified_only = is_needed
            self._progress()

    def hinder(self, why: str) -> None:
        """Have a turn wait for something outside, in words; empty: for nothing there any more."""
        self._hindrance = why

    def ask_turn(self, *, stolen: bool = False) -> None:
        """Turn as soon as that is possible; `stolen`: others may have the next key, so it goes as well."""
        self._asked = True
        self._stolen = self._stolen or stolen

    def turn_if_due(self, now: Instant, wall: WallSeconds) -> bool:
        """Turn every identity if it is time, or was asked for, and nothing stands in the way."""
        if not self.is_due(now) or self.waits_for(now):
            return False
        stolen = self._stolen
        self._asked = self._stolen = False
        keys = {name: self._turned(name, held, stolen) for name, held in self._holding.keys.items()}
        self._hold(Holding(keys, wall))
        self._turn_at = self._due(now, 0)
        return True

    # What is to be done

    @property
    def holding(self) -> Holding:
        """Return what is held, on disk or on its way there."""
        return self._holding

    @property
    def to_publish(self) -> Pins | None:
        """Return the pins to publish; None when they are."""
        pins = self._kept.pins
        return None if pins == self._published else pins

    @property
    def to_show(self) -> dict[str, LeafKey]:
        """Return the key that the engine should show for each identity that may be used."""
        shown = ((name, held.shown) for name, held in self._kept.keys.items())
        return {name: key for name, key in shown if key is not None}

    @property
    def is_heard(self) -> bool:
        """Tell whether enough peers hold the pins of what is on disk."""
        return self._heard == self._kept.pins

    @property
    def is_settled(self) -> bool:
        """Tell whether nothing is under way: all on disk, published, heard, shown and confirmed."""
        keys = self._holding.keys.values()
        at_rest = all(held.is_used and held.former is None for held in keys)
        return at_rest and self.is_heard and self._version == self._kept_version and not self._asked

    @property
    def turn_at(self) -> Instant:
        """Return when the next turn is due; NEVER while there is nothing to turn."""
        return self._turn_at if self._holding.keys else NEVER

    def is_due(self, now: Instant) -> bool:
        """Tell whether it is time to turn."""
        return bool(self._holding.keys) and (self._asked or now >= self._turn_at)

    def waits_for(self, now: Instant) -> str:
        """Return what a turn that is due waits for, in words; empty when for nothing."""
        if not self.is_due(now):
            return ""
        held = self._holding.keys.values()
        if self._certified_only and any(one.former and not one.current.chain_pem for one in held):
            return "the keys of the last turn have no certificate yet, and members of older builds need one"
        if any(one.former is not None for one in held):
            return (
                "the engine has not confirmed the keys of the last turn, or too few members hold their pins"
            )
        if not self._engine_able:
            return "the engine is of a build that shows certificates of the authority alone"
        return self._hindrance

    # Within

    def _hold(self, holding: Holding) -> None:
        self._holding = holding
        self._version += 1

    def _first(self, name: str) -> HeldKeys:
        return HeldKeys(self._make_key(name), self._make_key(name))

    def _turned(self, name: str, held: HeldKeys, stolen: bool) -> HeldKeys:
        """Return the keys after a turn; the one that was shown stays until the engine confirms."""
        coming = self._make_key(name) if stolen else held.next
        is_used = self._may_show(name, coming)
        return HeldKeys(coming, self._make_key(name), held.shown, is_used)

    def _progress(self) -> None:
        """Use first keys that enough peers know, and drop those that the engine no longer shows."""
        keys = {name: self._progressed(name, held) for name, held in self._holding.keys.items()}
        if keys != self._holding.keys:
            self._hold(msgspec.structs.replace(self._holding, keys=keys))

    def _progressed(self, name: str, held: HeldKeys) -> HeldKeys:
        if not held.is_used and self._may_show(name, held.current):
            return msgspec.structs.replace(held, is_used=True)
        is_confirmed = held.is_used and self._shown.get(name) == held.current.pin
        if held.former is not None and is_confirmed and held.next.pin in self._heard.get(name, ()):
            return msgspec.structs.replace(held, former=None)
        return held

    def _may_show(self, name: str, key: LeafKey) -> bool:
        """Tell whether enough peers know a key, and everybody takes it."""
        is_certified = bool(key.chain_pem) or not self._certified_only
        return is_certified and key.pin in self._heard.get(name, ())

    def _due(self, now: Instant, age_s: int) -> Instant:
        """Return when keys of this age are to be turned: each node and each turn has its own moment."""
        first = next(iter(self._holding.keys.values()), None)
        share = 0.0 if first is None else int.from_bytes(first.next.pin[:4], "big") / _PIN_SCALE
        due_s = self._period_s * (1 + _SPREAD * share)
        return Instant(now + max(0, round((due_s - age_s) * SECOND_NS)))


def _with_chains(held: HeldKeys, keys_by_pin: Mapping[bytes, LeafKey]) -> HeldKeys:
    former = None if held.former is None else keys_by_pin.get(held.former.pin, held.former)
    return msgspec.structs.replace(
        held,
        current=keys_by_pin.get(held.current.pin, held.current),
        next=keys_by_pin.get(held.next.pin, held.next),
        former=former,
    )
