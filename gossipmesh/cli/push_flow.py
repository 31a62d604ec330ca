"""One push from base to verdict: read, refuse a stale base, sign, offer, watch the members.

Time comes in as `clock` and `pause`, so that tests run a push in no time at all.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gossipmesh.cli.admin_client import AdminClient, AgentRefused
from gossipmesh.cli.output import printable
from gossipmesh.cli.push_plan import (
    GONE,
    REACHED,
    REFUSED,
    SUPERSEDED,
    WAIT_ALIVE,
    MemberPolicy,
    Outcome,
    Version,
    few_readers,
    judge,
    lacking,
    read_members,
    stale_base,
)
from gossipmesh.model.documents import generation_of
from gossipmesh.model.errors import Interrupted, MalformedInput, OperatorError
from gossipmesh.trust.documents import decode_policy_set_untrusted
from gossipmesh.trust.keys import SigningKey, Verifier
from gossipmesh.trust.manifest import (
    EMPTY_BASE,
    BaseSet,
    Change,
    ForeignSigner,
    SignedSet,
    begin_generation,
    build_manifest,
    changes,
    open_base_untrusted,
    required_features,
    sign_set,
)

SETTLE_S: Final = 2.0  # a rival push of the same version shows itself within this
POLL_S: Final = 0.05
QUIET_S: Final = 1.0  # progress is for pushes that take longer than a glance
REBASE_ATTEMPTS_MAX: Final = 5
_LOST_CODES: Final = ("older", "same")

Edit = Callable[[BaseSet], dict[str, bytes]]
"""Makes the next set's bodies out of the base's; raises OperatorError when they may not be."""


@dataclass(frozen=True)
class PushSettings:
    """What the operator asked for; `accepted_signers` are further public keys a base may carry.

    `further_keys` sign beside the signer's own, where Trust asks for more than one.

    `wait`: for whom, WAIT_ALIVE or WAIT_ALL; None: for nobody.
    """

    scope: str
    wait: str | None
    timeout_s: float
    rebase: bool
    accepted_signers: tuple[bytes, ...] = ()
    further_keys: tuple[SigningKey, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """The next set on a checked base, not signed yet."""

    base: BaseSet
    bodies: dict[str, bytes]
    changes: list[Change]
    members: list[MemberPolicy] = field(default_factory=list)


@dataclass(frozen=True)
class Published:
    """A set the agent took, and what became of it after `seconds`.

    `heir` is the set somebody built on it meanwhile, which `outcome` is then about.
    """

    signed: SignedSet
    changes: list[Change]
    outcome: Outcome
    seconds: float
    heir: Version | None = None

    @property
    def target(self) -> Version:
        """Return (version, hash) of what was pushed."""
        return self.signed.manifest.version, self.signed.manifest_hash.hex()


class Push:
    """A push by one signer through one agent."""

    def __init__(
        self,
        client: AdminClient,
        settings: PushSettings,
        *,
        clock: Callable[[], float],
        pause: Callable[[float], None],
        tell: Callable[[str], None],
    ) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock
        self._pause = pause
        self._tell = tell
        self._stands = ""
        self._generation = 0

    def prepare(self, edit: Edit, public_keys: Sequence[bytes] | None) -> Prepared:
        """Return the next set on the newest base.

        Args:
            edit: applied to the base.
            public_keys: who may have signed the base; None: anybody, good for looking only.

        Raises:
            OperatorError: no agent, a stale base without --rebase, a base nobody here vouches for.
        """
        give_up_at = self._clock() + self._settings.timeout_s
        while True:
            self._generation = self._fetch_generation()
            base = self._fetch_base(public_keys)
            if generation_of(base.version) != self._generation:
                base = begin_generation(base, self._generation)
            members = self._members()
            stale = stale_base((base.version, base.hash), members)
            if stale is None:
                break
            if not self._settings.rebase:
                raise OperatorError(
                    f"the base is stale: {stale}; nothing was sent, wait until this agent has caught up or "
                    "push with --rebase"
                )
            if self._clock() >= give_up_at:
                raise OperatorError(f"the base stayed stale for {self._settings.timeout_s:g} s: {stale}")
            self._pause(POLL_S)
        bodies = edit(base)
        return Prepared(base, bodies, changes(base, bodies), members)

    def draft(self, edit: Edit, key: SigningKey, *, created: int) -> SignedSet | None:
        """Return the next set, signed and not offered; None when nothing would change.

        Raises:
            OperatorError: as for `prepare`, or members that could not execute it. Nothing was sent.
        """
        trust_domain = str(self._client.get_json("/v1/status").get("trust_domain", ""))
        prepared = self.prepare(edit, self._own_keys(key))
        if not prepared.changes and not prepared.base.begins_generation:
            return None
        _require_able(prepared)
        return self._sign(prepared, key, trust_domain, created)

    def prepare_signed(self, signed: SignedSet) -> Prepared:
        """Return what a set that was signed elsewhere changes, if it is the next one on what is in force.

        Raises:
            OperatorError: as for `prepare`, or it was made on another set. Nothing was sent.
        """
        manifest = signed.manifest
        names = [entry.name for entry in manifest.entries]
        bodies = dict(zip(names, signed.policy_set.bodies, strict=True))
        prepared = self.prepare(lambda _: bodies, None)
        base = (prepared.base.version, prepared.base.hash)
        if (manifest.base, manifest.base_hash) != base:
            raise OperatorError(
                f"version {manifest.version} of {manifest.scope!r} was made on version {manifest.base} "
                f"({manifest.base_hash[:8] or '-'}), and the next one is made on {base[0]} "
                f"({base[1][:8] or '-'}): make it anew and have it signed again; nothing was sent"
            )
        return prepared

    def publish_signed(self, signed: SignedSet) -> Published:
        """Offer a set that was signed elsewhere, and watch what becomes of it.

        Raises:
            OperatorError: as for `prepare_signed`; or the agent refused it, with its reason.
            Interrupted: Ctrl-C; the sentence says whether anything is published.
        """
        self._stands = "nothing was sent, so nothing is published"
        try:
            prepared = self.prepare_signed(signed)
            _require_able(prepared)
            self._hand_over(signed)
            return self._watch(signed, prepared)
        except AgentRefused as refusal:
            advice = "; `gossipmesh policy sign` adds a signature" if refusal.code == "threshold" else ""
            raise self._refused(signed, refusal, advice) from refusal
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted: {self._stands}") from None

    def publish(self, edit: Edit, key: SigningKey, *, created: int) -> Published | None:
        """Sign and offer the next set and watch what becomes of it; None when nothing would change.

        Raises:
            OperatorError: as for `prepare`; or the agent refused the set, with its reason.
            Interrupted: Ctrl-C; the sentence says whether anything is published.
        """
        self._stands = "nothing was sent, so nothing is published"
        try:
            return self._publish(edit, key, created=created)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted: {self._stands}") from None

    def _publish(self, edit: Edit, key: SigningKey, *, created: int) -> Published | None:
        keys = self._own_keys(key)
        trust_domain = str(self._client.get_json("/v1/status").get("trust_domain", ""))
        for attempt in range(1, REBASE_ATTEMPTS_MAX + 1):
            prepared = self.prepare(edit, keys)
            if not prepared.changes and not prepared.base.begins_generation:
                return None
            _require_able(prepared)
            warning = few_readers(prepared.members)
            if warning is not None:
                self._tell(f"warning: {warning}")
            signed = self._sign(prepared, key, trust_domain, created)
            try:
                self._hand_over(signed)
            except AgentRefused as refusal:
                lost = refusal.code in _LOST_CODES
                if lost and self._settings.rebase and attempt < REBASE_ATTEMPTS_MAX:
                    continue
                advice = "; push again with --rebase" if lost else ""
                raise self._refused(signed, refusal, advice) from refusal
            published = self._watch(signed, prepared)
            lost = published.outcome.superseded_by is not None
            if not lost or not self._settings.rebase or attempt == REBASE_ATTEMPTS_MAX:
                return published
            self._stands = f"{_name(signed)} was published and lost to another push; nothing newer was sent"
            self._tell(f"another push won over version {signed.manifest.version}: building on it")
        raise OperatorError(f"other pushes won {REBASE_ATTEMPTS_MAX} times in a row; nothing was changed")

    def _own_keys(self, key: SigningKey) -> tuple[bytes, ...]:
        """Return whose sets may be built on."""
        further = [one.public for one in self._settings.further_keys]
        return (key.public, *further, *self._settings.accepted_signers)

    def _hand_over(self, signed: SignedSet) -> None:
        """Give a set to the agent.

        Raises:
            AgentRefused: with its reason. Nothing was changed.
        """
        name = _name(signed)
        self._stands = f"{name} was being handed to the agent; `gossipmesh policy status` says what is"
        try:
            self._client.post_bytes("/v1/policy/offer", signed.policy_set.to_bytes())
        except AgentRefused:
            self._stands = f"{name} was refused, and nothing newer was sent"
            raise
        self._stands = (
            f"{name} is published and spreads by itself; `gossipmesh policy status` says who runs it"
        )

    def _refused(self, signed: SignedSet, refusal: AgentRefused, advice: str) -> OperatorError:
        return OperatorError(
            f"the agent refused version {signed.manifest.version} of {self._settings.scope!r}: "
            f"{refusal} ({refusal.code or refusal.status}); nothing was changed{advice}"
        )

    def _sign(self, prepared: Prepared, key: SigningKey, trust_domain: str, created: int) -> SignedSet:
        try:
            manifest = build_manifest(
                prepared.base,
                prepared.bodies,
                trust_domain=trust_domain,
                scope=self._settings.scope,
                created=created,
            )
        except MalformedInput as error:
            raise OperatorError(f"the set is larger than nodes take: {error}; nothing was sent") from error
        return sign_set(manifest, prepared.bodies, [key, *self._settings.further_keys])

    def _watch(self, signed: SignedSet, prepared: Prepared) -> Published:
        """Follow the members' records until the push is decided or its time is up."""
        there = {member.name for member in prepared.members if member.status != GONE}
        pushed = target = (signed.manifest.version, signed.manifest_hash.hex())
        started = self._clock()
        limit_s = self._settings.timeout_s if self._settings.wait else SETTLE_S
        told = 0
        while True:
            try:
                members = self._members()
                outcome = judge(members, target, everybody=self._settings.wait != WAIT_ALIVE)
                heir = self._heir(target, outcome)
            except OperatorError as error:
                raise OperatorError(
                    f"version {pushed[0]} ({pushed[1][:8]}) is published, but its fate is unknown: {error}"
                ) from error
            elapsed = self._clock() - started
            if heir is not None and heir != target:
                target = heir
                continue
            decided = heir is None and _decided(outcome)
            finished = decided and (self._settings.wait or outcome.state == SUPERSEDED)
            if finished or elapsed >= limit_s:
                left = [(m.name, "left meanwhile") for m in members if m.status == GONE and m.name in there]
                outcome = replace(outcome, absent=[*outcome.absent, *left])
                built_on = None if target == pushed else target
                return Published(signed, prepared.changes, outcome, elapsed, built_on)
            if self._settings.wait and elapsed >= QUIET_S and len(outcome.reached) > told:
                told = len(outcome.reached)
                self._tell(f"{told} of {told + len(outcome.missing) + len(outcome.refused)} members run it")
            self._pause(POLL_S)

    def _heir(self, target: Version, outcome: Outcome) -> Version | None:
        """Return the set this agent runs if it was built on `target`, or `target` while it runs that still.

        None when nothing later is known, or when what is known leaves `target` behind.
        """
        if outcome.superseded_by is None or outcome.superseded_by[0] == target[0]:
            return None
        running = self._fetch_base(None)
        version = (running.version, running.hash)
        return version if version == target or running.base_hash == target[1] else None

    def _members(self) -> list[MemberPolicy]:
        answer = self._client.get_json("/v1/members")
        return read_members(answer, self._settings.scope, self._generation)

    def _fetch_generation(self) -> int:
        """Return the generation that Trust names at this agent; one of a build before says nothing of it."""
        trust = self._client.get_json("/v1/status").get("trust") or {}
        return int((trust.get("generations") or {}).get(self._settings.scope, 0))

    def _fetch_base(self, public_keys: Sequence[bytes] | None) -> BaseSet:
        data = self._client.get_bytes("/v1/policy/set", scope=self._settings.scope)
        if data is None:
            return EMPTY_BASE
        try:
            policy_set = decode_policy_set_untrusted(data)
            return open_base_untrusted(policy_set, self._settings.scope, public_keys, Verifier())
        except ForeignSigner as error:
            raise OperatorError(
                f"cannot build on what this agent runs: {error}; if you know that signer, give its public "
                "key with --accept-signer"
            ) from error
        except MalformedInput as error:
            raise OperatorError(f"cannot build on what this agent runs: {error}") from error


