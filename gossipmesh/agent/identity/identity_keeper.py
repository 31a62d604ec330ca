"""This node's identity over time: enrolled once, renewed at half life, kept current everywhere.

Rules:
1. The authority may be gone for weeks: a renewal that fails is tried again and warned of with the horizon.
   Keys turn meanwhile (`key_keeper`), and so does what is registered anew get its own.
2. Certificates that were not issued yet for a key in use are asked for.
3. A token is for a node without an identity. Beside one, a token for somebody else is a mistake that ends the
   start; a token for this very node is left unspent, and the log says so.
"""

import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from gossipmesh.agent.identity import enrolment
from gossipmesh.agent.identity.authority_client import AuthorityClient
from gossipmesh.agent.identity.dropped import is_dropped, is_signer_dropped
from gossipmesh.agent.identity.identity_store import NodeIdentity, load_identity, upgrade_identity
from gossipmesh.agent.identity.key_keeper import KeyKeeper
from gossipmesh.agent.identity.key_turning import PERIOD_S_DEFAULT, LeafKey
from gossipmesh.agent.logs import fields
from gossipmesh.model.documents import TrustDocument
from gossipmesh.model.enrolment import LEAF_BACKDATE_S, SERIAL_BY_CLOCK_MIN, JoinToken, allows
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.identity import node_spiffe_id, pattern_allows, service_spiffe_id
from gossipmesh.model.instant import WallSeconds
from gossipmesh.model.opening import HowOpened
from gossipmesh.net.clock import wall_seconds

log = logging.getLogger("gossipmesh.agent.identity")

_RETRY_S_MIN: Final = 5.0
_RETRY_S_MAX: Final = 300.0
_JITTER: Final = 0.1
_OLD_AUTHORITY: Final = (
    "the authority is of a build before 0.3 and renews no other keys than it enrolled: upgrade it first"
)
_LOOK_S: Final = 60.0  # how often civil time is looked at while nothing is due


async def load_or_enrol(
    directory: Path, token_file: Path | None, before: Callable[[], None] = lambda: None
) -> tuple[NodeIdentity, bool]:
    """Return the identity in `directory`, enrolling with the token when there is none; and whether it did.

    `before` is called when a token is about to be spent: what would stop the start must stop it there.

    Raises:
        OperatorError: files open to others or damaged, no token, a token used or expired, an
            authority that does not answer, an identity and a token for another one. Nothing is left
            half-done.
    """
    identity = load_identity(directory)
    if identity is not None:
        if upgrade_identity(directory, identity):
            log.info("the identity is written anew, in a format that builds before 0.3 do not read")
        if token_file is not None:
            _leave_token(directory, identity, token_file)
        return identity, False
    if token_file is None:
        raise OperatorError(
            f"this node has no identity in {directory} and no token to get one; create one with "
            "`gossipmesh token create` and give it as --token-file"
        )
    before()
    return await enrolment.enrol(directory, token_file), True


def _leave_token(directory: Path, identity: NodeIdentity, token_file: Path) -> None:
    """Say that a token is not redeemed because there is an identity.

    Raises:
        OperatorError: the token is for another node, trust domain or authority. The token is not spent.
    """
    if not os.path.lexists(token_file):
        return  # as it should be once the node has joined
    try:
        token = enrolment.read_token(token_file)
    except OperatorError as error:
        # What an enrolled node does not need keeps it from nothing.
        log.warning("%s goes on with its identity; its token was not looked at: %s", identity.name, error)
        return
    anew = f"stop the agent, run `rm -r {directory}` and start it again with a token that is not spent"
    mistake = _of_another(identity, token)
    if mistake is not None:
        raise OperatorError(
            f"{directory} holds the identity of {identity.spiffe_id}, and {token_file} is a token for "
            f"{mistake}: nothing was started, and the token was not spent; to go on as {identity.name} leave "
            f"out --token-file (or spec.tokenFile), to enrol by the token {anew}"
        )
    ignored = _said_by_token_only(identity, token)
    log.log(
        logging.WARNING if ignored else logging.INFO,
        "%s is enrolled already, its token is not redeemed%s; to enrol it anew, %s",
        identity.name,
        f" and what it says is ignored: {', '.join(ignored)}" if ignored else " and the file may be removed",
        anew,
        extra=fields(token_file=token_file, identity=directory),
    )