def _name(signed: SignedSet) -> str:
    return f"version {signed.manifest.version} ({signed.manifest_hash.hex()[:8]})"


def _require_able(prepared: Prepared) -> None:
    """Refuse kinds of documents that are new to the scope and that a member's build cannot execute.

    It would keep the set it has, and what the others enforce would not hold on it. A scope that has such
    documents already can go on being changed: that member is told of by `policy status`.

    Raises:
        OperatorError: names the members. Nothing was sent.
    """
    new = set(required_features(prepared.bodies)) - set(required_features(prepared.base.bodies))
    who = lacking(prepared.members, new)
    if who is not None:
        raise OperatorError(
            f"members of older builds, or with older engines, cannot execute what is new in this set: {who}; "
            "upgrade or revoke those first (`gossipmesh engine replace` for an engine), nothing was sent"
        )


def verdict(published: Published, settings: PushSettings) -> str | None:
    """Return why the push failed, as one sentence; None when it did what was asked."""
    version, manifest_hash = published.target
    outcome = published.outcome
    name = f"version {version} ({manifest_hash[:8]}) of {settings.scope!r}"
    if published.heir is not None:
        name = f"{name}, with version {published.heir[0]} built on it,"
    if outcome.superseded_by is not None:
        winner, winner_hash = outcome.superseded_by
        return (
            f"{name} is superseded by version {winner} ({winner_hash[:8]}): see `gossipmesh policy list` "
            "and push again on top of it"
        )
    refused = listed(f"{member} refused it: {printable(reason)}" for member, reason in outcome.refused)
    if not settings.wait:
        return f"{name} is published, but {refused}" if refused else None
    if outcome.state == REACHED:
        return None
    missing = listed(f"{member} ({why})" for member, why in outcome.missing)
    parts = [refused, f"not confirmed by {missing}" if missing else ""]
    return (
        f"{name} is published, but not every member runs it after {published.seconds:.1f} s: "
        f"{'; '.join(part for part in parts if part)}"
    )


def absentees(published: Published) -> str | None:
    """Return who was not waited for, and why, as one sentence; None when nobody was left out."""
    absent = listed(f"{member} ({why})" for member, why in published.outcome.absent)
    if not absent:
        return None
    return f"not waited for: {absent}; who comes back takes the set by itself, --wait=all waits for it"


def _decided(outcome: Outcome) -> bool:
    return outcome.state in (REACHED, SUPERSEDED) or (outcome.state == REFUSED and not outcome.missing)


def listed(sentences: Iterable[str]) -> str:
    """Return the first ten of some sentences, and how many more there are."""
    told = list(sentences)
    shown = ", ".join(told[:10])
    return f"{shown} and {len(told) - 10} more" if len(told) > 10 else shown