def _of_another(identity: NodeIdentity, token: JoinToken) -> str | None:
    """Return for whom a token is, if not for this identity; None when it is."""
    wanted = node_spiffe_id(token.trust_domain, token.node)
    if wanted != identity.spiffe_id:
        return wanted
    if token.root_certificate not in enrolment.root_certificates(identity):
        return f"{wanted} of another authority, at {token.authority}: this identity knows no such root"
    return None


def _said_by_token_only(identity: NodeIdentity, token: JoinToken) -> list[str]:
    """Return what whoever gave this token may have wanted to change by it."""
    held = identity.credential_body.service_patterns
    services = [s for s in token.services if not any(pattern_allows(pattern, s) for pattern in held)]
    said = [f"that it may serve {', '.join(services)}"] if services else []
    if token.every_authority() != identity.authorities:
        there, here = ", ".join(token.every_authority()), ", ".join(identity.authorities) or "nowhere"
        said.append(f"that the authority is at {there}, not {here} (set spec.authorities for that)")
    return said


def half_life(identity: NodeIdentity) -> WallSeconds:
    """Return when the first of the authority's certificates has lived half its life; 0: there is none."""
    halves = [svid.not_before + (svid.not_after - svid.not_before) // 2 for svid in identity.svids.values()]
    return WallSeconds(min(halves, default=0))


def leaves_end(identity: NodeIdentity) -> WallSeconds:
    """Return when the first of the authority's certificates ends; 0: there is none."""
    return WallSeconds(min((svid.not_after for svid in identity.svids.values()), default=0))


def horizon(identity: NodeIdentity) -> WallSeconds:
    """Return until when this node is one of the mesh, whoever answers meanwhile: its credential's end."""
    return WallSeconds(identity.credential_body.ends)


def answered_at(identity: NodeIdentity) -> WallSeconds:
    """Return when the authority last issued something to this node, as far as its certificates tell."""
    issued = [svid.not_before + LEAF_BACKDATE_S for svid in identity.svids.values()]
    return WallSeconds(max([identity.credential_body.not_before + LEAF_BACKDATE_S, *issued]))


class IdentityKeeper:
    """Holds the identity, has its certificates renewed in time, and its keys turned."""

    def __init__(
        self,
        directory: Path,
        identity: NodeIdentity,
        *,
        wanted: Callable[[], Sequence[str]],
        on_renewed: Callable[[NodeIdentity], None],
        rng: random.Random,
        period_s: int = PERIOD_S_DEFAULT,
        authorities: Sequence[str] = (),
        trust: Callable[[], TrustDocument | None] = lambda: None,
    ) -> None:
        """`wanted` are the services registered now; `on_renewed` gets each newer identity.

        `period_s`: how long keys are shown before they are turned. `authorities`: where the
        authority is by the configuration. `trust`: the newest one known, which may say so, too.
        """
        self.failure: str | None = None
        self.renewals_count = 0
        self.failures_count = 0
        self.keys = KeyKeeper(
            directory,
            identity,
            period_s=period_s,
            wanted=wanted,
            certify=self._certify_coming,
            on_written=self._keys_written,
        )
        self._client = AuthorityClient()
        self._authorities = tuple(authorities)
        self._trust = trust
        self._wanted = wanted
        self._on_renewed = on_renewed
        self._rng = rng
        self._asked = trio.Event()
        self._not_issued: set[bytes] = set()

    @property
    def identity(self) -> NodeIdentity:
        """Return the identity as it is on disk."""
        return self.keys.identity

    @property
    def authorities(self) -> tuple[str, ...]:
        """Return where the authority may be, HOST:PORT, in the order to try."""
        trust = self._trust()
        by_trust = () if trust is None else trust.authorities
        return tuple(dict.fromkeys((*self._authorities, *by_trust, *self.identity.authorities)))

    async def ask_authority(self, leaves: Mapping[str, LeafKey]) -> enrolment.Renewal:
        """Have certificates issued for these keys, and the credential with them.

        Raises:
            OperatorError: unreachable or refused. State unchanged.
        """
        return await enrolment.renew(
            self.identity, leaves, client=self._client, authorities=self.authorities, trust=self._trust()
        )

    async def report_open(self, how: HowOpened) -> None:
        """Tell the authority that this node answers calls.

        Raises:
            OperatorError: unreachable or refused. State unchanged.
        """
        await enrolment.report_open(
            self.identity, how, client=self._client, authorities=self.authorities, trust=self._trust()
        )

    def missing_services(self) -> list[str]:
        """Return the registered services this node may serve and has no usable key for yet, sorted."""
        domain, usable = self.identity.trust_domain, self.keys.usable()
        return sorted({s for s in self._wanted() if service_spiffe_id(domain, s) not in usable})

    def disallowed_services(self) -> list[str]:
        """Return the registered services that this node's credential does not allow, sorted."""
        patterns = self.identity.credential_body.service_patterns
        return sorted({s for s in self._wanted() if not allows(patterns, s)})

    def services_changed(self) -> None:
        """Look again at what is registered: it gets keys at once, certificates when the authority answers."""
        self.keys.look()

    def trust_changed(self) -> None:
        """Ask at once if a renewal failed, perhaps for want of this Trust, or if it drops who issued ours."""
        trust, held = self._trust(), self.identity.holding.keys.values()
        dropped = any(is_dropped(keys.current, trust) for keys in held)
        if self.failure is not None or dropped or is_signer_dropped(self.identity.credential, trust):
            self._asked.set()

    async def run(self) -> None:
        """Renew when due or asked, until cancelled."""
        retry_s = 0.0
        while True:
            if retry_s:
                with trio.move_on_after(retry_s):
                    await self._asked.wait()
            else:
                await self._wait_until_due()
            self._asked = trio.Event()
            if await self._renew():
                retry_s = 0.0
            else:
                retry_s = min(max(2 * retry_s, _RETRY_S_MIN), _RETRY_S_MAX) * self._rng.uniform(
                    1.0, 1.0 + _JITTER
                )

    async def _wait_until_due(self) -> None:
        """Wait until half life, a little earlier or later on each node, or until asked.

        Civil time is looked at meanwhile: it may be set, and goes on while a machine sleeps and the loop's
        clock stands still.
        """
        half, end = half_life(self.identity), leaves_end(self.identity)
        due = half + self._rng.uniform(-_JITTER, _JITTER) * (end - half)
        due_at = trio.current_time() + max(1.0, due - wall_seconds())
        while trio.current_time() < due_at and not self._lacks_certificates():
            with trio.move_on_at(min(due_at, trio.current_time() + _LOOK_S)):
                await self._asked.wait()
                return
            if wall_seconds() >= due:
                return

    def _keys_written(self) -> None:
        """Called when other keys than before are on disk: what is new among them is asked for."""
        if self._lacks_certificates():
            self._asked.set()

    def _lacks_certificates(self) -> bool:
        """Tell whether a key in use has no certificate of the authority, and it was not asked for one."""
        held = self.identity.holding.keys
        return any(
            not keys.current.chain_pem and keys.current.pin not in self._not_issued for keys in held.values()
        )

    async def _renew(self) -> bool:
        leaves = {name: held.current for name, held in self.keys.turning.holding.keys.items()}
        try:
            await self._keep(await self.ask_authority(leaves), leaves)
        except OperatorError as error:
            self.failure = str(error)
            self.failures_count += 1
            left_s = horizon(self.identity) - wall_seconds()
            ends = datetime.fromtimestamp(horizon(self.identity), UTC).isoformat()
            log.warning(
                "certificates were not renewed: %s",
                error,
                extra=fields(ends=ends, hours_left=left_s // 3_600),
            )
            return False
        return True

    async def _certify_coming(self) -> str:
        """Ask the authority once for certificates of the keys that are about to be used.

        Returns why these may not be used, empty when they may. An authority of 0.2 renews for the keys it
        enrolled alone: whoever turned away from those would be out of the mesh at its credential's end.
        """
        leaves = {name: held.next for name, held in self.keys.turning.holding.keys.items()}
        try:
            await self._keep(await self.ask_authority(leaves), leaves)
        except OperatorError as error:
            log.info("no certificates of the authority for the coming keys: %s", error)
        is_old = self.identity.credential_body.serial < SERIAL_BY_CLOCK_MIN
        return _OLD_AUTHORITY if is_old else ""

    async def _keep(self, renewal: enrolment.Renewal, leaves: Mapping[str, LeafKey]) -> None:
        await self.keys.keep(renewal)
        self._not_issued = {key.pin for key in leaves.values()} - renewal.keys.keys()
        self.failure = None
        self.renewals_count += 1
        if renewal.left_out:
            names = ", ".join(renewal.left_out)
            log.warning("the authority allows this node no more to be %s; all else was renewed", names)
        log.info("certificates renewed", extra=fields(identities=sorted(self.identity.svids)))
        self._on_renewed(self.identity)
